"""The codec without torch: its networks in onnxruntime, everything else the code of `jahp_pl.codec`."""
