"""Measures the size of files and the quality of decoded images, for models and classical codecs."""
