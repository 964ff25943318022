"""Evaluates models and codecs. Importing this package alone is fast; import its modules individually."""

from jahp_pl.errors import JahpError


class EvaluationError(JahpError, ValueError):
    """Error that stops an evaluation or a report; the message is one line with the reason and the remedy."""
