"""Sweeps on this machine: the points of a W&B sweep file, each a process of its own, without a server.

This package itself imports nothing heavy; import its modules one by one."""

from jahp_pl.errors import JahpError


class SweepError(JahpError, ValueError):
    """A sweep that cannot start or go on; the message is one line that names the thing and the remedy."""
