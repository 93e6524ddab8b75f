"""Ways to get a dataset that is not made of image files, and what a dataset can do: draws, pools, folds."""

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from companion import datasets
from companion.datasets import GENERATORS, Dataset, load_dataset, medmnist_flags, natural
from companion.datasets import medmnist as medmnist_sets
from companion.datasets.folds import _frozen, draw_fold
from companion.errors import EnvironmentFailure, InputError
from image_files import folder

COUNTS = {"train": 24, "val": 6, "test": 12}


def arrays(*, size: int = 28) -> dict[str, np.ndarray]:
    """Content of a file in MedMNIST's layout."""
    rng = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}
    for split, count in COUNTS.items():
        found[f"{split}_images"] = rng.integers(0, 256, (count, size, size)).astype(np.uint8)
        found[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    return found


def npz(path: Path, /, **changes: object) -> Path:
    """Write such a file; a change of None leaves an array out."""
    content = {key: value for key, value in (arrays() | changes).items() if value is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **content)
    return path


@pytest.fixture
def medmnist(monkeypatch):
    """Write a stand-in for a MedMNIST file, whose md5 and address then are the published ones."""
    table = {flag: dict(info) for flag, info in medmnist_sets.info().items()}
    monkeypatch.setattr(medmnist_sets, "info", lambda: table)

    def publish(path: Path, flag: str, *, url: str = "https://nowhere.invalid/x", size: int = 28, **changes):
        suffix = "" if size == 28 else f"_{size}"
        npz(path, **(arrays(size=size) | changes))
        table[flag][f"MD5{suffix}"] = hashlib.md5(path.read_bytes()).hexdigest()
        table[flag][f"url{suffix}"] = url
        return path

    return publish


# --- names, MedMNIST -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("below", "size"), [("data", 28), ("data/medmnist", 64), ("home/.medmnist", 28)])
def test_a_flag_is_found_in_the_data_directory_or_medmnists_own(tmp_path, monkeypatch, medmnist, below, size):
    for variable, place in (("COMPANION_DATA", "data"), ("HOME", "home"), ("USERPROFILE", "home")):
        monkeypatch.setenv(variable, str(tmp_path / place))
    name = "breastmnist.npz" if size == 28 else f"breastmnist_{size}.npz"
    medmnist(tmp_path / below / name, "breastmnist", size=size)
    found = load_dataset("breastmnist", size=size)
    assert (found.name, found.task, found.size, found.channels) == ("breastmnist", "binary", size, 1)
    assert found.classes == ("malignant", "normal, benign") and found.official_split
    assert {split: len(found.labels[split]) for split in found.labels} == COUNTS
    assert found.labels["train"].dtype == np.int64 and found.labels["train"].ndim == 1


def test_a_flag_is_downloaded_and_then_found(data, tmp_path, medmnist, server):
    body = medmnist(tmp_path / "there.npz", "breastmnist", url=server.root + "/b.npz").read_bytes()
    server.serve("/b.npz", body)
    lines: list[str] = []
    first, again = (load_dataset("breastmnist", progress=lines.append) for _ in range(2))
    assert server.requests == ["/b.npz"] and (data / "breastmnist.npz").read_bytes() == body
    assert len(lines) == 1 and "downloading breastmnist.npz" in lines[0]
    assert first.content_hash == again.content_hash


def test_several_labels_an_image_make_a_source_and_no_target(data, medmnist):
    rng = np.random.default_rng(0)
    several = {f"{split}_labels": rng.integers(0, 2, (count, 14)) for split, count in COUNTS.items()}
    medmnist(data / "chestmnist.npz", "chestmnist", **several)
    found = load_dataset("chestmnist")
    assert (found.task, found.n_classes, found.labels["train"].shape) == ("multi-label", 14, (24, 14))
    assert found.class_counts()["pneumonia"] == several["train_labels"][:, 6].sum()
    with pytest.raises(InputError, match="several labels an image.*a source, not a target"):
        found.draw()


@pytest.mark.real
@pytest.mark.parametrize(
    ("flag", "train", "classes", "channels"),
    [("breastmnist", 546, 2, 1), ("pneumoniamnist", 4708, 2, 1), ("retinamnist", 1080, 5, 3)],
)
def test_the_real_files_are_what_medmnist_publishes(real_data, flag, train, classes, channels):
    found = load_dataset(flag)
    assert (len(found.labels["train"]), found.n_classes, found.channels) == (train, classes, channels)
    assert len(found.draw()[0]) == min(train, 100 * classes)


@pytest.mark.parametrize("name", ["mine", "scans"])
def test_what_lies_in_the_data_directory_can_be_named(data, name):
    npz(data / "below" / "mine.npz")
    folder(data / "scans", {"a": 3, "b": 3})
    assert load_dataset(name, size=28).name == name


# --- files in MedMNIST's layout ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (lambda n: (np.arange(n) % 3)[:, None], ("0", "1", "2")),
        (lambda n: (np.arange(n) % 3 * 10 - 5).astype(np.int16), ("-5", "5", "15")),
        (lambda n: (np.arange(n) % 3).astype(float), ("0", "1", "2")),
        (lambda n: np.array(["oedema", "none", "tumour"])[np.arange(n) % 3], ("none", "oedema", "tumour")),
        (lambda n: np.arange(n) % 2 == 0, ("False", "True")),
    ],
    ids=["column", "gaps", "whole floats", "strings", "booleans"],
)
def test_labels_of_any_usual_form(tmp_path, labels, classes):
    changes = {f"{split}_labels": labels(count) for split, count in COUNTS.items()}
    found = load_dataset(npz(tmp_path / "own.npz", **changes))
    assert found.classes == classes
    assert found.task == ("binary" if len(classes) == 2 else "multi-class")
    back, given = np.array(found.classes)[found.labels["train"]], changes["train_labels"].reshape(-1)
    assert list(back) == [str(int(value) if given.dtype.kind == "f" else value) for value in given]


