"""Sweeps on this machine: trains every run of a W&B sweep file, each in its own process, without a server.

Importing this package alone is fast; import its modules individually.
"""

from jahp_pl.errors import JahpError


class SweepError(JahpError, ValueError):
    """Error that stops a sweep; the message is one line with the reason and the remedy."""
