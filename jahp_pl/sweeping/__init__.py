"""Sweeps on this machine: the points of a W&B sweep file, each a process of its own, without a server.

This package imports nothing; import its modules one by one."""


class SweepError(ValueError):
    """A sweep that cannot start or go on; the message is one line that names the thing and the remedy."""
