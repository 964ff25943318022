"""Content of the exports that tests make."""

from __future__ import annotations

FACTS = {"step": 7, "lmbda": 0.013}
"""Facts about a training that never took place."""
RESULTS = {
    "images": "Kodak", "count": 24, "bpp": 0.25, "psnr": 30.5, "ms_ssim": 0.95, "ms_ssim_db": 13.01, "date": None,
}  # fmt: skip
"""Results as an export stores them."""
