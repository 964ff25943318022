"""Creates the files of this folder; run it again only if the format's version changes.

    python -m tests.golden.make

`joint.pt` (weights in half precision) was trained from scratch on the photographs of data/photos/train with Adam, noisy
quantization and clipping at norm 1: 3,500 steps of eight 64x64 crops at lambda 0.05, then 2,000 of three 192x192 crops
at lambda 0.02. `mixture.pt`, created here if missing, has K = 3 and the same transforms, with its own entropy model
trained on their latents. `variable.pt` gives the joint model four rate levels. Each `.jahp` file is a part of Kodak's
kodim20 coded with its model; `SHA256SUMS` has the hashes of its latents.
"""

from __future__ import annotations

import hashlib

import torch

from jahp_pl.codec.codec import Codec
from jahp_pl.codec.latents import Decoded, Encoded
from jahp_pl.codec.targets import Target
from jahp_pl.model import CompressionModel
from tests.support.codec_models import (
    GOLDEN,
    MIXTURE,
    kodak_crop,
    latents,
    load_golden,
    train_entropy_model,
    variable_model,
)


def latent_sums(coded: Encoded[torch.Tensor] | Decoded[torch.Tensor, torch.Tensor], name: str) -> list[str]:
    """Return the lines of SHA256SUMS: y_hat and z_hat as little-endian int32."""
    assert coded.z_hat is not None
    rows = [("y_hat", coded.y_hat), ("z_hat", coded.z_hat)]
    return [f"{hashlib.sha256(t.numpy().astype('<i4').tobytes()).hexdigest()}  {name}.{key}" for key, t in rows]


def train_mixture() -> None:
    torch.manual_seed(0)
    mixture = CompressionModel(MIXTURE.config())
    own = ("prior", "h_s", "g_cm", "g_ep")
    shapes = {key: value.shape for key, value in mixture.state_dict().items()}
    joint = load_golden("joint").state_dict()
    mixture.load_state_dict({k: v for k, v in joint.items() if v.shape == shapes[k]}, strict=False)
    assert mixture.h_a is not None
    mixture.h_a.requires_grad_(False)
    train_entropy_model(mixture, latents(), steps=300)
    state = {key: value.half() for key, value in mixture.state_dict().items() if key.startswith(own)}
    torch.save({"model": vars(mixture.config), "state": state}, GOLDEN / "mixture.pt")


def give_levels() -> None:
    variable = variable_model()
    state = {key: value for key, value in variable.state_dict().items() if key.startswith("gains")}
    torch.save({"model": vars(variable.config), "state": state}, GOLDEN / "variable.pt")


TARGETS = {"joint": None, "mixture": None, "variable": Target(level=2.25)}


def make() -> None:
    if not (GOLDEN / "variable.pt").exists():
        give_levels()
    if not (GOLDEN / "mixture.pt").exists():
        train_mixture()
    lines = []
    for name, target in TARGETS.items():
        encoded = Codec(load_golden(name)).encode(kodak_crop("kodim20", 150, 211), target)
        (GOLDEN / f"{name}.jahp").write_bytes(encoded.data)
        lines += latent_sums(encoded, name)
    (GOLDEN / "SHA256SUMS").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    make()
