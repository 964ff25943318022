export const STRIDE = 16; // pixels per latent
export const HYPER_STRIDE = 4; // latents per hyper-latent
