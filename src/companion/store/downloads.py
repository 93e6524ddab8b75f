"""Downloads: checked, atomic, with progress. pooch does the work; this module says what went wrong."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from companion.errors import InputError, SurroundingsError
from companion.store.files import atomic_path, file_hash

_TIMEOUT_S = 60


def _parse_checksum(checksum: str) -> tuple[str, str]:
    """Split ``"sha256:ab12…"`` into algorithm and lower-case digest; a bare digest is told by its length."""
    algorithm, _, value = checksum.strip().lower().rpartition(":")
    algorithm = algorithm or {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}.get(len(value), "")
    if (
        algorithm not in ("md5", "sha1", "sha256", "sha512")
        or not value
        or set(value) - set("0123456789abcdef")
    ):
        raise InputError(f"checksum {checksum!r} is not a digest: give md5:…, sha1:…, sha256:… or sha512:…")
    return algorithm, value


def _check_present(path: Path, checksum: str | None) -> None:
    if checksum is None:
        return
    algorithm, expected = _parse_checksum(checksum)
    found = file_hash(path, algorithm)
    if found != expected:
        raise InputError(
            f"{path} has {algorithm} {found}, but {expected} is published for it: "
            "the file is damaged or another one; delete it and it is downloaded anew"
        )


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise InputError(f"{url} is not an https address: only https is downloaded from")


def _check_hop(response: Any, *_arguments: Any, **_options: Any) -> None:
    """Before a redirect is followed: it may not lead away from https."""
    if response.is_redirect:
        _check_url(urljoin(response.url, response.headers["location"]))


def _resuming(partial: Path, *, keep: bool) -> Callable[..., None]:
    """Make a downloader for pooch that goes on where an earlier download of the same file broke off.

    Parameters
    ----------
    partial
        Where what came is kept.
    keep
        Whether there is a checksum to tell whether the pieces belong together.
    """
    import pooch

    def download(url: str, output_file: Any, caller: Any) -> None:
        with open(partial, "ab" if keep else "wb") as sink:
            began = sink.tell()

            def look(response: Any, *_arguments: Any, **_options: Any) -> None:
                _check_hop(response)
                # The server sends the whole, or says that there is no more than what is here.
                if began and response.status_code in (200, 416):
                    sink.truncate(0)

            headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={began}-"} if began else {})
            pooch.HTTPDownloader(
                progressbar=sys.stderr.isatty(),
                chunk_size=1 << 16,
                timeout=_TIMEOUT_S,
                headers=headers,
                hooks={"response": look},
            )(url, sink, caller)
        os.replace(partial, output_file)

    return download


def fetch(
    url: str,
    path: str | Path,
    *,
    checksum: str | None = None,
    trust: bool = False,
) -> Path:
    """Return `path`, downloading it from `url` if it is not there yet.

    A file already there is checked too. A download that breaks off is tried once more; what came of a file with a
    known checksum is then kept beside it (``.NAME.partial``), and the next call goes on there. One whose checksum is
    wrong is tried once more and leaves nothing behind. Where no checksum is known the caller has to give one or say
    that the file is trusted; the sha256 of a trusted download is kept beside it (``NAME.sha256``) and checked from
    then on.

    Parameters
    ----------
    url
        https address (http only for this machine itself).
    path
        Where the file belongs.
    checksum
        ``"md5:…"``, ``"sha256:…"`` or a bare hexadecimal digest.
    trust
        Accept a download for which no checksum is known.

    Raises
    ------
    InputError
        If the file present does not match its checksum, or none is known and `trust` is False.
    SurroundingsError
        If the file cannot be downloaded, does not match its checksum, or cannot be written.
    """
    path = Path(path)
    memory = path.with_name(path.name + ".sha256")
    if path.is_file():
        if checksum is None and memory.is_file():
            checksum = "sha256:" + memory.read_text(encoding="utf-8").split()[0]
        _check_present(path, checksum)
        return path
    if checksum is None and not trust:
        raise InputError(
            f"no checksum is published for {url}: give its checksum, or say that you trust the file "
            "(trust=True, on the command line --trust)"
        )
    _check_url(url)
    _download(url, path, checksum)
    if checksum is None:
        with atomic_path(memory) as temporary:
            temporary.write_text(f"{file_hash(path)}  {path.name}\n", encoding="utf-8")
    return path


def _download(url: str, path: Path, checksum: str | None) -> None:
    import requests
    from filelock import FileLock

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm's, in a notebook without widgets: no bar is shown there anyway
        import pooch

    pooch.get_logger().setLevel("ERROR")
    algorithm, expected = _parse_checksum(checksum) if checksum else ("", "")
    store = pooch.create(
        path=path.parent,
        base_url="",
        registry={path.name: f"{algorithm}:{expected}" if checksum else None},
        urls={path.name: url},
        retry_if_failed=1,
    )
    partial = path.with_name(f".{path.name}.partial")
    lock = path.with_name(f".{path.name}.lock")
    manual = f"to go on without a connection, put the file at {path}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):  # of two processes one downloads, and the other finds the file there
            try:
                if not path.is_file():
                    store.fetch(path.name, downloader=_resuming(partial, keep=bool(checksum)))
            except BaseException as error:
                broke_off = isinstance(error, requests.exceptions.RequestException | KeyboardInterrupt)
                if not (checksum and broke_off and partial.is_file() and partial.stat().st_size):
                    _remove(partial)
                raise
            finally:
                _remove(lock)
    except requests.exceptions.HTTPError as error:
        status = "an error" if error.response is None else error.response.status_code
        raise SurroundingsError(f"cannot download {url}: {status} from the server; {manual}") from error
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError) as error:
        kept = partial.is_file()
        if not kept and not isinstance(error, requests.exceptions.ChunkedEncodingError):
            raise SurroundingsError(
                f"cannot reach {urlsplit(url).hostname} to download {url}: {manual}"
            ) from error
        how = "what came is kept, and the same call goes on there" if kept else "try again"
        raise SurroundingsError(f"the download of {url} was cut off twice: {how}; {manual}") from error
    except requests.exceptions.RequestException as error:
        raise SurroundingsError(
            f"cannot reach {urlsplit(url).hostname} to download {url}: {manual}"
        ) from error
    except InputError:
        raise
    except ValueError as error:
        raise SurroundingsError(
            f"the download of {url} does not have the published {algorithm} {expected}: "
            f"nothing was kept; try again; {manual}"
        ) from error
    except OSError as error:
        raise SurroundingsError(f"cannot write {path}: {error.strerror or error}") from error


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def fetch_zip_member(
    url: str,
    member: str,
    path: str | Path,
    *,
    checksum: str | None = None,
    trust: bool = False,
    size_limit: int = 1 << 30,
) -> Path:
    """Return `path`, the one `member` of the zip archive at `url`; nothing else is extracted.

    Parameters
    ----------
    url, checksum, trust
        As for `fetch`; they are about the archive.
    member
        Base name of the member wanted.
    path
        Where the member belongs. The archive is kept beside it.
    size_limit
        Largest member accepted, in bytes.

    Raises
    ------
    InputError, SurroundingsError
        As for `fetch`; also if the archive is no zip file, lacks the member or holds too large a one.
    """
    path = Path(path)
    if path.is_file():
        return path
    archive = fetch(url, path.with_name(Path(urlsplit(url).path).name), checksum=checksum, trust=trust)
    try:
        with zipfile.ZipFile(archive) as opened:
            found = [info for info in opened.infolist() if Path(info.filename).name == member]
            if len(found) != 1:
                raise InputError(f"{archive} has no single member {member}: it is another archive")
            if found[0].file_size > size_limit:
                raise InputError(
                    f"{archive}: {member} has {found[0].file_size} bytes, over the limit of {size_limit}"
                )
            with (
                atomic_path(path) as temporary,
                opened.open(found[0]) as source,
                open(temporary, "wb") as sink,
            ):
                while block := source.read(1 << 20):
                    sink.write(block)
    except zipfile.BadZipFile as error:
        raise InputError(f"{archive} is not a whole zip archive: delete it and try again") from error
    except (zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, SurroundingsError):
            raise
        # damaged, compressed by an unknown method, or encrypted
        raise InputError(
            f"{archive}: {member} cannot be unpacked: delete the archive and try again"
        ) from error
    return path
