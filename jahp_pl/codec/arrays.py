"""Types of the numpy arrays that the codec passes around. No torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.uint8]
"""8-bit RGB samples of an image, (3, H, W) or (H, W, 3)."""
IntArray = npt.NDArray[np.int32]
"""Latents, symbols, and rows of tables."""
IndexArray = npt.NDArray[np.int64]
"""Positions, and ranks in coding order."""
Float32Array = npt.NDArray[np.float32]
"""Weights, activations, and latents before rounding."""
Float64Array = npt.NDArray[np.float64]
"""Coding tables and masses."""
