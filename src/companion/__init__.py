"""Companion to *On dataset transferability in medical image classification* (arXiv 2412.20172).

Importing the package is light: torch, scikit-learn and the rest come in when a name that needs them is
first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_FUNCTIONS = {
    "inspect": "companion.datasets",
    "load_dataset": "companion.datasets",
    "load_source": "companion.sources",
    "score": "companion.ranking",
    "rank": "companion.ranking",
    "tune": "companion.tuning",
}
_MODULES = (
    "datasets",
    "errors",
    "evaluation",
    "figures",
    "models",
    "notebook",
    "published",
    "ranking",
    "replication",
    "scores",
    "sources",
    "store",
    "training",
    "tuning",
)

__all__ = [*_FUNCTIONS, *_MODULES, "__version__"]

if TYPE_CHECKING:
    from companion.datasets import inspect as inspect
    from companion.datasets import load_dataset as load_dataset
    from companion.ranking import rank as rank
    from companion.ranking import score as score
    from companion.sources import load_source as load_source
    from companion.tuning import tune as tune


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"companion.{name}")
    raise AttributeError(f"module 'companion' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
