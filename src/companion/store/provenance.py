"""What a stored result carries so that it can be traced and repeated."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import platform
import sys
from typing import Any

# Raised by hand when a change of the package alters results; stored rows and executed notebooks of another
# results version are out of date, whatever else changed or did not. Rounding does not count: it differs between
# processors, and numbers of threads, too.
RESULTS_VERSION = 3

_LIBRARIES = ("numpy", "scipy", "scikit-learn", "pandas", "torch", "torchvision")


def digest(value: Any, length: int = 16) -> str:
    """Short sha256 of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def provenance(*, seed: int | None = None, device: str | None = None, **more: Any) -> dict[str, Any]:
    """Describe how a result came about: versions, device, seed, time, and whatever else is given.

    Parameters
    ----------
    seed
        The seed of the run.
    device
        The device it ran on, for example ``"cpu"`` or ``"cuda:0"``.
    **more
        Further JSON-able entries, for example ``data={"retinamnist": "3f2a…"}``.
    """
    from companion import __version__

    return {
        "companion": __version__,
        "results_version": RESULTS_VERSION,
        "python": platform.python_version(),
        "platform": sys.platform,
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "seed": seed,
        "device": device,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **more,
    }
