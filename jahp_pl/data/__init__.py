"""Training data: photographs on disk -> webdataset shards -> random crops for training, whole images for validation."""
