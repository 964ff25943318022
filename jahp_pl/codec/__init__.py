"""Compresses images to bytes, and decompresses them.

Encoding follows this drawing from top to bottom, decoding (right) from bottom to top:

      image                                                                              image
        |        image_types.py: tensors, arrays, Pillow images <-> uint8 (3, H, W)        ^
        v                                                                                  |
    g_a, gains, h_a          transforms/runner.py: tiles, CPU and torch backends       gains, g_s
        |  y, z float32                                                                    ^
        v                                                                                  |
      round                  encoder.py; search/ finds integers that cost fewer bits       |
        |  y_hat, z_hat int32                                                              |
        v                                                                                  |
    order of positions       entropy/wavefront.py: one wavefront of y_hat at a time        |
        |                                                                                  |
        v                                                                                  |
    h_s, g_cm, g_ep          entropy/networks.py: z_hat, earlier y_hat -> parameters,      |
        |                    exact integers (entropy/fixed_point.py)                       |
        v                                                                                  |
    tables of masses         entropy/latent_tables.py for y_hat (loop: latent_coder.py),   |
        |                    entropy/prior_tables.py for z_hat                             |
        v                                                                                  |
    range coder              entropy/range_coder.py: z_hat, then y_hat  ---- y_hat --------+
        |  payload
        v
      file                   bitstream.py: header with fingerprint, size, ICC profile, CRC

The decoder cannot compute all tables at once: after each decoded wavefront, the networks run again on the enlarged
context. The encoder, which knows all of y_hat, calls the same functions for many wavefronts together.

`codec.py` runs this pipeline in torch, `runtime/codec.py` in onnxruntime. They share `encoder.py`, `decoder.py`,
`entropy/symbol_coder.py` and what these import, all of it without torch.

Guarantees: decoding recovers the encoder's y_hat and z_hat to the last bit on every machine, because everything from
z_hat to the tables is exact. Only the transforms, before rounding and after decoding, use ordinary floats.
"""
