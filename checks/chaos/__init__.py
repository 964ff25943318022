"""Kill a training again and again."""
