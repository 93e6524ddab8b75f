"""What the many kinds of image files mean, folders and manifests of them, and how they are split."""

from __future__ import annotations

import shutil
import time

import numpy as np
import pytest
from PIL import Image

from companion.datasets import ImageFiles, decoding, files, images, in_several_splits, load_dataset
from companion.datasets.listing import list_images
from companion.datasets.splits import grouped_split, merged, stratified_split
from companion.errors import InputError
from image_files import folder, manifest, picture

# --- one file ----------------------------------------------------------------------------------------------

GREY = np.tile(np.array([0, 60, 200, 255], np.uint8).repeat(7), (28, 1))


def _alpha(values: np.ndarray, alpha: int | np.ndarray) -> np.ndarray:
    rgb = np.repeat(values[..., None], 3, axis=2)
    return np.concatenate([rgb, np.broadcast_to(np.uint8(alpha), values.shape)[..., None]], axis=2)


KINDS = {
    "L": (Image.fromarray(GREY), GREY),
    "1": (Image.fromarray(GREY > 100), np.where(GREY > 100, 255, 0)),
    "LA, opaque": (Image.fromarray(GREY).convert("LA"), GREY),
    "P, grey": (Image.fromarray(GREY).convert("P"), GREY),
    "16-bit": (Image.fromarray(GREY.astype(np.uint16) * 257), GREY),
    "12 bits in 16": (Image.fromarray((GREY.astype(int) * 4095 // 255).astype(np.uint16)), GREY),
}


@pytest.mark.parametrize("kind", KINDS)
def test_grey_files_of_any_mode_give_the_same_pixels(tmp_path, kind):
    image, expected = KINDS[kind]
    path = picture(tmp_path / "x.png", image)
    header = decoding.probe(path)
    assert header.grey and (header.width, header.height) == (28, 28)
    bits = max(8, header.highest.bit_length())
    found = decoding.read(path, 28, grey=True, bits=bits)
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, expected, atol=1)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "png, palette"])
def test_colour_files_of_every_format(tmp_path, suffix):
    red = np.full((28, 28, 3), (250, 10, 20), np.uint8)
    palette = Image.fromarray(red).convert("P", palette=Image.Palette.ADAPTIVE)
    path = picture(tmp_path / f"x.{suffix[:3]}", palette if suffix == "png, palette" else red)
    assert not decoding.probe(path).grey
    np.testing.assert_allclose(decoding.read(path, 28, grey=False), red, atol=3)


def test_what_is_transparent_counts_as_black(tmp_path):
    half = np.where(np.arange(28) < 14, 255, 0).astype(np.uint8)
    path = picture(tmp_path / "x.png", Image.fromarray(_alpha(np.full((28, 28), 80, np.uint8), 255)))
    assert (decoding.read(path, 28, grey=True) == 80).all()
    picture(path, Image.fromarray(_alpha(GREY + 0 * GREY, half)))
    found = decoding.read(path, 28, grey=True)
    assert (found[:, :14] == GREY[:, :14]).all() and (found[:, 14:] == 0).all()


def test_exif_orientation_is_followed(tmp_path):
    wide = np.zeros((20, 20), np.uint8)
    wide[:, :10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter clockwise: left becomes top
    path = picture(tmp_path / "x.jpg", Image.fromarray(wide), exif=exif, quality=95)
    found = decoding.read(path, 28, grey=True)
    assert found[:10].mean() > 240 and found[-10:].mean() < 15


def test_decimal_pixels_are_0_to_1(tmp_path):
    path = picture(tmp_path / "x.tif", Image.fromarray(GREY.astype(np.float32) / 255))
    np.testing.assert_allclose(decoding.read(path, 28, grey=True), GREY, atol=1)
    picture(path, Image.fromarray(GREY.astype(np.float32)))
    with pytest.raises(InputError, match="decimal values reach from 0 to 255, outside 0 to 1"):
        decoding.read(path, 28, grey=True)


def test_a_large_jpeg_looks_the_same_when_it_is_decoded_smaller(tmp_path):
    large = Image.fromarray(GREY).resize((1600, 1200), Image.Resampling.BICUBIC)
    path = picture(tmp_path / "x.jpg", large, quality=95)
    expected = np.asarray(Image.open(path).resize((64, 64), Image.Resampling.BILINEAR), dtype=int)
    assert np.abs(decoding.read(path, 64, grey=True) - expected).mean() < 1


def test_frames_are_refused_but_for_the_preview_of_a_phone(tmp_path):
    pages = [Image.fromarray(GREY), Image.fromarray(GREY)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="holds 2 frames"):
        decoding.probe(tmp_path / "x.tif")
    pages[0].save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=pages[1:])
    assert decoding.probe(tmp_path / "x.jpg").grey


