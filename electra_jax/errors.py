"""Errors that the command line tells in one line."""


class UserError(ValueError):
    """A mistake of the user's: one line naming the field or file, its value and the remedy.

    Command lines print the message alone, without a stack trace, and exit with status 2.
    """


class Preempted(Exception):  # noqa: N818 (no error: everything is saved)
    """A run was asked to stop, and has saved what it had; the programs end with status 0."""


class ProcessLost(RuntimeError):
    """Another process of the run is gone; the programs end with status 1."""
