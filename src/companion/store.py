"""Files: where data and results lie, atomic writes, checked downloads, provenance, and rows of results."""

from __future__ import annotations

import contextlib
import datetime
import errno
import glob
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import uuid
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import platformdirs

from companion.errors import CompanionError, EnvironmentFailure, InputError

# Raised by hand when a change of the package alters results; stored rows and executed notebooks of another
# results version are out of date. Rounding does not count: it differs between processors and numbers of threads.
RESULTS_VERSION = 3

# Full, over a quota, read-only, closed.
NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)

# `--data-dir` sets this for the length of one command or one `with` block.
_data_directory: ContextVar[Path | None] = ContextVar("data_directory", default=None)


def cache_dir() -> Path:
    """Directory for models trained here and downloaded weights: ``COMPANION_CACHE``, or the user's cache."""
    named = os.environ.get("COMPANION_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("companion"))


def data_dir() -> Path:
    """Directory of datasets: that of `data_directory`, or ``COMPANION_DATA``, or ``data`` in `cache_dir`."""
    if (chosen := _data_directory.get()) is not None:
        return chosen
    named = os.environ.get("COMPANION_DATA")
    return Path(named).expanduser() if named else cache_dir() / "data"


@contextlib.contextmanager
def data_directory(path: str | os.PathLike | None) -> Iterator[None]:
    """Use `path` as the data directory inside the ``with`` block; None leaves the setting as it is."""
    directory = Path(path).expanduser() if path is not None else _data_directory.get()
    if directory and directory.exists() and not directory.is_dir():
        raise InputError(f"data directory {directory} is a file: name a folder")
    token = _data_directory.set(directory)
    try:
        yield
    finally:
        _data_directory.reset(token)


def look_up(name: str) -> Path | None:
    """Find a file or folder in the data directory, also one folder down."""
    root = data_dir()
    return next(
        (path for path in (root / name, *sorted(root.glob(f"*/{glob.escape(name)}"))) if path.exists()), None
    )


def file_hash(path: str | os.PathLike, algorithm: str = "sha256") -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on any failure it is removed.

    A full disk and a folder that cannot be written are an `EnvironmentFailure`.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
    except OSError as error:
        raise EnvironmentFailure(f"cannot write {target}: {error.strerror}") from error
    try:
        yield temporary
        temporary.chmod(mode)  # pooch makes files private; this one is as readable as any other of the user
        os.replace(temporary, target)
    except OSError as error:
        if error.errno in NOT_WRITABLE:
            raise EnvironmentFailure(f"cannot write {target}: {error.strerror}") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike) -> None:
    """Raise `InputError` before long work, and without writing anything, if no file can be written at `path`."""
    target = Path(path)
    if target.is_dir():
        raise InputError(f"cannot write {target}: it is a folder")
    parent = next(folder for folder in target.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {target}: {parent} is not a folder that can be written")


def check_folder(folder: Path, files: Sequence[str], *, force: bool) -> None:
    """Raise `InputError` before any work if `files` cannot be written into a folder, or are there already."""
    if folder.is_file():
        raise InputError(f"{folder} is a file: name a folder with --out")
    present = [name for name in files if (folder / name).exists()]
    if present and not force:
        raise InputError(
            f"{folder} holds {present[0]} already: give another --out, or --force to overwrite it"
        )
    check_writable(folder / files[0])


def write_files(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files by name into a folder; all of them or, on failure, none."""
    with contextlib.ExitStack() as stack:  # all are written before the first is put in place
        for name, content in contents.items():
            stack.enter_context(atomic_path(folder / name)).write_bytes(content)
    return [folder / name for name in contents]


def fetch(url: str, path: str | Path, *, checksum: str | None = None, trust: bool = False) -> Path:
    """Return `path`, downloading it from `url` (https; http from this machine only) if it is not there yet.

    Parameters
    ----------
    checksum
        ``"md5:…"`` or ``"sha256:…"``; that of a file which is there already is checked too.
    trust
        Accept a download without one. Its sha256 is kept beside it (``NAME.sha256``) and checked from then on.

    Raises
    ------
    InputError
        If the file present does not match its checksum, or none is known and `trust` is False.
    EnvironmentFailure
        If the file cannot be downloaded, does not match its checksum, or cannot be written.
    """
    path = Path(path)
    remembered = path.with_name(path.name + ".sha256")
    if checksum is None and path.is_file() and remembered.is_file():
        checksum = "sha256:" + remembered.read_text(encoding="utf-8").split()[0]
    if checksum is not None and not re.fullmatch("md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", checksum):
        raise InputError(f"checksum {checksum!r} is not a digest: give md5:… or sha256:…")
    if path.is_file():
        algorithm, _, expected = (checksum or "").partition(":")
        if expected and (found := file_hash(path, algorithm)) != expected:
            raise InputError(
                f"{path} has {algorithm} {found}, but {expected} is published for it: the file is damaged or another "
                "one; delete it and it is downloaded again"
            )
        return path
    if not checksum and not trust:
        raise InputError(
            f"no checksum is published for {url}: say that you trust the file (trust=True, on the command line --trust)"
        )
    _check_url(url)
    _download(url, path, checksum)
    if not checksum:
        write_files(path.parent, {remembered.name: f"{file_hash(path)}  {path.name}\n".encode()})
    return path


def fetch_zip_member(
    url: str, member: str, path: str | Path, *, size_limit: int = 1 << 30, **options: Any
) -> Path:
    """Return `path`, the one member called `member` in the zip archive at `url`, which `fetch` keeps beside it.

    An archive that is damaged, lacks the member or has more than `size_limit` bytes of it is an `InputError`.
    """
    path = Path(path)
    if path.is_file():
        return path
    archive = fetch(url, path.with_name(Path(urlsplit(url).path).name), **options)
    try:
        with zipfile.ZipFile(archive) as opened:
            found = [info for info in opened.infolist() if Path(info.filename).name == member]
            if len(found) != 1:
                raise InputError(f"{archive} has no single member {member}: it is another archive")
            if (size := found[0].file_size) > size_limit:
                raise InputError(f"{archive}: {member} has {size} bytes, over the limit of {size_limit}")
            with atomic_path(path) as part, opened.open(found[0]) as packed, open(part, "wb") as sink:
                shutil.copyfileobj(packed, sink)
    except CompanionError:
        raise
    # Damaged, compressed by an unknown method, or encrypted.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        advice = "delete it and try again"
        raise InputError(f"{archive} is not a whole zip archive: {advice} ({error})") from error
    return path


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")
    if parts.scheme != "https" and not local:
        raise InputError(f"{url} is not an https address: only https is downloaded from")


def _check_redirect(response: Any, *_arguments: Any, **_options: Any) -> None:
    if response.is_redirect:
        _check_url(urljoin(response.url, response.headers["location"]))


def _download(url: str, path: Path, checksum: str | None) -> None:
    """Have pooch download and check a file, twice if need be, and say in one line what went wrong."""
    from requests import exceptions

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm's, in a notebook without widgets: no bar is shown there anyway
        import pooch
    pooch.get_logger().setLevel("ERROR")
    hooks = {"response": _check_redirect}
    download = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=60, hooks=hooks)
    try:
        with atomic_path(path) as temporary:
            temporary.unlink()  # pooch would take the empty file for the one it is to download
            name, folder = temporary.name, temporary.parent
            known = {"urls": {name: url}, "registry": {name: checksum}}
            pooch.create(folder, base_url="", retry_if_failed=1, **known).fetch(name, downloader=download)
    except InputError:
        raise
    except (exceptions.RequestException, ValueError) as error:
        reason = f"{url} does not have the published {str(checksum).replace(':', ' ')}: nothing was kept"
        if isinstance(error, exceptions.HTTPError):
            reason = (
                f"cannot download {url}: {getattr(error.response, 'status_code', 'an error')} from the server"
            )
        elif isinstance(error, exceptions.RequestException):
            reason = f"cannot reach {urlsplit(url).hostname} to download {url}, or was cut off twice"
        hint = f"to go on without a connection, put the file at {path}"
        raise EnvironmentFailure(f"{reason}; {hint}") from error


def digest(value: Any) -> str:
    """Short sha256 of a JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def provenance(*, seed: int | None = None, device: str | None = None, **more: Any) -> dict[str, Any]:
    """Describe how a result came about: versions, seed, device, time, and further JSON-able entries."""
    from companion import __version__

    libraries = ("numpy", "scipy", "scikit-learn", "pandas", "torch", "torchvision")
    return {
        "companion": __version__,
        "results_version": RESULTS_VERSION,
        "python": platform.python_version(),
        "platform": sys.platform,
        "libraries": {name: importlib.metadata.version(name) for name in libraries},
        "seed": seed,
        "device": device,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **more,
    }


class RowStore:
    """Rows of results in a folder: ``rows`` (one JSON file each, written whole) and ``set-aside`` (what was damaged).

    A row's key is a digest of everything that decides the result, so rows of another protocol, other data or another
    results version can lie in the same folder and are never mixed up.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)

    def path(self, key: str) -> Path:
        """File of a row."""
        return self.folder / "rows" / f"{key}.json"

    def write(self, key: str, row: dict[str, Any]) -> None:
        """Store a row under its key, atomically; one that is there already is kept."""
        if not self.path(key).exists():
            text = json.dumps({"key": key, "check": digest(row), "row": row})
            write_files(self.path(key).parent, {self.path(key).name: text.encode()})

    def read(self, keys: Iterable[str]) -> tuple[dict[str, dict[str, Any]], list[Path]]:
        """Return the rows that are there, by key, and where damaged files, whose rows are missing, were moved to."""
        rows, damaged = {}, []
        for path in filter(Path.exists, map(self.path, keys)):
            try:
                stored = json.loads(path.read_text(encoding="utf-8"))
                if stored["key"] != path.stem or stored["check"] != digest(stored["row"]):
                    raise ValueError("another row, or a changed one")
                rows[path.stem] = stored["row"]
            except (ValueError, KeyError, TypeError, RecursionError):
                damaged.append(self.folder / "set-aside" / path.name)
                damaged[-1].parent.mkdir(exist_ok=True)
                os.replace(path, damaged[-1])
        return rows, damaged
