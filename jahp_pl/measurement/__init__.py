"""Measures the bytes of files and the quality of decoded images, for models and classical codecs."""