@pytest.mark.parametrize("shape", [(28, 28, 1), (28, 28, 3), (1, 28, 28), (3, 28, 28)])
@pytest.mark.parametrize("size", [None, 64])
def test_channels_may_come_first_or_last(tmp_path, shape, size):
    values = np.random.default_rng(0).integers(0, 256, (24, *shape)).astype(np.uint8)
    others = dict.fromkeys(("val_images", "val_labels", "test_images", "test_labels"))
    path = npz(tmp_path / "own.npz", train_images=values, **others)
    found = load_dataset(path, size=size).images["train"]
    last = values if shape[-1] < 28 else values.transpose(0, 2, 3, 1)
    assert found.shape[1:3] == ((size or 28),) * 2
    assert size or (found.reshape(last.shape) == last).all()


def test_classes_can_be_left_out(tmp_path):
    labels = {f"{split}_labels": np.arange(count) % 3 for split, count in COUNTS.items()}
    labels["test_labels"] = labels["test_labels"].astype(np.uint64)  # numpy would join the two as floats
    path = npz(tmp_path / "own.npz", **labels)
    found, whole = load_dataset(path, drop_classes=["1"]), load_dataset(path)
    assert found.classes == ("0", "2") and found.class_counts() == {"0": 8, "2": 8}
    assert (found.images["test"] == whole.images["test"][whole.labels["test"] != 1]).all()
    with pytest.raises(InputError, match="drop_classes is '1': give a list"):
        load_dataset(path, drop_classes="1")


def test_only_images_and_labels_of_an_npz_are_unpacked(tmp_path, monkeypatch):
    known = {"train_images": arrays()["train_images"][:8], "train_labels": np.arange(8) % 2}
    np.savez(tmp_path / "x.npz", readme=np.zeros(1 << 20), **known)
    monkeypatch.setattr("companion.datasets.reading.MEMORY", 1 << 16)
    assert load_dataset(tmp_path / "x.npz").class_counts() == {"0": 4, "1": 4}
    monkeypatch.setattr("companion.datasets.reading.MEMORY", 1 << 12)
    with pytest.raises(InputError, match="x.npz would take .* more than this machine has"):
        load_dataset(tmp_path / "x.npz")


# --- CIFAR-10 and synthetic images ---------------------------------------------------------------------------
def _cifar10() -> bytes:
    """An archive in CIFAR-10's binary layout; red, green and blue of an image are its label, 100 and 200."""
    sink, labels = io.BytesIO(), np.repeat(np.arange(10), 4)
    planes = [np.full((40, 1024), 100), np.full((40, 1024), 200)]
    body = np.hstack([labels[:, None], labels[:, None].repeat(1024, 1), *planes]).astype(np.uint8).tobytes()
    with tarfile.open(fileobj=sink, mode="w:gz") as opened:
        for name in ("data_batch_1.bin", "test_batch.bin"):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(body)
            opened.addfile(member, io.BytesIO(body))
    return sink.getvalue()


