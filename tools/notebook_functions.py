"""The functions that a notebook defines, for the tools and tests that use them outside it."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def functions(number: str) -> SimpleNamespace:
    """Return what ``def`` and ``import`` bring in the notebook of that number (two digits); nothing else is run."""
    (path,) = NOTEBOOKS.glob(f"{number}_*.py")
    kinds = (ast.FunctionDef, ast.Import, ast.ImportFrom)
    body = [part for part in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(part, kinds)]
    names: dict = {}
    exec(compile(ast.Module(body, []), path.name, "exec"), names)
    return SimpleNamespace(**names)
