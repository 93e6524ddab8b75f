"""Image files become pixels: uint8, square, grey or RGB, decoded on several threads.

Pillow decodes, pydicom too where a file is DICOM; this module decides what their many modes mean here, and refuses
what it cannot mean. Which files there are is not its business.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from companion.errors import CompanionError, InputError

if TYPE_CHECKING:
    from PIL import Image as Pillow

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
# Pillow reads dozens more, some by starting other programs: what a file is called does not decide what it is.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
# Pillow's own guard against decompression bombs sits higher; a scan of 12,000 x 12,000 px still passes.
PIXEL_LIMIT = 150_000_000
WORKERS = min(8, os.cpu_count() or 1)
_SIXTEEN = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_GREY = ("1", "L", "LA", "La", "F", *_SIXTEEN)

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[str], None]


def shown(path: str | os.PathLike) -> str:
    r"""Path as one printable line: bytes that are not UTF-8 and line breaks become ``\x..`` escapes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes
    ----------
    width, height
        Pixels, as stored.
    mode
        Pillow's mode, or the photometric interpretation of a DICOM file and its bits.
    grey
        Whether nothing but grey can be in it.
    highest
        Highest value of a grey image of more than 8 bits; 0 of others.
    patient
        DICOM's patient identifier; empty elsewhere.
    """

    width: int
    height: int
    mode: str
    grey: bool
    highest: int = 0
    patient: str = ""


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Pillow.Image]:
    """Open an image file; whatever is wrong with it becomes one line."""
    from PIL import Image

    try:
        if path.stat().st_size == 0:
            raise InputError(f"{shown(path)} cannot be read as an image (it is empty): mend or remove it")
        Image.init()  # formats that are named are not looked for among those not loaded yet
        with Image.open(path, formats=FORMATS) as image:
            check_pixels(path, image.width, image.height)
            if (
                getattr(image, "n_frames", 1) > 1 and image.format != "MPO"
            ):  # a phone's second frame is a preview
                frames = image.n_frames  # type: ignore[attr-defined]
                raise InputError(
                    f"{shown(path)} holds {frames} frames, and one image a file is wanted: save the one you mean"
                )
            yield image
    except CompanionError:
        raise
    except Image.DecompressionBombError:
        raise InputError(
            f"{shown(path)} has more pixels than the limit of {PIXEL_LIMIT}: make it smaller"
        ) from None
    except Exception as error:
        # A damaged file makes Pillow's decoders raise a dozen types.
        raise InputError(
            f"{shown(path)} cannot be read as an image ({type(error).__name__}): mend or remove it"
        ) from error


def check_pixels(path: Path, width: int, height: int) -> None:
    """Refuse an image that would take gigabytes to decode, before it is decoded."""
    if width * height > PIXEL_LIMIT:
        raise InputError(
            f"{shown(path)} has {width} x {height} pixels, over the limit of {PIXEL_LIMIT}: make it smaller"
        )


def probe(path: Path) -> Header:
    """Read a file's header; of a grey image of more than 8 bits its pixels too, for their highest value.

    Raises
    ------
    InputError
        If it is no image, is over `PIXEL_LIMIT`, or holds several frames.
    """
    if is_dicom(path):
        from companion.datasets import dicom

        return dicom.probe(path)
    with _opened(path) as image:
        highest = 0
        if image.mode in _SIXTEEN:
            values = np.asarray(image)
            if values.min() < 0 or values.max() > 65535:
                raise InputError(
                    f"{shown(path)}: grey values reach from {values.min()} to {values.max()}, outside 0 to 65535: "
                    "save it as an 8-bit or 16-bit image"
                )
            highest = int(values.max())
        return Header(image.width, image.height, image.mode, _is_grey(image), highest)


def _is_grey(image: Pillow.Image) -> bool:
    if image.mode == "P":
        colours = np.asarray(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((colours == colours[:, :1]).all())
    return image.mode in _GREY


def read(path: Path, size: int, *, grey: bool, bits: int = 16) -> np.ndarray:
    """Decode one file.

    Parameters
    ----------
    path
        PNG, JPEG, TIFF, BMP or DICOM.
    size
        Side of the result in pixels; the image is brought to a square, bilinear with antialiasing.
    grey
        Return grey; a colour image is converted by its luminance.
    bits
        Of grey images of more than 8 bits: the range 0 to 2 ** bits - 1 becomes 0 to 255.

    Returns
    -------
    numpy.ndarray
        uint8, (size, size) or (size, size, 3), upright as its EXIF orientation says.

    Raises
    ------
    InputError
        If the file cannot be read, or holds what has no one meaning as an image.
    """
    from PIL import Image, ImageOps

    if is_dicom(path):
        from companion.datasets import dicom

        upright = Image.fromarray(dicom.read(path))
    else:
        with _opened(path) as image:
            if image.format == "JPEG":
                image.draft(None, (2 * size, 2 * size))  # type: ignore[arg-type]  # a large one is decoded smaller
            upright = _plain(path, ImageOps.exif_transpose(image), bits)
    return np.asarray(upright.convert("L" if grey else "RGB").resize((size, size), Image.Resampling.BILINEAR))


def _plain(path: Path, image: Pillow.Image, bits: int) -> Pillow.Image:
    """Image of 8 bits a channel without transparency."""
    from PIL import Image

    if image.mode in _SIXTEEN or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        highest = 1 if image.mode == "F" else 2**bits - 1
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > highest:
            raise InputError(
                f"{shown(path)}: {'decimal' if image.mode == 'F' else 'grey'} values reach from {values.min():g} to "
                f"{values.max():g}, outside 0 to {highest}: save it as an 8-bit or 16-bit image"
            )
        return Image.fromarray((values * (255 / highest)).round().astype(np.uint8))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        pixels = np.asarray(image)
        alpha = pixels[..., 3]
        if alpha.min() == 255:
            return image
        if alpha.min() < alpha.max() and (pixels[..., :3] == pixels[0, 0, :3]).all():
            raise InputError(
                f"{shown(path)} has its picture in the transparency only: save it without an alpha channel"
            )
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image)
    return image


def in_parallel(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    what: str,
    progress: Progress | None = None,
) -> list[Result]:
    """Apply `work` to every item on several threads, in order; of several errors the first item's is raised.

    Pillow and pydicom's decoders let other threads run meanwhile. After an error or Ctrl-C nothing new begins.
    """
    step = max(1, min(64, len(items) // (4 * WORKERS)))
    blocks = [items[start : start + step] for start in range(0, len(items), step)]
    found: list[Result] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(WORKERS) as pool:
        # Remarks on odd metadata, and on sizes under the limit that is checked here.
        warnings.simplefilter("ignore")
        futures = [pool.submit(_each, work, block) for block in blocks]
        try:
            for future in futures:
                found += future.result()
                if progress:
                    progress(f"{what}: {len(found):,} of {len(items):,}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def _each(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [work(item) for item in items]


class ImageFiles:
    """Images that stay on disk and are decoded when they are asked for; otherwise like the array they would make.

    Parameters
    ----------
    paths
        The files.
    size, grey, bits
        As for `read`.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, paths: Sequence[Path], size: int, *, grey: bool, bits: int = 16) -> None:
        self.paths, self._options = list(paths), {"grey": grey, "bits": bits}
        self.shape = (len(self.paths), size, size) if grey else (len(self.paths), size, size, 3)

    @property
    def ndim(self) -> int:
        """3 for grey, 4 for RGB."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the array they would make."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> np.ndarray:
        if isinstance(index, tuple):
            return np.asarray(self)[index]
        chosen = np.arange(len(self))[index]
        if chosen.ndim == 0:
            return read(self.paths[int(chosen)], self.shape[1], **self._options)  # type: ignore[arg-type]
        return self.decode(chosen)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.decode(np.arange(len(self))).astype(dtype or self.dtype, copy=False)

    def decode(self, index: np.ndarray, *, progress: Progress | None = None) -> np.ndarray:
        """Images `index` as one array; each is decoded straight to its place."""
        out = np.empty((len(index), *self.shape[1:]), np.uint8)

        def place(position: int) -> None:
            path = self.paths[int(index[position])]
            out[position] = read(path, self.shape[1], **self._options)  # type: ignore[arg-type]

        in_parallel(place, range(len(index)), what="reading images", progress=progress)
        return out

    @functools.cached_property
    def digests(self) -> list[bytes]:
        """sha256 of the bytes of every file."""
        return in_parallel(file_digest, self.paths, what="hashing")

    def file_digest(self) -> bytes:
        """sha256 over the bytes of the files and the form they are decoded to."""
        total = hashlib.sha256(repr((self.shape, self._options)).encode())
        for digest in self.digests:
            total.update(digest)
        return total.digest()


def file_digest(path: Path) -> bytes:
    """sha256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
