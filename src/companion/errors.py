"""The two kinds of failure a user can meet, each with the exit code the command line gives it.

Everything else that escapes is a bug of this package and keeps its traceback.
"""

from __future__ import annotations

import difflib
import importlib
import os
import reprlib
import sys
from collections.abc import Callable, Iterable
from types import ModuleType


class CompanionError(Exception):
    """Base of the errors this package raises on purpose: one line saying what, where and what to do."""

    exit_code = 1


class InputError(CompanionError, ValueError):
    """What the user gave cannot be used (exit code 2)."""

    exit_code = 2


class EnvironmentFailure(CompanionError, RuntimeError):
    """The environment failed: no internet, no space, no such device, a missing extra (exit code 3)."""

    exit_code = 3


def brief(value: object) -> str:
    """`repr` of what a user gave, in one line whatever it is."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 200, 200
    return " ".join(short.repr(value).split())


def shown(path: str | os.PathLike) -> str:
    r"""Path as one printable line: bytes that are not UTF-8 and line breaks become ``\x..`` escapes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def did_you_mean(name: object, options: Iterable[str]) -> str:
    """Return " Did you mean 'X'?" for the option nearest to `name`, or the empty string."""
    near = difflib.get_close_matches(str(name).lower(), list(options), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def require_extra(module: str, extra: str) -> ModuleType:
    """Import an optional module; an `EnvironmentFailure` says which extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        hint = f"run  pip install 'transferability-companion[{extra}]'"
        raise EnvironmentFailure(f"{module} is not installed: {hint}") from error


def exit_code_of(work: Callable[[], object]) -> int:
    """Run a script's `work`; a `CompanionError` becomes one line on stderr and its exit code."""
    try:
        work()
    except CompanionError as error:
        print(f"companion: {error}", file=sys.stderr)
        return error.exit_code
    return 0
