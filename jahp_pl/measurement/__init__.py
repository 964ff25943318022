"""What a file costs and how near the image comes back, for models and classical codecs alike."""
