"""The two kinds of failure a user can meet, each with the exit code the command line gives it.

Everything else that escapes is a bug of this package and keeps its traceback.
"""

from __future__ import annotations

import difflib
import reprlib
import sys
from collections.abc import Callable, Iterable


class CompanionError(Exception):
    """Base of the errors this package raises on purpose: one line saying what, where and what to do."""

    exit_code = 1


class InputError(CompanionError, ValueError):
    """What the user gave cannot be used (exit code 2)."""

    exit_code = 2


class EnvironmentFailure(CompanionError, RuntimeError):
    """The environment failed: no internet, no space, no such device, a missing extra (exit code 3)."""

    exit_code = 3


_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxlist, _BRIEF.maxtuple, _BRIEF.maxdict = 2, 10, 10, 10
_BRIEF.maxstring = _BRIEF.maxother = 200


def brief(value: object) -> str:
    """`repr` of what a user gave, in one line whatever it is."""
    return " ".join(_BRIEF.repr(value).split())


def did_you_mean(name: object, options: Iterable[str]) -> str:
    """Return " Did you mean 'X'?" for the option nearest to `name`, or the empty string."""
    near = difflib.get_close_matches(str(name).lower(), list(options), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def require_extra(module: str, extra: str):
    """Import an optional module, or say which extra to install.

    Raises
    ------
    EnvironmentFailure
        If the module cannot be imported.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EnvironmentFailure(
            f"{module} is not installed: run  pip install 'transferability-companion[{extra}]'"
        ) from error


def exit_code_of(work: Callable[[], object]) -> int:
    """Do a module's work from the command line; a mistake becomes one line on stderr and its exit code."""
    try:
        work()
    except CompanionError as error:
        print(f"companion: {error}", file=sys.stderr)
        return error.exit_code
    return 0
