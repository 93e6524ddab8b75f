"""Refresh the committed executed notebooks, on real data only: ``python -m companion.notebooks.refresh``."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from companion.errors import CompanionError
from companion.notebooks.book import checkout, execute_all
from companion.notebooks.parameters import NOTEBOOKS


def main() -> int:
    """Execute every notebook, then replace the committed ones all at once."""
    try:
        root = checkout()
        with tempfile.TemporaryDirectory() as folder:
            execute_all(root, Path(folder), data="real")
            for name in NOTEBOOKS:
                shutil.copyfile(Path(folder) / f"{name}.ipynb", root / "notebooks" / f"{name}.ipynb")
    except CompanionError as error:
        print(f"companion: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
