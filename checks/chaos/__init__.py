"""Training that is killed again and again."""
