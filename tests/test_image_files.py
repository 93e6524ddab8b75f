"""Image files as targets: what the many kinds of files mean, folders and manifests of them, and how they are split."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from companion.datasets import cautions, images, load_dataset, reading
from companion.datasets.dataset import Options
from companion.datasets.listing import list_images
from companion.datasets.splits import draw_splits, merged
from companion.errors import InputError
from image_files import folder, manifest, picture

# --- one file ----------------------------------------------------------------------------------------------

GREY = np.tile(np.array([0, 60, 200, 255], np.uint8).repeat(7), (28, 1))

KINDS = {
    "L": (Image.fromarray(GREY), GREY),
    "1": (Image.fromarray(GREY > 100), np.where(GREY > 100, 255, 0)),
    "LA, opaque": (Image.fromarray(GREY).convert("LA"), GREY),
    "P, grey": (Image.fromarray(GREY).convert("P"), GREY),
    "16-bit": (Image.fromarray(GREY.astype(np.uint16) * 257), GREY),
    "decimal": (Image.fromarray(GREY.astype(np.float32) / 255), GREY),
    "12 bits in 16": (Image.fromarray((GREY.astype(int) * 4095 // 255).astype(np.uint16)), GREY),
}


@pytest.mark.parametrize("kind", KINDS)
def test_grey_files_of_any_mode_give_the_same_pixels(tmp_path, kind):
    image, expected = KINDS[kind]
    path = picture(tmp_path / ("x.tif" if kind == "decimal" else "x.png"), image)
    header = images.probe(path)
    assert header.grey and (header.width, header.height) == (28, 28)
    found = images.read(path, 28, grey=True, bits=max(8, header.highest.bit_length()))
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, expected, atol=1)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "png, palette"])
def test_colour_files_of_every_format_make_all_rgb(tmp_path, suffix):
    root, red = folder(tmp_path / "scans", {"a": 3, "b": 3}), np.full((28, 28, 3), (250, 10, 20), np.uint8)
    assert load_dataset(root, size=28).channels == 1  # grey stays grey
    palette = Image.fromarray(red).convert("P", palette=Image.Palette.ADAPTIVE)
    path = picture(root / "a" / f"x.{suffix[:3]}", palette if suffix == "png, palette" else red)
    assert not images.probe(path).grey
    np.testing.assert_allclose(images.read(path, 28, grey=False), red, atol=3)
    pixels = np.concatenate([each for each in load_dataset(root, size=28).images.values() if len(each)])
    assert (abs(pixels.astype(int) - red[0, 0]) < 4).all(axis=(1, 2, 3)).sum() == 1


def test_what_is_transparent_counts_as_black(tmp_path):
    alpha = np.where(np.arange(28) < 14, 255, 0).astype(np.uint8) + 0 * GREY
    path = picture(tmp_path / "x.png", Image.fromarray(np.dstack([GREY, GREY, GREY, alpha])))
    found = images.read(path, 28, grey=True)
    assert (found[:, :14] == GREY[:, :14]).all() and (found[:, 14:] == 0).all()


def test_exif_orientation_is_followed(tmp_path):
    wide = np.zeros((20, 20), np.uint8)
    wide[:, :10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter clockwise: left becomes top
    path = picture(tmp_path / "x.jpg", Image.fromarray(wide), exif=exif, quality=95)
    found = images.read(path, 28, grey=True)
    assert found[:10].mean() > 240 and found[-10:].mean() < 15


def test_a_large_jpeg_looks_the_same_when_it_is_decoded_smaller(tmp_path):
    large = Image.fromarray(GREY).resize((1600, 1200), Image.Resampling.BICUBIC)
    path = picture(tmp_path / "x.jpg", large, quality=95)
    expected = np.asarray(Image.open(path).resize((64, 64), Image.Resampling.BILINEAR), dtype=int)
    assert np.abs(images.read(path, 64, grey=True) - expected).mean() < 1
    large.save(path, format="MPO", save_all=True, append_images=[large])
    assert images.probe(path).grey  # the second frame of a phone's picture is a preview


# --- many files --------------------------------------------------------------------------------------------
def test_progress_counts_to_the_end_and_what_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MEMORY", 2 * 10 * 28 * 28)
    lines: list[str] = []
    root = folder(tmp_path / "scans", {"a": 5, "b": 5})
    assert load_dataset(root, size=28, progress=lines.append).size == 28
    assert "reading headers: 10 of 10" in lines and lines[-1].startswith("reading images: ")
    with pytest.raises(InputError, match="folder scans would take .*: give fewer images"):
        load_dataset(tmp_path / "scans", size=64)


@pytest.mark.parametrize(
    "names", [["gone.png"], ["cut.png"], ["cut.png", "cut too.png", "empty.png", "x.png"]]
)
def test_unreadable_files_are_named_together_and_can_be_skipped(tmp_path, names):
    path = manifest(tmp_path, [(f"{n}.png", "ab"[n % 2]) for n in range(20)])
    whole = (tmp_path / "0.png").read_bytes()
    for name in names:
        if not name.startswith("gone"):
            (tmp_path / name).write_bytes(whole[:-200] if name.startswith("cut") else b"")
    path.write_text(path.read_text() + "".join(f"{name},a\n" for name in names))
    with pytest.raises(InputError, match="--skip-unreadable") as caught:
        load_dataset(path, size=28)
    assert all(name in str(caught.value) for name in names[:3])
    assert len(names) == 1 or f"; {len(names) - 1} more cannot be read" in str(caught.value)
    found = load_dataset(path, size=28, skip_unreadable=True)
    assert found.class_counts() == {"a": 7, "b": 7}
    assert found.notes[0].startswith(f"{len(names)} unreadable file(s) left out")


# --- folders -----------------------------------------------------------------------------------------------
def test_what_is_left_out_is_listed_with_the_reason(tmp_path):
    root = folder(tmp_path / "scans", {"a": 2, "b": 2})
    for name in (".hidden.png", "Thumbs.db", "volume.nii.gz"):
        (root / "a" / name).write_bytes(b"")
    picture(root / ".git" / "x.png")
    picture(root / "loose.png")
    (root / "b" / "gone.png").symlink_to(root / "nowhere.png")
    assert dict(list_images(root, Options()).skipped) == {
        "a/Thumbs.db": "not an image (.db)",
        "a/volume.nii.gz": "not an image (.gz)",
        "loose.png": "in no class folder",
        "b/gone.png": "not an image (.png)",
    }
    remark = "4 files or folders were left out: companion inspect lists them"
    assert remark in load_dataset(root, size=28).notes
    picture(root / "rare" / "x.png").write_bytes(b"")
    found = load_dataset(root, size=28, drop_classes=["rare"])
    assert found.classes == ("a", "b") and "classes left out: rare" in found.notes


def test_split_folders_in_any_case_and_what_lies_beside_them(tmp_path):
    for split, count in (("TRAIN", 4), ("Valid", 2), ("Testing", 3)):
        folder(tmp_path / "scans" / split, {"a": count, "b": count})
    folder(tmp_path / "scans" / "extra", {"a": 1})
    picture(tmp_path / "scans" / "TRAIN" / "loose.PNG")
    assert dict(list_images(tmp_path / "scans", Options()).skipped) == {
        "extra/a/a-0.png": "beside the folders of the splits",
        "TRAIN/loose.PNG": "in no class folder",
    }
    found = load_dataset(tmp_path / "scans")
    # 64 px is the least size offered that is not below their longer side, 40 px.
    assert found.official_split and found.size == 64 and "brought to 64 px" in " ".join(found.notes)
    assert {split: len(labels) for split, labels in found.labels.items()} == {"train": 8, "val": 4, "test": 6}


def test_links_and_folders_below_a_class_belong_to_it_wherever_the_folder_lies(tmp_path):
    folder(tmp_path / "elsewhere", {"more": 2})
    for place in ("here", "there"):
        root = folder(tmp_path / place / "scans", {"a/patient 1": 10, "a/patient 2": 5, "b": 13})
        (root / "b" / "more").symlink_to(tmp_path / "elsewhere" / "more")
        assert list(list_images(root, Options()).table["label"]) == ["a"] * 15 + ["b"] * 15
    first, second = (load_dataset(tmp_path / place / "scans", size=28) for place in ("here", "there"))
    assert first.content_hash == second.content_hash
    assert load_dataset(tmp_path / "here" / "scans", size=28, seed=1).content_hash != first.content_hash


@pytest.mark.parametrize(
    ("level", "patients"),
    [(None, set()), (0, set()), (1, {f"P{n}" for n in range(20)}), (2, {"left", "right"})],
)
def test_patients_of_folders(tmp_path, level, patients):
    root = tmp_path / "scans"
    for n in range(40):
        picture(root / "ab"[n // 2 % 2] / f"P{n // 2}" / ("left", "right")[n % 2] / f"{n}.png")
    if level == 2:
        with pytest.raises(InputError, match="2 patients are too few"):
            load_dataset(root, size=28, patients_from_folder=2)
        return
    found = load_dataset(root, size=28, patients_from_folder=level)
    assert set().union(*found.patients.values()) == patients
    assert sum(len(set(whose)) for whose in found.patients.values()) == len(patients)  # each in one split
    assert any("patients unknown" in note for note in found.notes) is not bool(patients)
    assert any("--patients-from-folder 1" in note for note in found.notes) is (level is None)
    # Folders of patients that hold classes are refused (see the wrong inputs), but for these two reasons.
    root = folder(tmp_path / "other", {f"P{n}/{name}": 1 for n in range(6) for name in "ab"})
    assert list_images(root, Options(patients_from_folder=0)).table["label"].nunique() == 6
    folder(root, {"P0": 1})  # an image beside the folders: no such layout
    assert list_images(root, Options()).table["label"].nunique() == 6


def test_sixteen_bits_keep_their_scale(tmp_path):
    for index, value in enumerate((0, 257, 25700, 65535)):
        for copy in range(2):
            path = tmp_path / "train" / "ab"[index % 2] / f"{index}-{copy}.png"
            picture(path, np.full((8, 8), value, np.uint16))
    found = load_dataset(tmp_path, size=28)
    assert sorted(set(found.images["train"].reshape(8, -1)[:, 0])) == [0, 1, 100, 255]


# --- manifests ---------------------------------------------------------------------------------------------

ROWS = [(f"images/{index:02d}.png", "ab"[index % 2]) for index in range(20)]


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("path,label", "x.csv"),
        ("Path;Label", "x.csv"),
        ("path\tlabel", "x.tsv"),
        ("\ufefffile,class", "x.CSV"),
    ],
)
def test_a_manifest_is_read_whatever_separates_it(tmp_path, header, name):
    found = load_dataset(manifest(tmp_path / "own", ROWS, header=header, name=name), size=28)
    assert found.classes == ("a", "b") and not found.official_split
    assert found.class_counts() == {"a": 7, "b": 7} and found.name == "own/x"


def test_a_manifest_in_latin_1_is_read(tmp_path):
    path = manifest(tmp_path, [(f"ö{n}.png", ("gesund", "krank/größer")[n % 2]) for n in range(8)])
    path.write_bytes(path.read_text(encoding="utf-8").replace(",", ";").encode("latin-1"))
    found = load_dataset(path, size=28)
    assert found.classes == ("gesund", "krank/größer") and "Latin-1" in found.notes[0]


def test_a_manifest_gives_splits_and_patients(tmp_path):
    rows = [(*row, ("Train", "val", "TEST")[i % 3], f"P{i}") for i, row in enumerate(ROWS)]
    found = load_dataset(manifest(tmp_path, rows, header="path,label,split,patient_id"), size=28)
    assert found.official_split and set(found.patients["val"]) == {f"P{i}" for i in range(1, 20, 3)}
    assert {split: len(labels) for split, labels in found.labels.items()} == {"train": 7, "val": 7, "test": 6}


def test_a_manifest_is_the_same_from_anywhere_in_any_order_and_written_on_windows(tmp_path, monkeypatch):
    path = manifest(tmp_path / "own", ROWS)
    text = path.read_text()
    (tmp_path / "link").symlink_to(tmp_path / "own")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    hashes = {load_dataset(p, size=28).content_hash for p in ("../own/list.csv", "../link/list.csv", path)}
    for other in (text.replace("/", "\\"), "\n".join(["path,label", *reversed(text.splitlines()[1:])])):
        path.write_text(other)
        hashes.add(load_dataset(path, size=28).content_hash)
    assert len(hashes) == 1


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("linked", [False, True])
def test_images_may_lie_below_a_root_that_is_named(tmp_path, absolute, linked):
    for name, _ in ROWS:
        picture(tmp_path / "share" / name)
    (tmp_path / "mount").symlink_to(tmp_path / "share")
    root = tmp_path / ("mount" if linked else "share")
    os.chmod(tmp_path / "share", 0o500)
    path = manifest(tmp_path / "own", [])
    lines = [f"{root / name if absolute else name},{label}" for name, label in ROWS]
    path.write_text("\n".join(["path,label", *lines]))
    found = load_dataset(path, size=28, root=root)
    assert found.class_counts() == {"a": 7, "b": 7} and found.name == "own/list"
    with pytest.raises(InputError, match="--root DIR names another" if absolute else "is not there"):
        load_dataset(path, size=28)
    picture(tmp_path / "outside.png")
    path.write_text(path.read_text() + "\n../outside.png,a")
    with pytest.raises(InputError, match=r"line 22: \.\./outside\.png leads out of"):
        load_dataset(path, size=28, root=root)


# --- splits drawn here -------------------------------------------------------------------------------------
def table(label, content=None, patient=""):
    rows = {"label": label, "content": range(len(label)) if content is None else content, "patient": patient}
    return pd.DataFrame(rows)


def test_splits_are_70_10_and_20_percent_of_every_class():
    labels = np.repeat([0, 1, 2], [60, 40, 2])
    found = draw_splits(table(labels))
    shares = {name: np.bincount(labels[index]).tolist() for name, index in found.items()}
    assert shares == {"train": [42, 28, 2], "val": [6, 4], "test": [12, 8]}  # a rare class is for training


def test_patients_stay_together_and_the_seed_decides():
    images = table(["a", "b"] * 50, patient=[f"patient {number // 2}" for number in range(100)])
    first, again, other = (draw_splits(images, seed=seed) for seed in (0, 0, 1))
    whose = [set(images["patient"].iloc[index]) for index in first.values()]
    assert sum(map(len, whose)) == images["patient"].nunique()
    assert sorted(np.concatenate(list(first.values()))) == list(range(100))
    assert [len(index) for index in first.values()] == [70, 10, 20]
    assert all((first[split] == again[split]).all() for split in first)
    assert not np.array_equal(other["test"], first["test"])


def test_copies_stay_in_one_split(tmp_path):
    # Every image three times, a copy with the other label among them: the first one's counts.
    content = np.arange(60) % 20
    for seed in range(3):
        found = draw_splits(table(["a", "b"] * 30, content), seed=seed)
        parts = [set(content[part]) for part in found.values()]
        assert sum(map(len, parts)) == 20 and [len(part) for part in found.values()] == [42, 6, 12]
    root = folder(tmp_path / "f", {"a": 20, "b": 20})
    for path in sorted(root.rglob("*.png")):
        shutil.copy(path, path.with_name(f"again-{path.name}"))
    loaded = load_dataset(root, size=28)
    assert [len(labels) for labels in loaded.labels.values()] == [56, 8, 16]
    assert not any("more than one split" in line for line in cautions(loaded))


def test_patients_with_a_copied_image_become_one():
    groups = ["b", "a", "c", "b", "d", "e", "c"]
    content = [1, 2, 3, 4, 4, 5, 2]  # b = d by 4, a = c by 2
    assert merged(groups, content) == ["b", "a", "a", "b", "b", "e", "a"]
    assert merged(groups, range(7)) == groups


def test_rare_classes_keep_patients_to_train_on():
    labels = np.repeat(["common", "rare"], [40, 4])
    images = table(labels, patient=[*(f"p{index}" for index in range(40)), "q0", "q0", "q1", "q1"])
    for seed in range(5):
        assert (labels[draw_splits(images, seed=seed)["train"]] == "rare").sum() >= 2
    with pytest.raises(InputError, match="2 patients are too few"):
        draw_splits(table(list("abcabc"), patient=["p", "q"] * 3))
    with pytest.raises(InputError, match="'rare' has too few patients"):
        draw_splits(table(labels[34:41], patient=list("abcdefg")))


@pytest.mark.parametrize(("columns", "how"), [("", "class"), (",patient", "patient and class")])
def test_val_is_drawn_from_train_where_there_is_a_test_split_only(tmp_path, columns, how):
    rows = [(f"{n}.png", "ab"[n % 2], "train" if n < 80 else "test", f"P{n // 4}") for n in range(100)]
    rows = [row if columns else row[:3] for row in rows]
    found = load_dataset(manifest(tmp_path, rows, header="path,label,split" + columns), size=28)
    sizes = {split: len(labels) for split, labels in found.labels.items()}
    assert sizes["train"] + sizes["val"] == 80 and sizes["test"] == 20 and 8 <= sizes["val"] <= 12
    remark = f"no val split is given: {sizes['val']} images of train became val, an eighth by {how}"
    assert remark in found.notes and found.official_split
    assert not columns or not set(found.patients["train"]) & set(found.patients["val"])
    few = [row[:3] for row in rows[:6] + rows[-2:]]
    found = load_dataset(manifest(tmp_path, few, header="path,label,split", name="few.csv"), size=28)
    assert "val" not in found.labels and "train is too small to draw one from" in found.notes[0]
