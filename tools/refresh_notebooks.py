"""Refresh the committed executed notebooks, on real data only: ``python tools/refresh_notebooks.py``."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from companion.errors import exit_code_of
from companion.notebooks.book import checkout, execute_all
from companion.notebooks.parameters import NOTEBOOKS


def main() -> None:
    """Execute every notebook, then replace the committed ones all at once."""
    root = checkout()
    with tempfile.TemporaryDirectory() as folder:
        execute_all(root, Path(folder), data="real")
        for name in NOTEBOOKS:
            shutil.copyfile(Path(folder) / f"{name}.ipynb", root / "notebooks" / f"{name}.ipynb")


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