def test_cifar10_is_downloaded_drawn_and_found_again(data, server, monkeypatch):
    body = _cifar10()
    monkeypatch.setattr(natural, "URL", server.serve("/cifar-10-binary.tar.gz", body))
    monkeypatch.setattr(natural, "CHECKSUM", f"md5:{hashlib.md5(body).hexdigest()}")
    monkeypatch.setattr(natural, "PER_CLASS", {"train": 3, "val": 1, "test": 2})
    found = load_dataset(natural.NAME)
    assert [len(found.labels[split]) for split in ("train", "val", "test")] == [30, 10, 20]
    assert found.classes == natural.CLASSES and found.size == 32 and found.channels == 3
    labels = found.labels["train"]
    assert (found.images["train"][:, 5, 7] == np.stack([labels, 0 * labels + 100, 0 * labels + 200], 1)).all()
    assert load_dataset(natural.NAME, size=28).size == 28 and server.requests == ["/cifar-10-binary.tar.gz"]


@pytest.mark.parametrize("name", GENERATORS)
def test_synthetic_images_are_seeded_balanced_and_marked(monkeypatch, name):
    monkeypatch.setattr("companion.datasets.procedural._COUNTS", {"train": 60, "val": 12, "test": 30})
    found = load_dataset(f"procedural:{name}")
    assert found.synthetic and "synthetic" in repr(found) and "synthetic" in found.origin
    assert found.images["train"].shape == (60, 28, 28) and len(set(found.class_counts().values())) == 1
    assert load_dataset(f"procedural:{name}").content_hash == found.content_hash
    assert load_dataset(f"procedural:{name}", seed=1).content_hash != found.content_hash
    pixels = found.images["train"].astype(float)  # no flat noise: neighbours are alike
    assert np.corrcoef(pixels[:, :, 1:].ravel(), pixels[:, :, :-1].ravel())[0, 1] > 0.4


