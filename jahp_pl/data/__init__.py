"""Photographs on disk -> webdataset shards -> crops for training and whole images for validation."""
