"""Refresh the committed executed notebooks, on real data only: ``python tools/refresh_notebooks.py``."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from companion.errors import exit_code_of

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book"))

import build  # noqa: E402


def main() -> None:
    """Execute every notebook, then replace the committed ones all at once."""
    with tempfile.TemporaryDirectory() as folder:
        build.execute_all(Path(folder), "real")
        for path in Path(folder).glob("*.ipynb"):
            shutil.copyfile(path, ROOT / "notebooks" / path.name)


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
