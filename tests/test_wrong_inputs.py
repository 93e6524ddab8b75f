# ruff: noqa: E501
"""What people do wrong: one row each, from what they did to the exit code and the line they see; nothing stays behind.

Everything runs in this process through the command line's own entry, so that hundreds of rows take seconds.
"""

import os
import pickle
import struct
import sys
import urllib.error
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

import companion
from checkpoints import checkpoints, named
from companion import cli
from companion.errors import InputError
from image_files import Malicious, folder, manifest, picture

SOURCES = ("-s", "scratch", "-s", "train:procedural:cells")
TWO = {"a": 2, "b": 2}


def npz(root: Path, **changed: object) -> Path:
    """Write a usable ``.npz``, with arrays replaced, or left out where they are None."""
    rng = np.random.default_rng(0)
    content = {
        "train_images": rng.integers(0, 256, (24, 28, 28), dtype=np.uint8),
        "train_labels": np.arange(24) % 2,
    }
    content = {key: value for key, value in (content | changed).items() if value is not None}
    np.savez(root / "x.npz", **content)
    return root / "x.npz"


def raw(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


LARGE = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)


def with_picture(name: str, image: object, **options: object) -> Callable[[Path], Path]:
    return lambda root: picture(folder(root / "f", TWO) / "b" / name, image, **options).parents[1]


