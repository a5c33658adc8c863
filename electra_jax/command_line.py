"""How the programs meet their users: flags in, one line for a mistake, exit status 2."""

from __future__ import annotations

import _thread
import atexit
import errno
import itertools
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from electra_jax.errors import Preempted, ProcessLost, UserError

USER_ERROR_STATUS = 2
INTERRUPTED_STATUS = 130  # what shells give for a program that an interrupt has ended


def run(
    main: Callable[[], object],
    *,
    after_interrupt: str = "nothing was finished",
    at_failure: Callable[[int], None] | None = None,
) -> int:
    """Calls `main`; returns the exit status.

    A user's mistake is printed as one line; so is an interrupt, with what to expect after it.

    Args:
      main: what to do.
      after_interrupt: what to expect after an interrupt.
      at_failure: called with a status that is not 0 before it is returned.
    """
    try:
        status = _run(main, after_interrupt)
    except Exception:
        if at_failure is None:
            raise
        traceback.print_exc()
        status = 1
    if status and at_failure is not None:
        at_failure(status)
    return status


def _run(main: Callable[[], object], after_interrupt: str) -> int:
    if threading.current_thread() is threading.main_thread():
        # As Ctrl-C: what is under way is ended in order.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.unraisablehook = _unraisable
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        _say(f"error: {error}")
        return USER_ERROR_STATUS
    except Preempted as error:
        print(f"stopped: {error}; the same command goes on from there", flush=True)
        return 0
    except (FloatingPointError, ProcessLost) as error:
        _say(f"error: {error}")
        return 1
    except BrokenPipeError:  # Whoever read our output has had enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _say("error: No space left on device: make room")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # until this has been said
        print(f"\ninterrupted: {after_interrupt}", file=sys.stderr, flush=True)
        # Libraries' threads may keep the process: another interrupt ends it at once.
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED_STATUS))
        # Python's last steps would put back the system's own handler, which spoils the status.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
        return INTERRUPTED_STATUS
    return 0


def _unraisable(unraisable) -> None:
    """What was raised where nobody can catch it: in callbacks of libraries' threads and of the gc.

    An interrupt is handed on. What TensorStore says of a failure once more is left out: it has been
    raised where it is waited for.
    """
    error = unraisable.exc_value
    if isinstance(error, KeyboardInterrupt):
        _thread.interrupt_main()
    elif "Event loop is closed" not in str(error) and "OCDBT database" not in str(error):
        sys.__unraisablehook__(unraisable)


def _say(text: str) -> None:
    """One line, whatever names are in it."""
    print(text.replace("\n", "\\n"), file=sys.stderr)


def parse_config(
    argv: Sequence[str], *, default_workdir: str
) -> tuple[ml_collections.ConfigDict, str]:
    """Reads `--config=FILE[:ARGUMENT] [--config.FIELD=VALUE ...] [--workdir=DIR]`.

    Args:
      argv: with the program's name first.
      default_workdir: may contain {name}, the config's.

    Raises:
      UserError: for a missing file, an unknown flag or field, or a value of the wrong type.
    """
    _check_config_file(argv)
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config",
        None,
        "configuration file (Python), with an argument after a colon",
        lock_config=True,
        sys_argv=list(argv),
        flag_values=values,
    )
    flags.DEFINE_string("workdir", None, "directory of the run", flag_values=values)
    try:
        rest = values(list(argv))
        config = values["config"].value
        if config is None:
            raise UserError("--config is missing: for example --config=configs/tiny.py")
        if len(rest) > 1:
            raise UserError(f"unexpected argument {rest[1]!r}: flags begin with --")
        workdir = values["workdir"].value or default_workdir.format(name=config.name)
    except UserError:
        raise
    except AttributeError as error:
        raise UserError(_unknown_field(str(error), argv)) from error
    except (flags.Error, OSError, KeyError, TypeError, ValueError, SyntaxError) as error:
        raise UserError(" ".join(str(error).split())) from error
    return config, workdir


def _check_config_file(argv: Sequence[str]) -> None:
    """Raises UserError if the file of --config=FILE[:ARGUMENT] is not there."""
    for name, value in itertools.zip_longest(argv, argv[1:], fillvalue=""):
        flag, is_joined, joined = name.partition("=")
        if flag in ("--config", "-config"):
            path = (joined if is_joined else value).partition(":")[0]
            if path and not os.path.isfile(path):
                raise UserError(
                    f"--config={path} is no file: give the path of a config, such as the ones in "
                    "configs/ of the repository"
                )


def _unknown_field(message: str, argv: Sequence[str]) -> str:
    names = re.findall(r"[A-Za-z_]\w*", message)
    for argument in argv:
        path = argument.split("=")[0]
        if path.startswith("--config.") and names and names[0] in path.split("."):
            suggestion = re.search(r'Did you mean "(\w+)"', message)
            hint = f": did you mean {suggestion[1]!r}?" if suggestion else ""
            return f"{path}: the config has no field {names[0]!r}{hint}"
    return " ".join(message.split())
