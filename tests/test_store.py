"""Files: atomic writes, checksums, and downloads that go wrong in every way a download can."""

import contextlib
import errno
import hashlib
import io
import os
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from companion import store
from companion.errors import EnvironmentFailure, InputError
from local_server import Answer

BODY = b"0123456789" * 1000
MD5 = "md5:" + hashlib.md5(BODY).hexdigest()
SHA256 = "sha256:" + hashlib.sha256(BODY).hexdigest()
CUT_OFF = Answer(BODY[:100], promised=len(BODY))


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(os.listdir(folder)) if folder.is_dir() else []


# --- directories -------------------------------------------------------------------------------------------
def test_directories_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "d"))
    monkeypatch.setenv("COMPANION_CACHE", str(tmp_path / "c"))
    assert (store.data_dir(), store.cache_dir()) == (tmp_path / "d", tmp_path / "c")
    monkeypatch.delenv("COMPANION_DATA")
    assert store.data_dir() == tmp_path / "c" / "data"
    monkeypatch.delenv("COMPANION_CACHE")
    assert store.data_dir().parent == store.cache_dir()
    before = store.data_dir()  # set for one block only
    with store.data_directory(tmp_path / "other"):
        assert store.data_dir() == tmp_path / "other"
        with store.data_directory(None):
            assert store.data_dir() == tmp_path / "other"
        (store.data_dir() / "sub").mkdir(parents=True)
        (store.data_dir() / "sub" / "a[1].npz").touch()
        assert store.look_up("a[1].npz").name == "a[1].npz" and store.look_up("*.npz") is None
    assert store.data_dir() == before
    with contextlib.suppress(KeyError), store.data_directory(tmp_path):
        raise KeyError
    assert store.data_dir() == before


# --- atomic writes -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, old, failure):
    path = tmp_path / "file"
    if old:
        path.write_text(old)
    with pytest.raises(failure), store.atomic_path(path) as temporary:
        temporary.write_text("half")
        assert temporary.parent == tmp_path  # a rename is atomic within one file system only
        raise failure
    assert names(tmp_path) == (["file"] if old else [])
    assert not old or path.read_text() == old


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_full_or_closed_disk_is_an_environment_error(tmp_path, code):
    with (
        pytest.raises(EnvironmentFailure, match=f"cannot write .*file: {re.escape(os.strerror(code))}"),
        store.atomic_path(tmp_path / "file"),
    ):
        raise OSError(code, os.strerror(code))
    assert names(tmp_path) == []


def test_a_file_in_the_way_of_a_folder_is_an_environment_error(tmp_path, server):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFailure, match="cannot write .*below: "):
        store.write_files(tmp_path / "file", {"below": b""})
    with pytest.raises(EnvironmentFailure, match="cannot write .*below: "):
        store.fetch(server.serve("/f", BODY), tmp_path / "file" / "below", checksum=MD5)


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_written_or_downloaded_file_is_as_readable_as_others(tmp_path, server):
    plain = tmp_path / "plain"
    plain.write_text("")
    url = server.serve("/file", BODY)
    (text,) = store.write_files(tmp_path / "new", {"file": b"text"})  # in a folder that is made for it
    assert text.read_bytes() == b"text" and names(text.parent) == ["file"]
    for path in (text, store.fetch(url, tmp_path / "got", checksum=MD5)):
        assert path.stat().st_mode == plain.stat().st_mode


# --- checksums ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("checksum", ["md5:", "abc", "md5:" + "g" * 32, "crc32:12345678", ""])
def test_what_is_no_checksum_is_refused(tmp_path, checksum):
    with pytest.raises(InputError, match="is not a digest: give md5"):
        store.fetch("https://nowhere.invalid/file", tmp_path / "file", checksum=checksum)


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_every_digit_of_the_checksum_of_a_present_file_counts(tmp_path, server, algorithm):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    good = store.file_hash(path, algorithm)
    other = good[:-1] + ("0" if good[-1] != "0" else "1")
    with pytest.raises(InputError, match=rf"has {algorithm} {good}, but {other} is published.*delete"):
        store.fetch(server.serve("/file", BODY), path, checksum=f"{algorithm}:{other}")
    assert path.read_bytes() == b"content" and server.requests == []


