"""`inspect`: what is counted, what is found wrong, and what stays out of it on request."""

import json
import shutil

import numpy as np
import pytest

import companion
from companion import datasets
from image_files import folder, manifest, picture


@pytest.fixture
def scans(tmp_path):
    root = tmp_path / "scans"
    folder(root / "train", {"a": 30, "b": 26})
    folder(root / "val", {"a": 3, "b": 3})
    folder(root / "Test", {"a": 3, "b": 2})
    for path in sorted((root / "val").rglob("*.png")):  # folder() gives files of one name the same pixels
        picture(path.with_name(f"val-{path.name}"))
        path.unlink()
    return root


def test_counts_sizes_and_modes(scans):
    picture(scans / "train" / "a" / "colour.jpg", np.zeros((50, 20, 3), np.uint8))
    facts = companion.inspect(scans)
    assert facts.counts == {"train": {"a": 31, "b": 26}, "val": {"a": 3, "b": 3}, "test": {"a": 3, "b": 2}}
    assert facts.sizes == {"40 x 30": 67, "20 x 50": 1} and facts.modes == {"L": 67, "RGB": 1}
    assert facts.official_split and facts.name == "scans"
    assert facts.patients is None and facts.as_document()["patients"] is None
    assert "patients: unknown" in str(facts) and "patients in several splits" not in str(facts)
    assert datasets.load_dataset(scans, size=28).class_counts() == facts.counts["train"]


def test_duplicates_are_found_whatever_their_format(scans):
    same = np.random.default_rng(0).integers(0, 256, (30, 40)).astype(np.uint8)
    picture(scans / "train" / "a" / "one.png", same)
    picture(scans / "train" / "b" / "two.bmp", same)
    picture(scans / "Test" / "a" / "three.tif", same)
    shutil.copy(scans / "train" / "a" / "a-0.png", scans / "train" / "a" / "again.png")
    facts = companion.inspect(scans)
    wanted = {"train: train/a/one.png", "train: train/b/two.bmp", "test: Test/a/three.tif"}
    assert wanted in map(set, facts.duplicates)
    assert (len(facts.duplicates), facts.across, facts.contradictory) == (6, 6, 1)
    assert any(line.startswith("6 image(s) lie in more than one split") for line in facts.warnings)


def test_what_cannot_be_read_is_listed_and_the_rest_counted(scans):
    whole = (scans / "train" / "a" / "a-1.png").read_bytes()
    (scans / "train" / "a" / "cut.png").write_bytes(whole[:-200])
    (scans / "train" / "a" / "empty.png").write_bytes(b"")
    (scans / "train" / "notes.txt").write_text("x")
    facts = companion.inspect(scans)
    assert [what for what, _ in facts.unreadable] == ["train/a/cut.png", "train/a/empty.png"]
    assert "cannot be read: 2\n" in str(facts)
    assert facts.skipped == (("train/notes.txt", "not an image (.txt)"),)
    assert facts.counts["train"] == {"a": 30, "b": 26} and facts.errors
    facts = companion.inspect(scans, skip_unreadable=True)
    assert facts.counts["train"] == {"a": 30, "b": 26} and len(facts.unreadable) == 2 and not facts.errors


def _listed(columns, rows):
    listed = [(f"{n}.png", *row) for n, row in enumerate(rows)]
    return lambda root: manifest(root, listed, header="path," + columns)


SHARED = [("ab"[n % 2], ("train", "test")[n % 4 == 0], f"P{n % 3}") for n in range(12)]


def test_twelve_bit_scans_are_not_taken_for_one_another(tmp_path):
    for index in range(6):
        pixels = np.full((9, 9), 2000 + index, np.uint16)
        picture(tmp_path / "ab"[index % 2] / f"{index}.png", pixels)
    picture(tmp_path / "a" / "bright.png", np.full((9, 9), 4095, np.uint16))
    facts = companion.inspect(tmp_path)
    assert facts.modes == {"I;16": 7}
    assert len({pixels.max() for pixels in facts.dataset.images["train"]}) > 1


def test_patients_in_two_splits_are_counted(tmp_path):
    header, rows = "label,split,patient", [(*row[:2], row[2] + "\x1b[2J") for row in SHARED]
    # Nothing that moves the cursor reaches a terminal.
    assert "\x1b" not in str(companion.inspect(_listed(header, rows)(tmp_path)))
    facts = companion.inspect(_listed(header, SHARED)(tmp_path))
    assert facts.patients == 3 and set(facts.shared_patients) == {"P0", "P1", "P2"}
    assert "patients in several splits: 3" in str(facts)


@pytest.mark.parametrize("size", [None, 64])
def test_arrays_can_be_inspected_too(data, size):
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 28, 28), dtype=np.uint8)
    images[7] = images[3]
    np.savez(data / "own.npz", train_images=images, train_labels=np.arange(20) % 2)
    facts = companion.inspect("own", size=size)
    assert facts.modes == {"RGB": 20} and facts.sizes == {f"{size or 28} x {size or 28}": 20}
    assert facts.duplicates == (("train: 3", "train: 7"),) and facts.across == 0


def test_the_command_prints_and_writes(command, scans, tmp_path):
    code, out, err = command("inspect", scans, "--out", tmp_path / "look")
    assert (code, err) == (0, "")
    assert "same image: 5" in out and "Test/a/a-0.png" in out
    assert {path.name for path in (tmp_path / "look").iterdir()} == {"inspection.json", "examples.png"}
    code, _, err = command("inspect", scans, "--out", tmp_path / "look")
    assert code == 2 and "--force" in err


def test_the_command_takes_the_options_of_reading(command, tmp_path):
    for n in range(24):
        picture(tmp_path / "f" / "abc"[n % 3] / f"P{n // 2}" / f"{n}.png")
    (tmp_path / "f" / "a" / "P1" / "x.png").write_bytes(b"")
    options = ("--patients-from-folder", 1, "--skip-unreadable", "--drop-classes", "c", "--json")
    code, out, _ = command("inspect", tmp_path / "f", *options)
    found = json.loads(out)
    assert code == 0 and found["errors"] == [] and found["patients"] == 12
    assert sum(sum(counts.values()) for counts in found["counts"].values()) == 16
    path = manifest(tmp_path / "m", [])
    path.write_text("path,label\n" + "".join(f"P{n // 2}/{n}.png,{n % 2}\n" for n in range(0, 24, 3)))
    code, out, _ = command("inspect", path, "--root", tmp_path / "f" / "a", "--json")
    assert code == 0 and json.loads(out)["unreadable"] == []


def test_every_class_with_few_images_is_named():
    def cautions(**counts: list[int]) -> list[str]:
        labels = {split: np.repeat(range(len(each)), each) for split, each in counts.items()}
        rng = np.random.default_rng(0)
        images = {split: rng.integers(0, 256, (len(of), 4, 4)) for split, of in labels.items()}
        classes = tuple("abcdefgh"[: len(counts["train"])])
        return datasets.cautions(datasets.Dataset("x", images, labels, classes, "multi-class", "made up"))

    notes = cautions(train=[280, 4, 21], val=[9, 0, 9])
    assert notes[0].startswith("few training images: b (4), c (21):")
    assert notes[1] == "class 'a' has 280 training images and 'b' 4"
    assert notes[2].startswith("hardly any val images: b (0):")
    assert cautions(train=[100, 90], test=[3, 3]) == []
    assert cautions(train=[9] * 8)[0].endswith("and 3 more: scores will be unsteady")
