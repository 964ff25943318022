"""Helpers that several test files and checks share."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The repository."""