# --- downloads ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("checksum", [MD5, SHA256])
def test_a_good_file_is_downloaded_once(tmp_path, server, checksum):
    url = server.serve("/file", BODY)
    path = tmp_path / "new" / "name.npz"
    assert store.fetch(url, path, checksum=checksum) == store.fetch(url, path, checksum=checksum) == path
    assert path.read_bytes() == BODY and server.requests == ["/file"] and names(path.parent) == ["name.npz"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(b"other content"), r"does not have the published md5 [0-9a-f]{32}: nothing was kept"),
        (Answer(b"gone", status=404), r"cannot download .*: 404 from the server"),
        (CUT_OFF, "cannot reach 127.0.0.1 to download .*, or was cut off twice"),
        (None, r"cannot reach 127\.0\.0\.1 .*put the file at"),
    ],
    ids=["wrong md5", "404", "cut off", "no server"],
)
def test_a_download_that_fails_leaves_nothing(tmp_path, server, no_waiting, answer, message):
    path = tmp_path / "d" / "file.npz"
    address = server.serve("/file", answer) if answer else "http://127.0.0.1:9/file"  # where nobody listens
    with pytest.raises(EnvironmentFailure, match=message) as caught:
        store.fetch(address, path, checksum=MD5)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)  # where to put the file by hand
    assert names(path.parent) == []


@pytest.mark.parametrize("first", [CUT_OFF, Answer(b"other content")], ids=["cut off", "wrong md5"])
def test_a_second_try_starts_cleanly(tmp_path, server, no_waiting, first):
    url = server.serve("/file", first, Answer(BODY))
    assert store.fetch(url, tmp_path / "file", checksum=MD5).read_bytes() == BODY
    assert names(tmp_path) == ["file"] and len(server.requests) == 2


def test_two_downloads_at_once_leave_one_whole_file(tmp_path, server):
    url = server.serve("/file", BODY)
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda _: store.fetch(url, tmp_path / "file", checksum=MD5).read_bytes(), range(4))
    assert list(found) == [BODY] * 4 and names(tmp_path) == ["file"]


def test_without_a_checksum_a_file_must_be_trusted_and_is_checked_from_then_on(tmp_path, server):
    url = server.serve("/file", BODY)
    with pytest.raises(InputError, match="no checksum is published.*trust"):
        store.fetch(url, tmp_path / "file")
    assert server.requests == [] and names(tmp_path) == []
    path = store.fetch(url, tmp_path / "file", trust=True)
    assert (tmp_path / "file.sha256").read_text().split() == [SHA256.removeprefix("sha256:"), "file"]
    assert store.fetch(url, path) == path
    path.write_bytes(BODY + b"!")
    with pytest.raises(InputError, match="has sha256"):
        store.fetch(url, path, trust=True)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/file",
        "http://localhost.example.org/file",
        "http://127.0.0.1.example.org/file",
        "ftp://127.0.0.1/file",
        "file:///etc/hostname",
        "/etc/hostname",
    ],
)
def test_only_https_is_downloaded_from_other_machines(tmp_path, url):
    with pytest.raises(InputError, match="is not an https address"):
        store.fetch(url, tmp_path / "file", checksum=MD5)
    assert names(tmp_path) == []


def test_a_redirect_is_followed_but_may_not_lead_away_from_https(tmp_path, server):
    address = server.serve("/file", Answer(status=302, location="http://192.0.2.2/file"))
    with pytest.raises(InputError, match=r"http://192\.0\.2\.2/file is not an https address"):
        store.fetch(address, tmp_path / "file", trust=True)
    server.serve("/file", Answer(status=302, location="/there"))
    server.serve("/there", b"content")
    moved = address.replace("127.0.0.1", "localhost")  # http is for this machine, by either name
    assert store.fetch(moved, tmp_path / "file", trust=True).read_bytes() == b"content"


