"""Sweeps on this machine: runs the points of a W&B sweep file, each as its own process, without a server.

The package itself imports nothing heavy; import its modules individually.
"""

from jahp_pl.errors import JahpError


class SweepError(JahpError, ValueError):
    """A sweep that cannot start or continue; the message is one line that names the problem and the remedy."""
