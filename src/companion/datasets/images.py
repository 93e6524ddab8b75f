"""Image files become pixels, uint8, square, grey or RGB: Pillow and pydicom decode, this decides what modes mean."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from companion.errors import CompanionError, InputError, require_extra, shown

if TYPE_CHECKING:
    from PIL import Image as Pillow

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
# Pillow reads dozens more, some by starting other programs: what a file is called does not decide what it is.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
# Pillow's own guard against decompression bombs sits higher; a scan of 12,000 x 12,000 px still passes.
PIXEL_LIMIT = 150_000_000
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")
GREY_MODES = ("1", "L", "LA", "La", "F", *SIXTEEN_BITS)
ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
DICOM_GREY = ("MONOCHROME1", "MONOCHROME2")
DICOM_COLOUR = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")

Progress = Callable[[str], None]


class Header(NamedTuple):
    """What a file says of itself."""

    width: int  # pixels, as stored
    height: int
    mode: str  # Pillow's, or the photometric interpretation of a DICOM file and its bits
    grey: bool  # nothing but grey can be in it
    highest: int = 0  # value of a grey image of more than 8 bits
    patient: str = ""  # DICOM's patient identifier
    digest: bytes = b""  # sha256 of the file


def is_dicom(path: Path) -> bool:
    """Tell DICOM by its suffix or, since scanners often give none, by its mark at byte 128."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    if path.suffix and not path.suffix[1:].isdigit():  # a UID has dots and numbers
        return False
    try:
        with open(path, "rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_image(path: Path) -> bool:
    """Tell an image by its suffix, or DICOM by its mark."""
    return path.suffix.lower() in IMAGE_SUFFIXES or is_dicom(path)


def probe(path: Path) -> Header:
    """Read a file's header; of a grey image of more than 8 bits its pixels too, for their highest value.

    What is no image, over `PIXEL_LIMIT`, of several frames or of a kind that is not read is an `InputError`.
    """
    if not path.is_file():
        raise InputError(f"{shown(path)} is not there")
    if is_dicom(path):
        found = _dicom(path, pixels=False)
        kind, patient = found.PhotometricInterpretation, shown(str(found.get("PatientID") or ""))
        mode, grey = f"DICOM {kind} {found.get('BitsStored', '?')} bits", kind in DICOM_GREY
        return Header(int(found.Columns), int(found.Rows), mode, grey, 0, patient, file_digest(path))
    with _pillow(path) as image:
        highest, grey = 0, image.mode in GREY_MODES
        if image.mode == "P":
            colours = np.asarray(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
            grey = bool((colours == colours[:, :1]).all())
        if image.mode in SIXTEEN_BITS:
            values = np.asarray(image)
            _check_range(path, values, 65535)
            highest = int(values.max())
        return Header(image.width, image.height, image.mode, grey, highest, digest=file_digest(path))


def read(path: Path, size: int, *, grey: bool, bits: int = 16) -> np.ndarray:
    """Decode PNG, JPEG, TIFF, BMP or DICOM to uint8, (size, size) or (size, size, 3).

    The image is brought to a square, bilinear with antialiasing, upright as its EXIF orientation says; what is
    transparent is black. `grey` converts a colour image by its luminance. Of grey images of more than 8 bits the range
    0 to 2 ** bits - 1 becomes 0 to 255. What cannot be decoded is an `InputError`.
    """
    from PIL import Image, ImageOps

    if is_dicom(path):
        upright = Image.fromarray(_dicom_pixels(path))
    else:
        with _pillow(path) as image:
            if image.format == "JPEG":
                image.draft(None, (2 * size, 2 * size))  # type: ignore[arg-type]  # a large one is decoded smaller
            upright = _eight_bits(path, ImageOps.exif_transpose(image), bits)
    return np.asarray(upright.convert("L" if grey else "RGB").resize((size, size), Image.Resampling.BILINEAR))


@contextlib.contextmanager
def _one_line(path: Path, problem: str, advice: str = "mend or remove it") -> Iterator[None]:
    """Turn the dozen types of errors that a damaged file makes Pillow and pydicom raise into one line."""
    try:
        yield
    except CompanionError:
        raise
    except Exception as error:
        raise InputError(f"{shown(path)} {problem} ({type(error).__name__}): {advice}") from error


def _check_header(path: Path, width: int, height: int, frames: int) -> None:
    """Refuse, before it is decoded, an image that would take gigabytes, and one that is several."""
    if width * height > PIXEL_LIMIT:
        size = f"{width} x {height} pixels, over the limit of {PIXEL_LIMIT}"
        raise InputError(f"{shown(path)} has {size}: make it smaller")
    if frames > 1:
        wanted = "one image a file is wanted: save the one you mean as a file of its own"
        raise InputError(f"{shown(path)} holds {frames} frames, and {wanted}")


def _check_range(path: Path, values: np.ndarray, highest: int) -> None:
    low, high, kind = values.min(), values.max(), "decimal" if highest == 1 else "grey"
    if not np.isfinite(values).all() or low < 0 or high > highest:
        range_ = f"{kind} values reach from {low:g} to {high:g}, outside 0 to {highest}"
        raise InputError(f"{shown(path)} is no image: {range_}: save it as an 8-bit or 16-bit image")


# --- Pillow -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _pillow(path: Path) -> Iterator[Pillow.Image]:
    """Open an image file."""
    from PIL import Image

    Image.init()  # formats that are named are not looked for among those not loaded yet
    with _one_line(path, "cannot be read as an image"), Image.open(path, formats=FORMATS) as image:
        # The second frame of a phone's picture is a preview.
        frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1
        _check_header(path, image.width, image.height, frames)
        yield image


def _eight_bits(path: Path, image: Pillow.Image, bits: int) -> Pillow.Image:
    """Image of 8 bits a channel without transparency."""
    from PIL import Image

    if image.mode in SIXTEEN_BITS or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        highest = 1 if image.mode == "F" else 2**bits - 1
        _check_range(path, values, highest)
        return Image.fromarray((values * (255 / highest)).round().astype(np.uint8))
    if image.mode not in ALPHA_MODES and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    pixels = np.asarray(image)
    alpha = pixels[..., 3]
    if alpha.min() == 255:
        return image
    if alpha.min() < alpha.max() and (pixels[..., :3] == pixels[0, 0, :3]).all():
        problem = "has its picture in the transparency only: save it without an alpha channel"
        raise InputError(f"{shown(path)} {problem}")
    return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)


# --- DICOM --------------------------------------------------------------------------------------------------


def _dicom(path: Path, *, pixels: bool) -> Any:
    """Read a DICOM file; what is not one image of a known kind is refused."""
    pydicom = require_extra("pydicom", "dicom")
    with _one_line(path, "cannot be read as DICOM"):
        syntax = pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID")
        if syntax is not None and syntax.is_deflated:  # it would be unpacked whole, whatever its size
            raise InputError(f"{shown(path)} is stored deflated, which is not read: export it uncompressed")
        found = pydicom.dcmread(path, stop_before_pixels=not pixels)
        if any(name not in found for name in ("Rows", "Columns", "PhotometricInterpretation")):
            raise InputError(
                f"{shown(path)} holds no image ({found.get('Modality')}): take it out of the folder"
            )
        kind = found.PhotometricInterpretation
        if kind not in (*DICOM_GREY, *DICOM_COLOUR):
            problem = f"has photometric interpretation {kind}, which is not read: export it as PNG"
            raise InputError(f"{shown(path)} {problem}")
        _check_header(path, int(found.Columns), int(found.Rows), int(found.get("NumberOfFrames") or 1))
        return found


def _dicom_pixels(path: Path) -> np.ndarray:
    """Pixels of a DICOM file: uint8, (rows, columns) or (rows, columns, 3)."""
    found = _dicom(path, pixels=True)
    syntax = getattr(found.file_meta.get("TransferSyntaxUID"), "name", "an unknown way")
    advice = "export it uncompressed, or install pydicom's decoders with  pip install 'pylibjpeg[all]'"
    with _one_line(path, f"has pixels that cannot be decoded, stored as {syntax}", advice):
        return _dicom_grey(found) if found.PhotometricInterpretation in DICOM_GREY else _dicom_colour(found)


def _dicom_grey(found: Any) -> np.ndarray:
    """Apply rescaling or the modality table, then the first window or table of values of interest.

    Without a window the whole range of the stored bits is kept. MONOCHROME1 is inverted, so that high is bright.
    """
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    values = apply_voi_lut(apply_modality_lut(found.pixel_array, found), found).astype(np.float64)
    tables = [name for name in ("VOILUTSequence", "ModalityLUTSequence") if name in found]
    if tables:
        low, high = 0.0, 2.0 ** found[tables[0]][0].LUTDescriptor[2] - 1
    else:
        bits, signed = int(found.BitsStored), found.PixelRepresentation == 1
        ends = [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1]
        low, high = sorted(apply_modality_lut(np.array(ends, dtype=np.float64), found).tolist())
    scaled = np.clip((values - low) / max(high - low, 1), 0, 1) * 255
    inverted = found.PhotometricInterpretation == "MONOCHROME1"
    return (255 - scaled if inverted else scaled).round().astype(np.uint8)


def _dicom_colour(found: Any) -> np.ndarray:
    from pydicom.pixels.processing import apply_color_lut

    values, bits = found.pixel_array, int(found.BitsStored)  # pydicom has turned YBR to RGB
    if found.PhotometricInterpretation == "PALETTE COLOR":
        bits = int(found.RedPaletteColorLookupTableDescriptor[2])
        values = apply_color_lut(values, found)
    return (values.astype(np.float64) * (255 / (2**bits - 1))).round().astype(np.uint8)


# --- many files ---------------------------------------------------------------------------------------------


def in_parallel(
    work: Callable[[Any], Any], items: Sequence[Any], *, what: str, progress: Progress | None = None
) -> list[Any]:
    """Apply `work` to every item on several threads: results in order, an `InputError` where an item raises one."""

    def tried(item: Any) -> Any:
        try:
            return work(item)
        except InputError as error:
            return error

    found = []
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        warnings.simplefilter("ignore")  # odd metadata, and sizes under the limit that is checked here
        for result in threads.map(tried, items):
            found.append(result)
            if progress and (len(found) % 50 == 0 or len(found) == len(items)):
                progress(f"{what}: {len(found):,} of {len(items):,}")
    return found


def file_digest(path: Path) -> bytes:
    """sha256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
