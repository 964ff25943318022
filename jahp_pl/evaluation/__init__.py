"""From models and codecs to numbers and pictures. This package imports nothing; import its modules one by one."""


class EvaluationError(ValueError):
    """An evaluation that cannot start or go on; the message is one line that says why and what to do."""
