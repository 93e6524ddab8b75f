"""Each committed notebook alone: an empty folder, an environment with what Colab has but not this package.

``make check-alone`` runs this; it installs torch into a fresh environment and takes minutes. The install cell runs for
real. ``COMPANION_INSTALL`` makes it install the wheel built here instead of the released one.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import nbformat
import pytest

import build
from companion import notebook
from processes import run

pytestmark = pytest.mark.alone
ROOT = Path(__file__).parents[1]
# Of what Colab's image has installed, what this package would otherwise bring.
COLAB = """
    filelock ipykernel ipython jinja2 matplotlib numpy pandas pillow platformdirs pyarrow pydantic pyyaml requests rich
    safetensors scikit-learn scipy seaborn threadpoolctl torch torchvision tqdm typer
""".split()


def environment(folder: Path, *, beside: Path | None = None) -> Path:
    """A fresh virtual environment that sees the packages of another one; return its Python."""
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    if beside is not None:
        where = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        there = run(beside, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        (Path(where) / "colab.pth").write_text(there + "\n")
    return python


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def colab(tmp_path_factory) -> Path:
    """Python of an environment with what Colab has, in the locked versions."""
    folder = tmp_path_factory.mktemp("colab")
    python = environment(folder / "venv")
    lock = (ROOT / "requirements.lock").read_text()
    names = {line.partition("==")[0].lower().replace("_", "-"): line for line in lock.splitlines()}
    pinned = [line for name, line in names.items() if name in COLAB]
    assert len(pinned) == len(COLAB)
    (folder / "lock.txt").write_text(lock)
    run(python, "-m", "pip", "install", "-q", *pinned, "-c", folder / "lock.txt")
    return python


@pytest.mark.parametrize("name", [path.stem for path in build.SOURCES])
def test_notebook_alone(name, wheel, colab, tmp_path):
    own, empty = environment(tmp_path / "venv", beside=colab), tmp_path / "empty"
    empty.mkdir()
    versions = "import torch, numpy; print(torch.__version__, numpy.__version__)"
    before = run(own, "-c", versions)
    shutil.copy2(ROOT / "notebooks" / f"{name}.ipynb", empty)
    parameters = build.synthetic(empty / f"{name}.ipynb")
    if "per_class" in notebook.declared(empty / f"{name}.ipynb"):
        parameters["per_class"] = 20
    (empty / "quick.yaml").write_text(json.dumps(parameters))
    kernels = tmp_path / "jupyter" / "kernels" / "alone"
    kernels.mkdir(parents=True)
    argv = [str(own), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": argv, "display_name": "alone", "language": "python"}
    (kernels / "kernel.json").write_text(json.dumps(kernel))
    given = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "COMPANION_DATA")}
    given |= {
        "COMPANION_INSTALL": str(wheel),
        "COMPANION_CACHE": str(tmp_path / "cache"),
        "JUPYTER_PATH": str(tmp_path / "jupyter"),
        "HOME": str(tmp_path),
    }
    options = ["-f", "quick.yaml", "-k", "alone", "--log-level", "ERROR"]
    run(sys.executable, "-m", "papermill", f"{name}.ipynb", "out.ipynb", *options, cwd=empty, env=given)
    cells = nbformat.read(empty / "out.ipynb", as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "error"]
    assert any("How this page was made" in str(o.get("data", {}).get("text/markdown", "")) for o in outputs)
    assert run(own, "-c", versions) == before, "the install cell changed torch or numpy"
    assert "site-packages" in run(own, "-c", "import companion; print(companion.__file__)", cwd=empty)