# --- one member of a zip archive ---------------------------------------------------------------------------
def archive(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, body in members.items():
            opened.writestr(name.replace("__", "/"), body)
    return stream.getvalue()


def test_one_member_is_extracted_and_nothing_else(tmp_path, server):
    url = server.serve("/weights.zip", archive(folder__wanted=BODY, other=b"no", **{"..__evil": b"no"}))
    for _ in range(2):
        path = store.fetch_zip_member(url + "?download=1", "wanted", tmp_path / "w" / "mine", trust=True)
        assert path.read_bytes() == BODY
    assert names(tmp_path / "w") == ["mine", "weights.zip", "weights.zip.sha256"]
    assert names(tmp_path) == ["w"]
    assert server.requests == ["/weights.zip"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>not a zip</html>", "is not a whole zip archive: delete it"),
        (archive(wanted=BODY)[:-40], "is not a whole zip archive: delete it"),
        (archive(other=BODY), "no single member wanted"),
        (archive(a__wanted=BODY, b__wanted=BODY), "no single member wanted"),
        (archive(wanted=BODY * 2), "wanted has 20000 bytes, over the limit of 10000"),
    ],
    ids=["no zip", "cut off", "missing", "twice", "too large"],
)
def test_a_wrong_archive_is_refused(tmp_path, server, body, message):
    url = server.serve("/weights.zip", body)
    with pytest.raises(InputError, match=message):
        store.fetch_zip_member(url, "wanted", tmp_path / "w" / "mine", trust=True, size_limit=len(BODY))
    assert "mine" not in names(tmp_path / "w")


@pytest.mark.parametrize("position", range(40, 340, 60))
def test_a_member_with_damaged_bytes_is_refused(tmp_path, server, position):
    # Compressible, so that the flipped byte breaks the compression's own codes too, not only the CRC.
    body = bytearray(archive(wanted=str(list(range(500))).encode()))
    body[position] ^= 0xFF
    url = server.serve("/weights.zip", bytes(body))
    with pytest.raises(InputError, match="is not a whole zip archive"):
        store.fetch_zip_member(url, "wanted", tmp_path / "w" / "mine", trust=True)
    assert "mine" not in names(tmp_path / "w")


# --- results -----------------------------------------------------------------------------------------------
def test_provenance_says_how_a_result_came_about_and_a_digest_does_not_depend_on_order():
    record = store.provenance(seed=3, device="cpu", data={"x": "y"})
    assert record["results_version"] == store.RESULTS_VERSION and record["libraries"]["numpy"]
    assert (record["seed"], record["device"], record["data"]) == (3, "cpu", {"x": "y"})
    given = {"a": 1, "b": [2]}
    assert store.digest(given) == store.digest({"b": [2], "a": 1}) != store.digest(given | {"a": 2})


def test_a_stored_row_is_kept_and_a_changed_digit_of_its_checksum_is_noticed(tmp_path):
    rows = store.RowStore(tmp_path)
    rows.write("a", {"auc": 0.5})
    rows.write("a", {"auc": 0.9})
    assert rows.read(["a", "b"]) == ({"a": {"auc": 0.5}}, [])
    text = rows.path("a").read_text()
    check = store.digest({"auc": 0.5})
    rows.path("a").write_text(text.replace(check, check[:-1] + ("0" if check[-1] != "0" else "1")))
    assert rows.read(["a"]) == ({}, [tmp_path / "set-aside" / "a.json"])
    rows.path("b").write_text(text)  # a row under another's name
    assert rows.read(["b"])[0] == {}


@pytest.mark.parametrize("place", ["/proc/none/file", "x" * 300])
def test_a_place_that_cannot_be_is_an_environment_failure(place, tmp_path):
    with pytest.raises(EnvironmentFailure, match="cannot write"), store.atomic_path(tmp_path / place):
        pass
