"""Models on disk: checkpoints, exports, the bundled ones, and what other programs write or read."""
