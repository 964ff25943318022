"""The one base of every error that this package raises on purpose."""


class JahpError(Exception):
    """Something that the caller can act on: the message is one line that says what was found and what to do.

    Every subclass is also of the built-in type that fits (`ValueError`, `OSError`, ...). Anything else that leaves the
    package is a bug, or an `OSError` of a file that was to be read.
    """