def with_file(name: str, content: bytes | Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    """Write class folders, one file of which holds `content`, or what it makes of a whole PNG or JPEG."""

    def make(root: Path) -> Path:
        path = folder(root / "f", TWO) / "b" / name
        path.write_bytes(content(picture(path, LARGE).read_bytes()) if callable(content) else content)
        return root / "f"

    return make


def bomb(width: int) -> bytes:
    """Write the header of a square PNG of so many pixels a side."""
    chunks = [
        b"IHDR" + struct.pack(">IIBBBBB", width, width, 8, 0, 0, 0, 0),
        b"IDAT" + zlib.compress(b"\0" * 9),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def class_folders(**counts: int) -> Callable[[Path], Path]:
    return lambda root: folder(root / "f", {name.replace("__", "/"): n for name, n in counts.items()})


ALPHA = np.zeros((9, 9, 4), np.uint8)
ALPHA[2:5, 2:5, 3] = 255
PAGES = [Image.new("L", (9, 9), value) for value in (10, 200)]


def _loop(root: Path) -> Path:
    folder(root / "f", TWO)
    (root / "f" / "b" / "again").symlink_to(root / "f" / "b", target_is_directory=True)
    return root / "f"


def _not_utf8(root: Path) -> Path:
    folder(root / "f", {"a": 2})
    target = root / "f" / os.fsdecode(b"gr\xfcn")
    picture(target / "1.png")
    picture(target / "2.png")
    return root / "f"


# What is wrong -> how it is made, and what the line says; the exit code is 2.
FOLDERS = {
    "a zero-byte image": (with_file("x.png", b""), "cannot be read as an image"),
    "a PNG that was cut off": (with_file("x.png", lambda whole: whole[:-500]), "b/x.png cannot be read as an image"),
    "a JPEG that was cut off": (with_file("x.jpg", lambda whole: whole[:-500]), "b/x.jpg cannot be read as an image"),
    "a TIFF that was cut off": (with_file("x.tif", lambda whole: whole[:300]), "b/x.tif cannot be read as an image"),
    "a PNG with flipped bits": (
        with_file("x.png", lambda whole: whole[:80] + bytes(255 - b for b in whole[80:120]) + whole[120:]),
        "b/x.png cannot be read as an image"),
    "a text named as an image": (with_file("x.jpg", b"hello"), "mend or remove it"),
    "a page of HTML named as an image": (with_file("x.png", b"<html></html>"), "mend or remove it"),
    "a decompression bomb": (with_file("x.png", bomb(60_000)), "b/x.png cannot be read as an image (DecompressionBombError)"),
    "an image just over the limit": (with_file("x.png", bomb(12_300)), "over the limit of 150000000"),
    "a PostScript program named as an image": (
        with_file("x.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"), "b/x.png cannot be read as an image"),
    "a class whose name moves the cursor": (class_folders(**{"a": 2, "b\x1b[2J": 2}), "b\\x1b[2J: the name of this class"),
    "an image in its alpha channel only": (with_picture("x.png", ALPHA), "in the transparency only"),
    "decimal pixels from 0 to 255": (
        with_picture("x.tif", np.full((9, 9), 255, np.float32)), "decimal values reach from 255 to 255, outside 0 to 1"),
    "decimal pixels with NaN": (with_picture("x.tif", np.full((9, 9), np.nan, np.float32)), "decimal values"),
    "pixels below zero": (with_picture("x.tif", np.full((9, 9), -5, np.int32)), "grey values reach from -5 to -5"),
    "several pages in a file": (
        with_picture("x.tif", PAGES[0], save_all=True, append_images=PAGES[1:]), "holds 2 frames, and one image a file is wanted"),
    "a damaged file with a name that is no UTF-8": (with_file(os.fsdecode(b"scan\xff.png"), b"x"), "scan\\xff.png cannot be read"),
    "an empty folder": (lambda root: (root / "f").mkdir() or root / "f", "f has no images"),
    "images without class folders": (lambda root: picture(root / "f" / "x.png").parent, "folders named by class"),
    "one class folder": (class_folders(a=3), "images of one class only ('a')"),
    "a manifest beside the images, the folder named": (lambda root: manifest(root / "f", [("images/1.png", "a")]).parent, "a .csv or .tsv that lists paths and labels"),
    "a class of one image": (class_folders(a=3, b=1), "class 'b' has 1 training image(s); at least 2 are needed, or leave the class out with --drop-classes 'b'"),
    "no folder to train on": (class_folders(val__a=2, val__b=2), "none with split train"),
    "two folders to train on": (class_folders(train__a=2, Training__a=2, train__b=2), "two folders for train, one of them train"),
    "a class for testing only": (class_folders(train__a=3, train__b=3, test__a=1, test__c=1), "class 'c' has 0 training image(s)"),
    "a folder that links back to itself": (_loop, "leads back to a folder it lies in"),
    "a class whose name is no UTF-8": (_not_utf8, "gr\\xfcn: the name of this class cannot be printed"),
    "volumes": (lambda root: raw(root / "f" / "a" / "x.nii.gz", b"x").parents[1], "f has no images"),
}  # fmt: skip

ROWS = [("1.png", "a"), ("2.png", "b"), ("3.png", "a"), ("4.png", "b")]


def listing(rows: list[tuple] | None = None, header: str = "path,label") -> Callable[[Path], Path]:
    return lambda root: manifest(root / "m", ROWS if rows is None else rows, header=header)


def table(text: str | bytes, name: str = "list.csv") -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        manifest(root / "m", ROWS)
        return raw(root / "m" / name, text if isinstance(text, bytes) else text.encode())

    return make


def linked(leads_to: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        path = manifest(root / "m", [*ROWS, ("link.png", "a")])
        picture(root / "outside.png")
        (root / "m" / "link.png").unlink()
        (root / "m" / "link.png").symlink_to(leads_to)
        return path

    return make


WITH_PATIENTS = [("1.png", "a", "train", "P7"), ("2.png", "b", "train", "P8"), ("3.png", "a", "test", "P7")]

MANIFESTS = {
    "no column of paths": (listing(header="where,label"), "has no column path: its first line has where, label"),
    "a misspelt column": (listing(header="path,labels"), "Did you mean 'label'?"),
    "a column for every finding": (
        listing([("1.png", 0, 1), ("2.png", 1, 1)], "path,oedema,nodule"),
        "has no column label: its first line has path, oedema, nodule; wanted are path and label (the scores are"),
    "no label": (listing([*ROWS, ("5.png", "")]), "line 6 has no label"),
    "a label that is NaN": (listing([*ROWS, ("5.png", "NaN")]), "line 6 has no label ('NaN')"),
    "a label that rings the bell": (listing([*ROWS, ("5.png", "a\a")]), "a\\x07: the name of this class cannot be printed"),
    "several labels in a cell": (listing([*ROWS, ("5.png", "a|b")]), "several labels ('a|b')"),
    "a file with two labels": (listing([*ROWS, ("1.png", "b")]), "1.png is listed twice, 'a' further up and 'b' here"),
    "a file listed twice": (listing([*ROWS, ("1.png", "a")]), "1.png is listed twice"),
    "files that are not there": (
        table("path,label\n1.png,a\ngone.png,b\nx.png,b\n"), "gone.png is not there; 1 more cannot be read: x.png"),
    "a path that leads out": (listing([*ROWS, ("../x.png", "a")]), "../x.png leads out of"),
    "a roundabout path that leads out": (listing([*ROWS, ("a/../../x.png", "a")]), "leads out of"),
    "a path of the system": (listing([*ROWS, ("/etc/passwd", "a")]), "/etc/passwd leads out of"),
    "a link that leads out": (linked("../outside.png"), "link.png leads out of"),
    "a link to itself": (linked("link.png"), "a link that leads nowhere or back to itself"),
    "a folder for a file": (listing([*ROWS, (".", "a")]), "m is not there"),
    "a zero byte in a path": (table(b"path,label\n1.png,a\nx\0.png,b\n"), "list.csv"),
    "a split that is none": (listing([("1.png", "a", "holdout")], "path,label,split"), "'holdout' is none of train, val"),
    "a split left out": (listing([("1.png", "a", "")], "path,label,split"), "every row needs one"),
    "nothing to train on": (listing([("1.png", "a", "test"), ("2.png", "b", "val")], "path,label,split"), "none with split train"),
    "a patient in two splits": (listing(WITH_PATIENTS, "path,label,split,patient"), "patient 'P7' is in train and test"),
    "a patient left out": (listing([("1.png", "a", "P1"), ("2.png", "b", "")], "path,label,patient_id"), "has no patient"),
    "two patients to split": (
        listing([(*row, f"P{index % 2}") for index, row in enumerate(ROWS)], "path,label,patient"),
        "2 patients are too few to draw three splits from"),
    "no text": (table(bytes(range(256))), "list.csv"),
    "a row with a cell too many": (table("path,label\n1.png,a\n2.png,b,c\n"), "line 3 has not the 2 cells"),
    "a row with a cell too few": (table("path,label\n1.png,a\n2.png\n"), "line 3 has not the 2 cells"),
    "a quote that is not closed": (table('path,label\n1.png,"a\n2.png,b\n'), "it is not a whole table"),
    "an empty table": (table(""), "has no column path: its first line has nothing"),
    "a table of names only": (table("path,label\n"), "list.csv has no images"),
    "a table of one class": (listing([("1.png", "a"), ("2.png", "a")]), "images of one class only ('a')"),
}  # fmt: skip


def _pickled(root: Path) -> Path:
    objects = np.empty(24, dtype=object)
    objects[:] = Malicious(root / "code-ran")
    return npz(root, train_images=objects)


def _single_array(root: Path) -> Path:
    np.save(root / "x.npy", np.zeros(3))
    return (root / "x.npy").rename(root / "x.npz")


def _no_array_inside(root: Path) -> Path:
    with zipfile.ZipFile(root / "x.npz", "w") as opened:
        opened.writestr("train_images", b"bytes")
        opened.writestr("train_labels", b"bytes")
    return root / "x.npz"


HALF = np.arange(24) % 2

ARRAYS = {
    "a file that is not there": (lambda root: root / "gone.npz", "gone.npz: there is no such file or folder"),
    "a text named .npz": (lambda root: raw(root / "x.npz", b"a,b"), "is not a whole .npz file"),
    "an empty .npz": (lambda root: raw(root / "x.npz", b""), "is not a whole .npz file"),
    "a .npz that was cut off": (lambda root: raw(root / "x.npz", npz(root).read_bytes()[:-400]), "not a whole .npz"),
    "pickled objects with code in them": (_pickled, "holds pickled objects, which are never loaded"),
    "a bare pickle with code in it": (
        lambda root: raw(root / "x.npz", pickle.dumps(Malicious(root / "code-ran"))), "is not a whole .npz file"),
    "no labels": (lambda root: npz(root, train_labels=None), "lacks train_labels"),
    "labels too few": (lambda root: npz(root, train_labels=HALF[:-1]), "24 images but 23 labels"),
    "labels with NaN": (lambda root: npz(root, train_labels=np.where(HALF, np.nan, 0)), "train_labels has fractions, NaN"),
    "labels with fractions": (lambda root: npz(root, train_labels=HALF / 2), "train_labels has fractions"),
    "several labels an image": (lambda root: npz(root, train_labels=np.ones((24, 3), int)), "one label an image"),
    "labels of one class": (lambda root: npz(root, train_labels=0 * HALF), "one class only ('0')"),
    "a label used once": (lambda root: npz(root, train_labels=np.arange(24) // 23), "class '1' has 1 training"),
    "volumes of 28 slices": (lambda root: npz(root, train_images=np.zeros((24, 28, 28, 28), np.uint8)), "(24, 28, 28, 28)"),
    "images as a table": (lambda root: npz(root, train_images=np.zeros((24, 784), np.uint8)), "(24, 784)"),
    "decimal images": (lambda root: npz(root, train_images=np.ones((24, 28, 28))), "has type float64; uint8"),
    "16-bit images": (lambda root: npz(root, train_images=np.zeros((24, 28, 28), np.uint16)), "has type uint16"),
    "images with an alpha channel": (lambda root: npz(root, train_images=np.zeros((24, 28, 28, 4), np.uint8)), "28, 4)"),
    "oblong images": (lambda root: npz(root, train_images=np.zeros((24, 28, 30), np.uint8)), "square ones are wanted"),
    "no images": (
        lambda root: npz(root, train_images=np.zeros((0, 28, 28), np.uint8), train_labels=np.zeros(0, int)), "x.npz has no images"),
    "labels that move the cursor": (
        lambda root: npz(root, train_labels=np.array(["a\x1b[2J", "b"] * 12)), "a\\x1b[2J: the name of this class"),
    "a single array": (_single_array, "x.npz is a single array, not a .npz archive"),
    "no arrays inside": (_no_array_inside, "lacks train_images, train_labels: wanted are"),
    "no training split": (lambda root: npz(root, train_images=None, train_labels=None), "lacks train_images, train_labels"),
    "images as a number": (lambda root: npz(root, train_images=np.uint8(3)), "train_images has shape ()"),
    "labels as a number": (lambda root: npz(root, train_labels=np.int64(1)), "train_labels has shape ()"),
    "labels as dates": (lambda root: npz(root, train_labels=HALF.astype("M8[D]")), "has type datetime64[D]"),
    "another shape in a split": (
        lambda root: npz(root, val_images=np.zeros((24, 64, 64), np.uint8), val_labels=HALF), "shape (64, 64), train images (28, 28)"),
    "numbers here, names there": (
        lambda root: npz(root, val_images=np.zeros((24, 28, 28), np.uint8), val_labels=HALF.astype(str)), "names in another"),
    "an array's class for testing only": (
        lambda root: npz(root, test_images=np.zeros((24, 28, 28), np.uint8), test_labels=2 * HALF), "class '2' has 0 training"),
    "images that are all the same": (lambda root: npz(root, train_images=np.zeros((24, 28, 28), np.uint8)), "identical"),
}  # fmt: skip

TARGETS = FOLDERS | MANIFESTS | ARRAYS


LEVEL = "--patients-from-folder"
READING = {
    "folders of patients that hold classes": (class_folders(**{f"P{n}/{name}": 1 for n in range(6) for name in "ab"}), (), "its 6 folders hold the same few"),
    "no folders of patients": (class_folders(a=3, b=3), (LEVEL, "1"), "a-0.png lies in no folder of a patient, 1 below"),
    "a level below zero": (class_folders(a=3, b=3), (LEVEL, "-1"), f"'{LEVEL}'"),
    "patients from the folders of a manifest": (listing(), (LEVEL, "1"), f"{LEVEL} does not apply to a manifest"),
    "a root for a folder": (class_folders(a=3, b=3), ("--root", "f"), "--root does not apply to a folder"),
    "a root that is not there": (listing(), ("--root", "nowhere"), "nowhere: there is no such folder"),
    "a path that leads out of the root": (listing([("../x.png", "a")]), ("--root", "m"), "leads out of"),
    "a link that leads out of the root": (linked("../outside.png"), ("--root", "m"), "link.png leads out of"),
    "a root for arrays": (npz, ("--root", "."), "--root does not apply to a .npz file"),
    "unreadable arrays to skip": (npz, ("--skip-unreadable",), "does not apply to a .npz file"),
    "a class to drop that there is not": (class_folders(a=3, b=3), ("--drop-classes", "B"), "Did you mean 'b'?"),
    "an array's class to drop that there is not": (npz, ("--drop-classes", "2"), "no class '2' to drop: there are 0, 1"),
    "all classes but one dropped": (class_folders(a=3, b=3), ("--drop-classes", "b"), "of one class only ('a')"),
    "nothing that can be read": (
        lambda root: raw(raw(root / "f" / "a" / "x.png", b"").parents[1] / "b" / "x.png", b"").parents[1],
        ("--skip-unreadable",),
        "folder f has no images",
    ),
    "options for a dataset that has its own splits": (lambda root: "procedural:cells", ("--drop-classes", "x"), "does not apply"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch, tmp_path, own_cache):
    """No connection, an empty cache, and a working directory that must stay as it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(own_cache / "torch"))

    def refuse(*_arguments, **_options):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


def refused(capsys, arguments: list[object], code: int, says: str, *roots: Path) -> None:
    """Run the command; it must end with one line and leave everything as it was."""

    def tree() -> set[Path]:
        """Everything in the working directory, and the files of other places."""
        return {path for root in roots for path in root.rglob("*") if root is roots[0] or not path.is_dir()}

    before = tree()
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    *progress, line = err.splitlines()  # of long work, a line a source
    assert says in line and line.startswith("companion: ") and all("%  " in each for each in progress), err
    assert (stopped.value.code, out) == (code, "")
    assert tree() == before
    assert not (roots[0] / "code-ran").exists()


@pytest.mark.parametrize("case", TARGETS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_target_that_cannot_be_ranked_for(capsys, tmp_path, own_cache, case):
    make, says = TARGETS[case]
    target = make(tmp_path)
    # What only a score can see comes late, so the sources are small ones that need no training.
    late = case == "images that are all the same"
    two = named(checkpoints(tmp_path, 2)) if late else ("-s", "scratch", "-s", "torchvision:resnet18")
    arguments = ["rank", target, *two, "--out", tmp_path / "report"]
    refused(capsys, arguments, 2, says, tmp_path, own_cache)


SEEN = ("a PNG that was cut off", "a class of one image", "a class for testing only", "a patient in two splits",
        "two patients to split")  # fmt: skip


@pytest.mark.parametrize("case", SEEN)
def test_inspecting_reports_why_ranking_refuses(tmp_path, case):
    make, says = TARGETS[case]
    assert says in companion.inspect(make(tmp_path)).errors[0]


@pytest.mark.parametrize("command", ["inspect", "rank"])
@pytest.mark.parametrize("case", READING)
def test_options_of_reading_that_make_no_sense(capsys, tmp_path, own_cache, case, command):
    make, options, says = READING[case]
    sources = SOURCES if command == "rank" else ()
    refused(capsys, [command, make(tmp_path), *sources, *options], 2, says, tmp_path, own_cache)


# --- sources -----------------------------------------------------------------------------------------------
def _checkpoint(root: Path, content: object, name: str = "x.pth") -> Path:
    torch.save(content, root / name)
    return root / name


SMALL_STATE = {"conv1.weight": torch.zeros(3)}
CHECKPOINTS = {
    "a checkpoint with code in it": (lambda root: _checkpoint(root, Malicious(root / "code-ran")), 2, "code in it would be run: it is not"),
    "code beside the tensors": (
        lambda root: _checkpoint(root, SMALL_STATE | {"x": Malicious(root / "code-ran")}), 2, "save it as safetensors"),
    "a bare pickle": (
        lambda root: raw(root / "x.pth", pickle.dumps(Malicious(root / "code-ran"))), 2, "x.pth"),
    "weights of another architecture": (lambda root: _checkpoint(root, SMALL_STATE), 2, "covers 0% of the backbone of resnet18"),
    "a checkpoint that was cut off": (
        lambda root: raw(root / "x.pth", _checkpoint(root, SMALL_STATE).read_bytes()[:100]), 2, "is not a whole checkpoint"),
    "an empty safetensors file": (lambda root: raw(root / "x.safetensors", b""), 2, "is not a whole checkpoint"),
    "a safetensors file that was cut off": (
        lambda root: raw(root / "x.safetensors", save(SMALL_STATE)[:-4]), 2, "is not a whole checkpoint"),
    "a text named .pth": (lambda root: raw(root / "x.pth", b"hello, world"), 2, "is not a whole checkpoint"),
    "a list of tensors": (lambda root: _checkpoint(root, [torch.zeros(2)]), 2, "holds no state dict"),
    "a checkpoint that is not there": (lambda root: root / "gone.safetensors", 2, "there is no such checkpoint file"),
    "a folder for a checkpoint": (lambda root: (root / "x.pth").mkdir() or root / "x.pth", 2, "no such checkpoint file"),
    "a misspelt source": (lambda root: "imagnet", 2, "Did you mean 'imagenet'?"),
    "an architecture that is none": (lambda root: "torchvision:resnet81", 2, "Did you mean 'resnet18'?"),
    "training on what is not there": (lambda root: "train:retinamist", 2, "Did you mean 'retinamnist'?"),
    "training on nothing": (lambda root: "train:", 2, "a dataset without a name"),
    "ImageNet weights without a connection": (lambda root: "imagenet", 3, "put the file at"),
    "MedMNIST weights without trust": (lambda root: "pathmnist", 2, "--trust"),
    "weights that are fetched by hand": (lambda root: "radimagenet", 3, "radimagenet.safetensors"),
    "leave-target-out weights for a target of one's own": (lambda root: "medmnist", 3, "medmnist_without_x.safetensors"),
    "a source named twice": (lambda root: "scratch", 2, "named twice"),
}  # fmt: skip


def test_the_code_in_these_files_would_run(tmp_path):
    """So that it is the refusal which stops it."""
    torch.load(CHECKPOINTS["code beside the tensors"][0](tmp_path), weights_only=False)
    assert (tmp_path / "code-ran").exists()


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_source_that_cannot_be_loaded(capsys, tmp_path, own_cache, case):
    make, code, says = CHECKPOINTS[case]
    target, source = npz(tmp_path), make(tmp_path)
    refused(capsys, ["rank", target, "-s", source, "-s", "scratch"], code, says, tmp_path, own_cache)


@pytest.mark.parametrize(
    ("module", "source", "extra"), [("timm", "timm:resnet18", "timm"), ("pydicom", "scratch", "dicom")]
)
def test_an_extra_that_is_missing(capsys, tmp_path, own_cache, monkeypatch, module, source, extra):
    monkeypatch.setitem(sys.modules, module, None)
    target = npz(tmp_path)
    if extra == "dicom":
        target = folder(tmp_path / "f", TWO)
        raw(target / "a" / "x.dcm", b"\0" * 128 + b"DICM")
    says = f"pip install 'transferability-companion[{extra}]'"
    refused(
        capsys, ["rank", target, "-s", source, "-s", "train:procedural:cells"], 3, says, tmp_path, own_cache
    )


# --- options and other commands ----------------------------------------------------------------------------

LESIONS = ("rank", "procedural:lesions", *SOURCES)
COMMANDS = [
    (("rank", "brestmnist", *SOURCES), 2, "Did you mean 'breastmnist'?"),
    (("rank", "procedural:lesions", "-s", "imagenet", *SOURCES, "--architecture", "timm:resnet18"), 2,
     "name timm:resnet18 as the source"),
    (("rank", "procedural:lesion", *SOURCES), 2, "Did you mean 'lesions'?"),
    (("rank", "breastmnist", *SOURCES, "--size", "28", "--data-dir", "x.txt"), 2, "x.txt is a file"),
    (("rank", "", *SOURCES), 2, "a dataset without a name"),
    (("rank",), 2, "Missing argument"),
    (("rank", "procedural:cells"), 2, "only random weights can be had here without a download"),
    (("rank", "procedural:cells", "-s", "scratch"), 2, "at least two sources: got scratch"),
    ((*LESIONS, "--size", "30"), 2, "size 30 is not offered"),
    ((*LESIONS, "--size", "large"), 2, "--size"),
    ((*LESIONS, "--seed", "-1"), 2, "'--seed': "),
    ((*LESIONS, "--seed", "1.5"), 2, "--seed"),
    ((*LESIONS, "--per-class", "1"), 2, "'--per-class': "),
    ((*LESIONS, "--variant", "best"), 2, "'best' is not one of 'corrected', 'published'"),
    ((*LESIONS, "--repeats", "3"), 2, "'--repeats': 3: 0 for none, or at least 5"),
    ((*LESIONS, "--verify", "1"), 2, "'--verify': 1: 0 for none, or at least 2"),
    ((*LESIONS, "--device", "gpu"), 2, "device 'gpu'"),
    ((*LESIONS, "--device", "cuda:99"), 3, "leave --device out"),
    ((*LESIONS, "--architecture", "resnet-18"), 2, "Did you mean 'resnet18'?"),
    ((*LESIONS, "--sorce", "x"), 2, "--source"),
    ((*LESIONS, "--out", "x.txt"), 2, "x.txt is a file: name a folder"),
    ((*LESIONS, "--out", "x.txt/below"), 2, "cannot write"),
    ((*LESIONS, "--out", "old"), 2, "old holds ranking.json already"),
    (("rank", "procedural:cells", "-s", "gone.csv", *SOURCES), 2, "gone.csv: not a table of sources"),
    (("rank", "procedural:cells", "-s", "gone.pth@resnet18", *SOURCES), 2, "gone.pth: there is no such checkpoint"),
    (("rank", "procedural:cells", "-s", "resnet50", *SOURCES), 2, "Did you mean 'torchvision:resnet50'?"),
    (("tune", "procedural:cells", "-s", "scratch"), 2, "Missing option '--out'"),
    (("tune", "procedural:cells", "-s", "scrach", "--out", "new"), 2, "Did you mean 'scratch'?"),
    (("tune", "procedural:cells", "-s", "scratch", "--out", "x.txt"), 2, "x.txt is a file: name a folder"),
    (("tune", "procedural:cells", "-s", "scratch", "--out", "new", "--seeds", "0"), 2, "'--seeds': "),
    (("tune", "procedural:cells", "-s", "scratch", "--out", "new", "--protocol", "best"), 2, "'best' is not one of"),
    (("inspect", "gone"), 2, "no dataset 'gone'"),
    (("inspect", "gone\x1b.csv"), 2, "gone\\x1b.csv: there is no such file or folder"),
    (("inspect", "procedural:cells", "--out", "old"), 2, "old holds inspection.json already"),
    (("ranks",), 2, "rank"),
    (("notebook",), 2, "--list"),
    (("notebook", "99_nothing"), 2, "there are 01_source_training"),
    (("notebook", "07_new_targt"), 2, "Did you mean '07_new_target'?"),
    (("notebook", "04", "-p", "tarrget", "x"), 2, "Did you mean 'target'?"),
    (("notebook", "04", "-p", "size", "abc"), 2, "'size' is 'abc'"),
    (("notebook", "04", "-p", "size", "30"), 2, "'size' is 30: input should be 0, 28, 64, 128 or 224"),
    (("notebook", "04", "-p", "seed", "1.5"), 2, "'seed' is 1.5"),
    (("notebook", "04", "-p", "seed", "-3"), 2, "'seed' is -3"),
    (("notebook", "04", "-p", "per_class", "1e9"), 2, "'per_class'"),
    (("notebook", "04", "-p", "sources", "scratch"), 2, "'sources'"),
    (("notebook", "02", "-p", "protocol", "best"), 2, "'protocol' is 'best'"),
    (("notebook", "04", "--out", "x.txt"), 2, "x.txt exists"),
    (("replicate", "fast"), 2, "fast"),
    (("replicate", "quick", "--workers", "2", "--scheduler", "tcp://x:1"), 2, "give one of them"),
    (("fetch", "brestmnist"), 2, "Did you mean 'breastmnist'?"),
    (("fetch", "imagenet", "--to", "there"), 2, "leave --to out"),
    (("notebook", "04", "-p", "size"), 2, "-p NAME VALUE"),
    (("notebook", "04", "--sise", "28"), 2, "'--sise' is no option"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "says"), COMMANDS, ids=[" ".join(row[0][:6])[:70] for row in COMMANDS]
)
def test_a_command_that_cannot_be_done(capsys, tmp_path, own_cache, data, arguments, code, says):
    raw(tmp_path / "x.txt", b"")
    raw(tmp_path / "old" / "ranking.json", b"{}")
    raw(tmp_path / "old" / "inspection.json", b"{}")
    refused(capsys, list(arguments), code, says, tmp_path, own_cache, data)


@pytest.mark.parametrize(
    ("labels", "options", "says"),
    [
        (np.arange(24) % 12, ("--per-class", "1000", "--verify", "2"), "no val images"),
        (np.arange(24) % 12, ("--per-class", "3", "--seed", "5", "--size", "31"), "size 31"),
        (np.repeat([0, 1, 2], [11, 11, 2]), ("--per-class", "3"), "draw more images a class"),
    ],
)
def test_more_than_the_images_allow(capsys, tmp_path, own_cache, labels, options, says):
    target = npz(tmp_path, train_labels=labels)
    refused(capsys, ["rank", target, *SOURCES, *options], 2, says, tmp_path, own_cache)


def test_an_output_that_cannot_be_written(capsys, tmp_path, own_cache, monkeypatch):
    there = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "locked" not in str(path) and there(path, mode))
    (tmp_path / "locked").mkdir()
    arguments = [*LESIONS, "--out", tmp_path / "locked" / "report"]
    refused(capsys, arguments, 2, "is not a folder that can be written", tmp_path, own_cache)


def test_a_disk_that_fills_up_while_the_report_is_written(capsys, tmp_path, own_cache, full_disk):
    two = named(checkpoints(tmp_path, 2))
    full_disk("ranking.html")
    (tmp_path / "report").mkdir()
    arguments = ["rank", "procedural:lesions", *two, "--per-class", "12", "--out", tmp_path / "report"]
    refused(capsys, arguments, 3, "ranking.html", tmp_path, own_cache)


def test_a_gpu_whose_memory_is_full(capsys, tmp_path, own_cache, monkeypatch):
    def full(*_arguments: object) -> None:
        raise torch.cuda.OutOfMemoryError("planted")

    monkeypatch.setattr("companion.models.SourceModel.prepare", full)
    refused(capsys, LESIONS, 3, "memory of the GPU is full", tmp_path, own_cache)


def test_a_bug_keeps_its_traceback_and_a_mistake_gets_one_on_request(monkeypatch):
    monkeypatch.setenv("COMPANION_DEBUG", "")
    with pytest.raises(InputError, match="no dataset"):
        cli.main(["--debug", "inspect", "gone"])
    monkeypatch.setenv("COMPANION_DEBUG", "")
    monkeypatch.setattr("companion.datasets.inspect", lambda *_a, **_o: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["inspect", "gone"])
