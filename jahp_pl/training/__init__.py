"""Training with Lightning. This package itself imports nothing; import its modules one by one."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message is one line that says why and what to do."""
