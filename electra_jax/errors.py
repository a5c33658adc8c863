"""The one exception for mistakes of the user's."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake of the user's: one line naming the field or file, its value and the remedy.

    Command lines print the message alone, without a stack trace, and exit with status 2.
    """