# --- the dataset object ------------------------------------------------------------------------------------
def own(**changes: object) -> Dataset:
    """Build a small dataset, class-sorted as folders are."""
    images = np.arange(90, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    given = {"name": "own", "images": {"train": images}, "labels": {"train": np.repeat([0, 1, 2], 30)}}
    given |= {"classes": ("a", "b", "c"), "task": "multi-class", "origin": "made up"}
    return Dataset(**(given | changes))


def test_the_content_hash_changes_with_the_content_only():
    assert own(name="other", origin="elsewhere").content_hash == own().content_hash
    others = {"images": {"train": np.ones((90, 4, 4), np.uint8)}, "labels": {"train": np.tile([0, 1, 2], 30)}}
    others |= {"classes": ("a", "b", "d"), "task": "binary"}
    assert (
        len({own(**{name: value}).content_hash for name, value in others.items()} | {own().content_hash}) == 5
    )


def test_a_draw_is_shuffled_capped_and_seeded():
    found = own()
    images, labels = found.draw(5)
    assert images.shape == (15, 4, 4) and labels.shape == (15,)
    assert len(set(images[:, 0, 0].tolist())) == 15  # without replacement
    assert (images[:, 0, 0] // 30 == labels).all()  # images and labels stay together
    everything, all_labels = found.draw(1000)
    assert sorted(everything[:, 0, 0].tolist()) == list(range(90))
    assert not (np.diff(all_labels) >= 0).all()
    for again in (found.draw(5), found.draw(5, seed=24)):
        assert (again[0] == images).all() and (again[1] == labels).all()
    assert (found.draw(5, seed=25)[0] != images).any()
    rare = own(labels={"train": np.repeat([0, 1, 2], [44, 44, 2])})
    with pytest.raises(InputError, match=r"class '[abc]' has [01] image\(s\) among the 9 drawn with seed 24"):
        rare.draw(3)


# --- the joint label space -----------------------------------------------------------------------------------
@pytest.mark.parametrize("left_out", [None, *datasets.medmnist_classes()])
def test_columns_of_all_twelve_and_without_one(left_out):
    classes = datasets.medmnist_classes()
    assert set(classes) - set(medmnist_flags(single_label=True)) == {"chestmnist"} and len(classes) == 12
    own_columns = len(classes.pop(left_out, ()))
    shares = {"chestmnist": 56, "pneumoniamnist": 69, "organamnist": 69, "organcmnist": 69, "organsmnist": 69}
    width = 1 + max(max(columns) for columns in datasets.joint_columns(classes).values())
    assert width == shares.get(left_out, 69 - own_columns)


def test_shared_columns():
    classes = datasets.medmnist_classes()
    columns = datasets.joint_columns(classes)
    assert columns["organamnist"] == columns["organcmnist"] == columns["organsmnist"]
    normal, pneumonia = columns["pneumoniamnist"]
    assert pneumonia == columns["chestmnist"][6] and normal == columns["chestmnist"][14]
    del classes["chestmnist"]
    alone = datasets.joint_columns(classes)
    others = {column for name, found in alone.items() if name != "pneumoniamnist" for column in found}
    assert not set(alone["pneumoniamnist"]) & others


def chest() -> Dataset:
    labels = np.zeros((4, 14), dtype=np.int64)
    labels[1, 6] = labels[2, 0] = labels[2, 13] = 1
    images = np.random.default_rng(0).integers(0, 256, (4, 4, 4), dtype=np.uint8)
    findings = tuple(datasets.medmnist_classes()["chestmnist"])
    return Dataset("chestmnist", {"train": images}, {"train": labels}, findings, "multi-label", "test")


def test_a_pool_with_chest_and_pneumonia():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    classes = ("normal", "pneumonia")
    lungs = Dataset(
        "pneumoniamnist", {"train": images}, {"train": np.array([0, 1, 1])}, classes, "binary", "test"
    )
    both = datasets.pool([lungs, chest()])
    assert both.n_classes == 15 and both.classes[14] == "chestmnist: no finding" and both.channels == 3
    hot = both.labels["train"]
    assert [row.nonzero()[0].tolist() for row in hot] == [[14], [6], [6], [14], [6], [0, 13], [14]]
    assert np.array_equal(both.images["train"][3, ..., 0], both.images["train"][3, ..., 2])


def test_a_pool_can_be_capped_and_needs_two_sets_of_one_size():
    other = own(name="b", images={"train": 90 + own().images["train"]})
    whole, part, again = (datasets.pool([own(), other], total=total) for total in (None, 100, 100))
    drawn = {image.tobytes() for image in part.images["train"]}
    assert len(drawn) == 100 and drawn < {image.tobytes() for image in whole.images["train"]}
    assert part.labels["train"].any(0).all() and part.content_hash == again.content_hash != whole.content_hash
    with pytest.raises(InputError, match="two or more different datasets"):
        datasets.pool([own(), own()])
    with pytest.raises(InputError, match=r"one size, got .* 4 px, .* 5 px"):
        datasets.pool([own(), own(name="b", images={"train": np.zeros((90, 5, 5), np.uint8)})])


# --- folds ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("flag", medmnist_flags(single_label=True))
def test_frozen_folds_come_out_again(flag):
    about = medmnist_sets.info()[flag]
    for number in range(1, 6):
        n_train, n_val, checksum = _frozen()[flag, number]
        assert (n_train, n_val) == (about["n_samples"]["train"], about["n_samples"]["val"])
        caps = 100 * len(about["label"]), 25 * len(about["label"])
        assert draw_fold((n_train, n_val), number, caps=caps).checksum == checksum


def test_a_changed_generator_is_noticed(target, monkeypatch):
    sizes = len(target.labels["train"]), len(target.labels["val"])
    monkeypatch.setattr(datasets.folds, "_frozen", lambda: {(target.name, 1): (*sizes, "0" * 64)})
    says = r"fold 1 of procedural:lesions is not the frozen one: numpy"
    with pytest.raises(EnvironmentFailure, match=says):
        datasets.fold(target, 1)
    assert datasets.fold(target, 1, seed=1).number == 1  # another seed is nobody's frozen fold


def test_what_has_no_folds(target):
    with pytest.raises(InputError, match="several labels"):
        datasets.fold(chest())
    with pytest.raises(InputError, match="no val images"):
        datasets.fold(own())
    with pytest.raises(InputError, match=r"class .* has \d image\(s\) to train on in fold 1"):
        datasets.fold(target, 1, train_per_class=1)
    for split in ("val", "test"):
        labels = target.labels | {split: np.zeros_like(target.labels[split])}
        with pytest.raises(
            InputError, match=f"one class only, 'smooth outline', among the {split} images of fold 1"
        ):
            datasets.fold(replace(target, labels=labels))