# --- many files --------------------------------------------------------------------------------------------


def test_the_first_of_several_errors_is_raised():
    def work(item: int) -> int:
        if item in (70, 300):
            raise ValueError(item)
        return item

    assert images.in_parallel(work, range(60), what="x") == list(range(60))
    with pytest.raises(ValueError, match="70"):
        images.in_parallel(work, range(500), what="x")


def test_ctrl_c_stops_what_has_not_begun():
    begun = []

    def work(item: int) -> None:
        begun.append(item)
        time.sleep(0.01)
        if item == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        images.in_parallel(work, range(20_000), what="x")
    assert len(begun) < 10_000


def test_progress_counts_to_the_end(tmp_path):
    root = folder(tmp_path / "scans", {"a": 5, "b": 5})
    lines: list[str] = []
    load_dataset(root, size=28, progress=lines.append)
    assert "reading headers: 10 of 10" in lines and lines[-1].startswith("reading images: ")


def test_images_that_stay_on_disk_are_the_same(tmp_path, monkeypatch):
    root = folder(tmp_path / "scans", {"a": 30, "b": 20})
    held = load_dataset(root, size=28)
    monkeypatch.setattr(files, "IN_MEMORY", 0)
    lazy = load_dataset(root, size=28)
    on_disk, pixels = lazy.images["train"], held.images["train"]
    assert isinstance(on_disk, ImageFiles) and "stay on disk" in lazy.notes[0]
    assert (on_disk.shape, on_disk.ndim, on_disk.dtype) == (pixels.shape, 3, np.uint8)
    assert (np.asarray(on_disk) == pixels).all() and (on_disk[3] == pixels[3]).all()
    assert (on_disk[:, None] == pixels[:, None]).all()
    for drawn, expected in zip(lazy.draw(5), held.draw(5), strict=True):
        assert (drawn == expected).all()
    before = lazy.content_hash
    picture(on_disk.paths[0], GREY)
    assert load_dataset(root, size=28).content_hash != before


# --- folders -----------------------------------------------------------------------------------------------


def test_what_is_left_out_is_listed_with_the_reason(tmp_path):
    root = folder(tmp_path / "scans", {"a": 2, "b": 2})
    (root / "a" / ".hidden.png").write_bytes(b"")
    (root / "a" / "Thumbs.db").write_bytes(b"")
    (root / "a" / "volume.nii.gz").write_bytes(b"")
    (root / ".git").mkdir()
    (root / "empty").mkdir()
    picture(root / "loose.png")
    (root / "b" / "gone.png").symlink_to(root / "nowhere.png")
    assert dict(list_images(root).skipped) == {
        "a/.hidden.png": "hidden",
        "a/Thumbs.db": "not an image (.db)",
        "a/volume.nii.gz": "a volume: export the slices you mean as images",
        ".git": "hidden",
        "empty": "no images in it",
        "loose.png": "in no class folder",
        "b/gone.png": "a link that leads nowhere",
    }
    assert load_dataset(root, size=28).notes == (
        "7 files or folders were left out: companion inspect lists them",
    )


def test_split_folders_in_any_case_and_what_lies_beside_them(tmp_path):
    for split, count in (("TRAIN", 4), ("Valid", 2), ("Testing", 3)):
        folder(tmp_path / "scans" / split, {"a": count, "b": count})
    folder(tmp_path / "scans" / "extra", {"a": 1})
    picture(tmp_path / "scans" / "TRAIN" / "loose.PNG")
    assert dict(list_images(tmp_path / "scans").skipped) == {
        "extra/a/a-0.png": "beside the folders of the splits",
        "TRAIN/loose.PNG": "in no class folder",
    }
    found = load_dataset(tmp_path / "scans")
    assert found.official_split and found.size == 224
    assert {split: len(labels) for split, labels in found.labels.items()} == {"train": 8, "val": 4, "test": 6}


def test_links_and_folders_below_a_class_belong_to_it_wherever_the_folder_lies(tmp_path):
    folder(tmp_path / "elsewhere", {"more": 2})
    for place in ("here", "there"):
        root = folder(tmp_path / place / "scans", {"a/patient 1": 10, "a/patient 2": 5, "b": 13})
        (root / "b" / "more").symlink_to(tmp_path / "elsewhere" / "more")
        assert [entry.label for entry in list_images(root).entries] == ["a"] * 15 + ["b"] * 15
    first, second = (load_dataset(tmp_path / place / "scans", size=28) for place in ("here", "there"))
    assert first.content_hash == second.content_hash
    assert load_dataset(tmp_path / "here" / "scans", size=28, seed=1).content_hash != first.content_hash


