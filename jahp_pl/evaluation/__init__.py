"""Evaluates models and codecs. The package itself imports nothing heavy; import its modules individually."""

from jahp_pl.errors import JahpError


class EvaluationError(JahpError, ValueError):
    """An evaluation that cannot start or continue; the message is one line with the reason and the remedy."""
