"""Benchmarks of coding, training and data loading. Each compares alternatives within one run."""
