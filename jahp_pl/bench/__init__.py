"""Benchmarks of coding, training and data loading, each as a ratio measured in one run."""
