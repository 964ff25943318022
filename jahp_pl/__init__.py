"""Learned image compression with joint autoregressive and hierarchical priors (Minnen, Balle, Toderici, NeurIPS 2018).

| symbol | shape | what it is | where |
|---|---|---|---|
| x | (B, 3, H, W) | image, RGB in [0, 1] | |
| y = g_a(x) | (B, M, h, w), h = H / 16 | latents | `transforms` |
| y_hat = round(y) | as y | quantized latents, coded under p(y_hat) | `entropy_model` |
| z = h_a(y) | (B, N, h / 4, w / 4) | hyper-latents, the side information | `hyperprior` |
| z_hat = round(z) | as z | quantized, coded under the factorized p(z_hat) | `entropy_model` |
| psi = h_s(z_hat) | (B, 2M, h, w) | features of each latent from the side information | `hyperprior` |
| phi = g_cm(y_hat) | (B, 2M, h, w) | features of each latent from the latents decoded before it | `context` |
| mu, sigma = g_ep(psi, phi) | (B, M, h, w) each | entropy parameters | `context` |
| x_hat = g_s(y_hat) | (B, 3, H, W) | reconstruction | `transforms` |

The loss is R + lmbda * D: the bits of y_hat and z_hat per pixel, plus the distortion between x and x_hat (`loss`).
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for that of typing, whose import would take longer than all the rest
if TYPE_CHECKING:
    from jahp_pl.codec.bitstream import BitstreamError as BitstreamError
    from jahp_pl.codec.codec import Codec as Codec
    from jahp_pl.codec.targets import TargetError as TargetError
    from jahp_pl.context import register_entropy_network as register_entropy_network
    from jahp_pl.data.module import ShardDataModule as ShardDataModule
    from jahp_pl.distributions import register_density as register_density
    from jahp_pl.errors import JahpError as JahpError
    from jahp_pl.hyperprior import register_hyper_transform as register_hyper_transform
    from jahp_pl.model_io.load import load_codec as load_codec
    from jahp_pl.model_io.load import load_model as load_model
    from jahp_pl.runtime.codec import RuntimeCodec as RuntimeCodec
    from jahp_pl.runtime.load import load_runtime as load_runtime
    from jahp_pl.settings import load_config as load_config
    from jahp_pl.training.module import CompressionModule as CompressionModule
    from jahp_pl.training.run import train as train
    from jahp_pl.transforms import register_transform as register_transform

_MODULE_OF = {
    "BitstreamError": "jahp_pl.codec.bitstream",
    "Codec": "jahp_pl.codec.codec",
    "CompressionModule": "jahp_pl.training.module",
    "JahpError": "jahp_pl.errors",
    "ShardDataModule": "jahp_pl.data.module",
    "TargetError": "jahp_pl.codec.targets",
    "load_codec": "jahp_pl.model_io.load",
    "load_config": "jahp_pl.settings",
    "load_model": "jahp_pl.model_io.load",
    "load_runtime": "jahp_pl.runtime.load",
    "RuntimeCodec": "jahp_pl.runtime.codec",
    "register_density": "jahp_pl.distributions",
    "register_entropy_network": "jahp_pl.context",
    "register_hyper_transform": "jahp_pl.hyperprior",
    "register_transform": "jahp_pl.transforms",
    "train": "jahp_pl.training.run",
}

__all__ = [
    "BitstreamError",
    "Codec",
    "CompressionModule",
    "JahpError",
    "RuntimeCodec",
    "ShardDataModule",
    "TargetError",
    "load_codec",
    "load_config",
    "load_model",
    "load_runtime",
    "register_density",
    "register_entropy_network",
    "register_hyper_transform",
    "register_transform",
    "train",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> object:
    """Import a public name on first use, so that `import jahp_pl` alone does not load torch."""
    from importlib import import_module

    if name == "__version__":
        return import_module("importlib.metadata").version("jahp_pl")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'jahp_pl' has no attribute '{name}'")
    try:
        return getattr(import_module(_MODULE_OF[name]), name)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] != "jahp_pl":
            other = ", or use jahp_pl.load_runtime, which needs no torch" if name in ("Codec", "load_codec") else ""
            error.msg = f"jahp_pl.{name} needs {error.name}, which is not installed; pip install jahp_pl{other}"
        raise
