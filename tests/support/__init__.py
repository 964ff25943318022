"""Helpers that several tests and checks share."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The repository."""
