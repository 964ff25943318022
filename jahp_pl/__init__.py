"""Learned image compression with joint autoregressive and hierarchical priors (Minnen, Balle, Toderici, NeurIPS 2018).

| symbol | shape | what it is | where |
|---|---|---|---|
| x | (B, 3, H, W) | image, RGB in [0, 1] | |
| y = g_a(x) | (B, M, h, w), h = H / 16 | latents | `transforms` |
| y_hat = round(y) | as y | quantized latents, coded under p(y_hat) | `entropy_model` |
| z = h_a(y) | (B, N, h / 4, w / 4) | hyper-latents, the side information | `hyperprior` |
| z_hat = round(z) | as z | quantized, coded under the factorized p(z_hat) | `entropy_model` |
| psi = h_s(z_hat) | (B, 2M, h, w) | what the hyperprior says of each latent | `hyperprior` |
| phi = g_cm(y_hat) | (B, 2M, h, w) | what the latents decoded so far say | `context` |
| mu, sigma = g_ep(psi, phi) | (B, M, h, w) each | entropy parameters | `context` |
| x_hat = g_s(y_hat) | (B, 3, H, W) | reconstruction | `transforms` |

The loss is R + lmbda * D: bits of y_hat and z_hat per pixel, and distortion between x and x_hat (`loss`).
"""
