"""CIFAR-10: the subset is drawn from the official archive's layout, checked, and made once."""

from __future__ import annotations

import hashlib
import io
import tarfile

import numpy as np
import pytest

from companion.datasets import load_dataset, natural
from companion.errors import InputError


def archive(
    per_class: int = 4, *, short: bool = False, names=("data_batch_1.bin", "test_batch.bin")
) -> bytes:
    """An archive in CIFAR-10's binary layout; red, green and blue of an image are its label, 100 and 200."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as opened:
        for name in names:
            labels = np.repeat(np.arange(10, dtype=np.uint8), per_class)
            planes = [
                np.repeat(labels[:, None], 1024, axis=1),
                *(np.full((len(labels), 1024), v) for v in (100, 200)),
            ]
            body = np.concatenate([labels[:, None], *planes], axis=1).astype(np.uint8).tobytes()
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            body = body[:-1] if short else body
            member.size = len(body)
            opened.addfile(member, io.BytesIO(body))
    return sink.getvalue()


@pytest.fixture
def offered(monkeypatch, server):
    """Serve an archive as if it were the official one; three images a class are wanted of it."""

    def offer(body: bytes) -> None:
        monkeypatch.setattr(natural, "URL", server.serve("/cifar-10-binary.tar.gz", body))
        monkeypatch.setattr(natural, "CHECKSUM", f"md5:{hashlib.md5(body).hexdigest()}")
        monkeypatch.setattr(natural, "PER_CLASS", {"train": 3, "val": 1, "test": 2})

    return offer


def test_it_is_downloaded_drawn_and_found_again(offered, data, server):
    offered(archive())
    found = load_dataset(natural.NAME)
    assert [len(found.labels[split]) for split in ("train", "val", "test")] == [30, 10, 20]
    assert found.classes == natural.CLASSES and found.size == 32 and found.channels == 3
    # The planes became channels: red is the label, green 100, blue 200.
    labels = found.labels["train"]
    assert (found.images["train"][:, 5, 7] == np.stack([labels, 0 * labels + 100, 0 * labels + 200], 1)).all()
    again = load_dataset(natural.NAME, size=28)
    assert again.size == 28 and server.requests == ["/cifar-10-binary.tar.gz"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (archive(per_class=2), "too few"),
        (archive(short=True), "no batch of CIFAR-10"),
        (archive(names=("data_batch_1.bin",)), "lacks CIFAR-10's binary batches"),
        (archive()[:200], "not a whole archive"),
    ],
)
def test_another_archive_is_refused_and_leaves_no_dataset(offered, data, body, says):
    offered(body)
    with pytest.raises(InputError, match=says):
        load_dataset(natural.NAME)
    assert not (data / f"{natural.NAME}.npz").exists()


def test_a_file_of_that_name_in_the_data_directory_is_taken(data):
    images = np.zeros((4, 32, 32, 3), np.uint8)
    np.savez(data / "cifar10_32.npz", train_images=images, train_labels=np.array(["a", "b"] * 2))
    assert load_dataset(natural.NAME).classes == ("a", "b")
