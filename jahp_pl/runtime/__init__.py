"""The codec without torch: its networks run in onnxruntime, and everything else is the code of `jahp_pl.codec`."""
