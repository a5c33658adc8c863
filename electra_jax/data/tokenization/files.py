"""Reading a tokenizer's files, and texts that are not quite text."""

from __future__ import annotations

import os
import re
from pathlib import Path

from electra_jax.data import storage
from electra_jax.errors import UserError

_SURROGATE = re.compile("[\ud800-\udfff]")


def read_bytes(path: str | Path, what: str, remedy: str) -> bytes:
    """The content of a file.

    Args:
      path: a path, or a name in an object store.
      what: what the file is, for the messages.
      remedy: what to do if there is none.

    Raises:
      UserError: if it is missing or cannot be read.
    """
    try:
        with storage.open_read(os.fspath(path)) as file:
            return file.read()
    except FileNotFoundError:
        raise UserError(f"{what} {path} does not exist: {remedy}") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"{what} {path} cannot be read ({reason})") from None


def without_surrogates(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot hold, replaced by U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)
