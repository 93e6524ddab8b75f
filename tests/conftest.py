"""What every test gets: directories of its own, a local web server, the real data where there is some."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from local_server import running

# Read before any test changes the environment.
_DATA_AT_START = os.environ.get("COMPANION_DATA")
_REAL_FLAGS = ("breastmnist", "pneumoniamnist", "retinamnist")


@pytest.fixture(scope="session", autouse=True)
def _session_directories(tmp_path_factory):
    """No test reads or writes the user's own directories; models trained in tests are trained once."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        for variable in ("HOME", "USERPROFILE"):
            patch.setenv(variable, str(home))
        for variable in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            patch.delenv(variable, raising=False)
        patch.setenv("TORCH_HOME", str(home / "torch"))
        # Kernels started by notebook tests share it, so that each does not list the fonts anew.
        patch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
        patch.setenv("MPLBACKEND", "Agg")
        patch.setenv("COMPANION_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("COMPANION_DATA", str(tmp_path_factory.mktemp("no-data")))
        import brief  # noqa: F401

        yield


@pytest.fixture(autouse=True)
def data(monkeypatch, tmp_path_factory, _session_directories) -> Path:
    """Empty data directory of this test."""
    folder = tmp_path_factory.mktemp("data")
    monkeypatch.setenv("COMPANION_DATA", str(folder))
    return folder


@pytest.fixture
def full_disk(monkeypatch) -> Callable[[str], None]:
    """Let the disk be full when a file whose name holds a text is written."""
    written = Path.write_bytes

    def fill(name: str) -> None:
        def write(path: Path, content: bytes) -> int:
            if name in path.name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            return written(path, content)

        monkeypatch.setattr(Path, "write_bytes", write)

    return fill


@pytest.fixture
def own_cache(monkeypatch, tmp_path_factory) -> Path:
    """Empty cache directory of this test, for those that look into it or damage it."""
    folder = tmp_path_factory.mktemp("own-cache")
    monkeypatch.setenv("COMPANION_CACHE", str(folder))
    return folder


@pytest.fixture
def real_data(monkeypatch, data) -> Path:
    """Data directory with links to the real files, but to no weights beside them; goes with the marker ``real``."""
    if not _DATA_AT_START:
        pytest.skip("COMPANION_DATA is not set: it names the directory with the real MedMNIST files")
    folder = Path(_DATA_AT_START).expanduser().resolve()
    names = [f"{flag}.npz" for flag in _REAL_FLAGS]
    missing = [name for name in names if not ((folder / name).is_file() or any(folder.glob(f"*/{name}")))]
    if missing:
        pytest.skip(f"not in COMPANION_DATA: {', '.join(missing)}")
    for found in folder.iterdir():
        if found.name != "weights":
            (data / found.name).symlink_to(found)
    return data


@pytest.fixture(scope="session")
def target():
    """A small set of synthetic images with two classes."""
    from companion.datasets import load_dataset

    return load_dataset("procedural:lesions")


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The book built from the committed executed notebooks, as `make site` builds it."""
    import build

    folder = build.stage(tmp_path_factory.mktemp("book") / "stage")
    for path in build.SOURCES:
        shutil.copy2(path.with_suffix(".ipynb"), folder / "notebooks")
    return build.html(folder, folder.parent / "out").parent


@pytest.fixture
def server():
    """Web server on this machine."""
    with running() as local:
        yield local


@pytest.fixture
def command(capsys):
    """Type a command, in this process: its exit code, and what it printed on stdout and on stderr."""
    from companion import cli

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            cli.main([*map(str, arguments)])
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def fewer_points():
    """Claims about synthetic features are checked on a third of the points that the pages take."""
    from claims import synthetic

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "POINTS", 300)
        yield


@pytest.fixture
def no_waiting(monkeypatch) -> None:
    """Let a repeated download start at once."""
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
