"""From models and codecs to numbers and pictures. This package itself imports nothing heavy; import
its modules one by one."""

from jahp_pl.errors import JahpError


class EvaluationError(JahpError, ValueError):
    """An evaluation that cannot start or go on; the message is one line that says why and what to do."""