def test_grey_stays_grey_and_one_colour_image_makes_all_rgb(tmp_path):
    root = folder(tmp_path / "scans", {"a": 3, "b": 3})
    assert load_dataset(root, size=28).channels == 1
    picture(root / "a" / "colour.png", np.full((30, 30, 3), (255, 0, 0), np.uint8))
    found = load_dataset(root, size=28)
    assert found.channels == 3
    pixels = np.concatenate([images for images in found.images.values() if len(images)])
    assert (pixels == np.array([255, 0, 0])).all(axis=(1, 2, 3)).sum() == 1


def test_sixteen_bits_keep_their_scale(tmp_path):
    for index, value in enumerate((0, 257, 25700, 65535)):
        for copy in range(2):
            path = tmp_path / "train" / "ab"[index % 2] / f"{index}-{copy}.png"
            picture(path, np.full((8, 8), value, np.uint16))
    found = load_dataset(tmp_path, size=28)
    assert sorted(set(found.images["train"].reshape(8, -1)[:, 0])) == [0, 1, 100, 255]
    assert found.channels == 1


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
    assert found.class_counts() == {"a": 7, "b": 7}
    assert found.name == "own/x"


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


def test_images_that_a_manifest_does_not_list_are_reported(tmp_path):
    path = manifest(tmp_path, ROWS)
    picture(tmp_path / "images" / "more.PNG")
    assert list_images(path).skipped == (("images/more.PNG", "not in the manifest"),)


# --- splits drawn here -------------------------------------------------------------------------------------


def test_splits_are_70_10_and_20_percent_of_every_class():
    labels = np.repeat([0, 1, 2], [60, 40, 2])
    found = stratified_split(labels)
    shares = {name: np.bincount(labels[index]).tolist() for name, index in found.items()}
    assert shares == {"train": [42, 28, 2], "val": [6, 4], "test": [12, 8]}  # a rare class is for training


def test_patients_stay_together_and_the_seed_decides():
    patients = [f"patient {number // 2}" for number in range(100)]
    first, again, other = (
        grouped_split(np.arange(100) % 2, patients, ("a", "b"), seed=seed) for seed in (0, 0, 1)
    )
    whose = [{patients[i] for i in index} for index in first.values()]
    assert sum(map(len, whose)) == len(set(patients))
    assert sorted(np.concatenate(list(first.values()))) == list(range(100))
    assert [len(index) for index in first.values()] == [70, 10, 20]
    assert all((first[split] == again[split]).all() for split in first)
    assert not np.array_equal(other["test"], first["test"])


def test_copies_stay_in_one_split_and_alone_change_nothing():
    labels = np.arange(60) % 2
    plain = stratified_split(labels, seed=3)
    distinct = stratified_split(labels, [f"content {index}" for index in range(60)], seed=3)
    assert all((plain[split] == distinct[split]).all() for split in plain)
    # Every image three times, a copy with the other label among them: the first one's counts.
    content = [f"content {index % 20}" for index in range(60)]
    for seed in range(3):
        found = stratified_split(labels, content, seed=seed)
        parts = [{content[index] for index in part} for part in found.values()]
        assert sum(map(len, parts)) == 20 and [len(part) for part in found.values()] == [42, 6, 12]


def test_patients_with_a_copied_image_become_one():
    groups = ["b", "a", "c", "b", "d", "e", "c"]
    content = [1, 2, 3, 4, 4, 5, 2]  # b = d by 4, a = c by 2
    assert merged(groups, content) == ["b", "a", "a", "b", "b", "e", "a"]
    assert merged(groups, range(7)) == groups


def test_copies_of_a_file_are_drawn_into_one_split(tmp_path):
    root = folder(tmp_path / "f", {"a": 20, "b": 20})
    for path in sorted(root.rglob("*.png")):
        shutil.copy(path, path.with_name(f"again-{path.name}"))
    found = load_dataset(root, size=28)
    assert [len(labels) for labels in found.labels.values()] == [56, 8, 16]
    assert in_several_splits(found) == 0


def test_a_grouped_split_keeps_rare_classes_for_training():
    labels = np.repeat([0, 1], [40, 4])
    groups = [f"p{index}" for index in range(40)] + ["q0", "q0", "q1", "q1"]
    for seed in range(5):
        found = grouped_split(labels, groups, ("common", "rare"), seed=seed)
        assert np.bincount(labels[found["train"]]).min() >= 2
    with pytest.raises(InputError, match="2 patients are too few"):
        grouped_split(np.arange(6) % 2, ["p", "q"] * 3, ("a", "b"))
    with pytest.raises(InputError, match="'rare' has too few patients"):
        grouped_split(np.repeat([0, 1], [6, 1]), list("abcdefg"), ("common", "rare"))
