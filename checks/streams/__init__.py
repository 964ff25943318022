"""Measures memory over many photographs."""
