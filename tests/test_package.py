"""The package as a whole: light to import, modules in order, errors with their exit codes."""

import ast
import os
import sys
from pathlib import Path

import pytest

import companion
from companion.errors import EnvironmentFailure, brief, did_you_mean, exit_code_of, shown
from processes import run

ROOT = Path(companion.__file__).parent

# A module imports only modules above it.
MODULES = tuple(
    """errors store pages published datasets models scores training sources tuning replication evaluation figures
    ranking notebook cli""".split()
)
# What is imported, one after the other, and what must not come with it.
LIGHT = """
import sys
def light(heavy):
    assert not set(heavy.split()) & set(sys.modules), set(heavy.split()) & set(sys.modules)
import companion
light("torch torchvision sklearn scipy pandas matplotlib medmnist kornia IPython numpy")
import companion.errors, companion.store, companion.scores
light("torch sklearn scipy.stats pandas matplotlib")
import companion.published, companion.datasets, companion.evaluation
from companion import cli
try: cli.main(["--help"])
except SystemExit: pass
light("torch")
"""
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def module_of(path: Path) -> str:
    name = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return "cli" if name == "__main__" else name


def imported_modules(source: str, package: tuple[str, ...]) -> set[str]:
    """Modules of this package that a file in `package` imports anywhere, inside functions too."""
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            above = (*start, *(node.module.split(".") if node.module else ()))
            found |= {(*above, alias.name) for alias in node.names}
    return {name[1] for name in found if name[0] == "companion" and len(name) > 1} & set(MODULES)


def test_importing_is_light():
    """The package brings nothing heavy, its modules about files, tables and arrays no torch."""
    printed = run(sys.executable, "-c", LIGHT, env=os.environ | {"PYTHONPATH": str(ROOT.parent)})
    assert "not for clinical use" in " ".join(printed.split())


def test_every_public_name_is_there():
    assert set(dir(companion)) == set(companion.__all__)
    for name in companion.__all__:
        assert getattr(companion, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'ranks'"):
        companion.ranks  # noqa: B018


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_imports_only_modules_above_it(path):
    name = module_of(path)
    assert name in MODULES, (
        f"{name} has no place in the order of the modules: add it to MODULES here and to the architecture page"
    )
    package = ("companion", *path.relative_to(ROOT).parent.parts)
    above = set(MODULES[: MODULES.index(name) + 1])
    below = imported_modules(path.read_text(encoding="utf-8"), package) - above
    assert not below, f"{name} imports {', '.join(sorted(below))}, which stands below it"


def test_what_a_user_gave_is_shown_in_one_line():
    assert did_you_mean("Imagnet", ["imagenet", "scratch"]) == " Did you mean 'imagenet'?"
    assert did_you_mean("xyz", ["imagenet", "scratch"]) == did_you_mean(3, []) == ""
    assert shown(os.fsdecode(b"scan\xff\n.png")) == "scan\\xff\\n.png"
    assert shown(Path("größe/läsion.png")) == "größe/läsion.png"
    assert brief("x\n" * 900) == brief("x\n" * 900).strip() and len(brief(["x" * 900] * 900)) < 2500


def test_a_script_reports_a_mistake_in_one_line(capsys):
    def wrong() -> None:
        raise EnvironmentFailure("no space")

    assert (exit_code_of(lambda: None), exit_code_of(wrong)) == (0, 3)
    assert capsys.readouterr().err == "companion: no space\n"
