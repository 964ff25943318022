"""The common base class of all errors that this package raises deliberately."""


class JahpError(Exception):
    """An error that the caller can act on: its message is one line that says what was found and what to do.

    Every subclass also derives from the built-in type that fits (`ValueError`, `OSError`, ...). Any other exception
    from the package is a bug, or an `OSError` of an input file.
    """
