"""Benchmarks: coding, training and data, each as a ratio measured in one run."""
