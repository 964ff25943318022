"""Evaluates models and codecs. The package itself imports nothing; import its modules individually."""


class EvaluationError(ValueError):
    """An evaluation that cannot start or continue; the message is one line with the reason and the remedy."""
