"""Entropy coding of the latents: exact networks, tables, the range coder and the order of positions.

There are two kinds of tables, each with a module that computes it once from a trained model, and with one that codes
with it in every runtime:

| tables of | computed by (torch) | used by (no torch) |
|---|---|---|
| the prior: one per channel, of z_hat, or of y_hat in a `factorized` model | `prior_tables` | `channel_tables` |
| the latents: one per latent of y_hat, a window around its mean | `latent_tables` | `window_tables` |
"""
