"""The package as a whole: light to import, rooms in order, errors with their exit codes."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import companion
from companion.errors import (
    CompanionError,
    EnvironmentFailure,
    InputError,
    did_you_mean,
    exit_code_of,
    require_extra,
)

ROOT = Path(companion.__file__).parent

# A room imports only rooms above it. `errors` is every room's.
ROOMS = (
    "errors",
    "store",
    "published",
    "datasets",
    "models",
    "scores",
    "training",
    "sources",
    "ranking",
    "replication",
    "evaluation",
    "figures",
    "report",
    "notebook",
    "cli",
)
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def run(code: str) -> str:
    """Output of `code` in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT.parent)}
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    ).stdout


def room_of(path: Path) -> str:
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return "cli" if room == "__main__" else room  # another door to it


def imported_rooms(source: str, package: tuple[str, ...]) -> set[str]:
    """Rooms of this package that a module in `package` imports anywhere, inside functions too."""
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = (*start, *(node.module.split(".") if node.module else ()))
            found |= {(*module, alias.name) for alias in node.names}
    return {name[1] for name in found if name[0] == "companion" and len(name) > 1} & set(ROOMS)


def test_importing_the_package_imports_nothing_heavy():
    loaded = json.loads(run("import companion, json, sys; print(json.dumps(list(sys.modules)))"))
    heavy = {
        "torch",
        "torchvision",
        "sklearn",
        "scipy",
        "pandas",
        "matplotlib",
        "medmnist",
        "kornia",
        "IPython",
    }
    assert not heavy & set(loaded)
    # Nothing but the package itself beyond the standard library.
    tops = {name.partition(".")[0] for name in loaded} - {"companion"}
    assert "numpy" not in tops


@pytest.mark.parametrize("room", ["errors", "store", "published", "datasets", "scores", "evaluation"])
def test_rooms_about_files_tables_and_arrays_need_no_torch(room):
    assert run(f"import sys, companion.{room}; print('torch' in sys.modules)").strip() == "False"


def test_every_public_name_is_there():
    assert set(dir(companion)) == set(companion.__all__)
    for name in companion.__all__:
        assert getattr(companion, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'ranks'"):
        companion.ranks  # noqa: B018


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_room_imports_only_rooms_above_it(path):
    room = room_of(path)
    assert room in ROOMS, (
        f"{room} is in no place in the order of the rooms: HOUSE.md and ROOMS here say where"
    )
    package = ("companion", *path.relative_to(ROOT).parent.parts)
    below = imported_rooms(path.read_text(encoding="utf-8"), package) - set(ROOMS[: ROOMS.index(room) + 1])
    assert not below, f"{room} imports {', '.join(sorted(below))}, which stands below it"


def test_how_imports_are_read():
    source = (
        "import companion.cli\nfrom companion import store, version\nfrom companion.models import x\n"
        "from .. import ranking\nfrom ..figures import y\nfrom . import own\nimport numpy.scores\n"
        "def f():\n    from companion.report import z\n"
    )
    expected = {"cli", "store", "models", "ranking", "figures", "report"}
    assert imported_rooms(source, ("companion", "scores")) == expected | {"scores"}


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "py.typed").is_file()


@pytest.mark.parametrize(
    ("kind", "code", "builtin"),
    [(InputError, 2, ValueError), (EnvironmentFailure, 3, RuntimeError), (CompanionError, 1, Exception)],
)
def test_errors_carry_their_exit_code(kind, code, builtin):
    assert kind.exit_code == code
    assert issubclass(kind, CompanionError) and issubclass(kind, builtin)


def test_did_you_mean():
    assert did_you_mean("Imagnet", ["imagenet", "scratch"]) == " Did you mean 'imagenet'?"
    assert did_you_mean("xyz", ["imagenet", "scratch"]) == ""
    assert did_you_mean(3, []) == ""


def test_a_missing_extra_is_told_with_the_line_that_installs_it(monkeypatch):
    assert require_extra("json", "timm") is json
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(EnvironmentFailure, match=r"pip install 'transferability-companion\[dicom\]'"):
        require_extra("pydicom", "dicom")


def test_a_module_run_by_itself_tells_a_mistake_in_one_line(capsys):
    def wrong() -> None:
        raise EnvironmentFailure("no space")

    assert (exit_code_of(lambda: None), exit_code_of(wrong)) == (0, 3)
    assert capsys.readouterr().err == "companion: no space\n"
