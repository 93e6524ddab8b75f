"""What would be released: built, installed outside the repository, and used. ``make release-check`` runs this."""

import json
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import companion
from processes import run

pytestmark = pytest.mark.release
ROOT = Path(__file__).parents[1]
DIST = ROOT / "build" / "dist"


@pytest.fixture(scope="module")
def built() -> tuple[Path, Path]:
    """Source distribution and wheel."""
    for old in DIST.glob("*"):
        old.unlink()
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST, ROOT)
    (sdist,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """Folder of the programs of a fresh environment with the wheel in it."""
    folder = tmp_path_factory.mktemp("release")
    run(sys.executable, "-m", "venv", folder / "venv")
    programs = folder / "venv" / "bin"
    run(programs / "python", "-m", "pip", "install", "-q", built[1], "-c", ROOT / "requirements.lock")
    return programs


@pytest.fixture
def outside(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, and an environment that does not know the repository."""
    monkeypatch.chdir(tmp_path)
    for name in ("PYTHONPATH", "COMPANION_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COMPANION_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_what_is_in_them(built):
    sdist, wheel = built
    assert companion.__version__ in sdist.name and companion.__version__ in wheel.name
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    package = ROOT / "src" / "companion"
    data = [path for path in package.rglob("*.*") if path.suffix not in (".py", ".pyc")]
    assert data and {f"companion/{path.relative_to(package).as_posix()}" for path in data} <= set(names)
    assert sum(name.endswith(".ipynb") for name in names) == len(list((ROOT / "notebooks").glob("*.py")))
    with tarfile.open(sdist) as opened:
        inside = opened.getnames()
    heavy = [name for name in (*names, *inside) if name.endswith((".npz", ".pth", ".safetensors"))]
    assert not [name for name in heavy if "golden" not in name]


def test_it_is_installed_and_used(installed, outside):
    assert run(installed / "companion", "--version").strip() == companion.__version__
    sources = [f"--source=train:procedural:{name}" for name in ("textures", "cells", "fibres")]
    command = [installed / "companion", "rank", "procedural:lesions", "--source=scratch", *sources, "--json"]
    ranking = json.loads(run(*command))
    assert "procedural:textures" in json.dumps(ranking)
    found = run(installed / "python", "-c", "import companion; print(companion.__file__)").strip()
    assert str(ROOT) not in found


def test_a_notebook_runs_from_the_wheel(installed, outside):
    given = (
        "-p target procedural:lesions -p sources scratch,train:procedural:textures -p per_class 20".split()
    )
    command = [installed / "companion", "notebook", "04", *given, "--out", outside / "out.ipynb"]
    run(*command, env=os.environ.copy())
    assert (outside / "out.ipynb").is_file()
