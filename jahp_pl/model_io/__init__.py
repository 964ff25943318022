"""Models on disk: checkpoints, exports, bundled models, and the formats of other programs."""
