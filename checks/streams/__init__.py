"""Measure memory over many photographs."""
