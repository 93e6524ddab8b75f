"""Writers of small image files, and of what must never be unpickled, for tests."""

import zlib
from pathlib import Path

import numpy as np
from PIL import Image


class Malicious:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def picture(path: Path, values: np.ndarray | Image.Image | None = None, **options) -> Path:
    """Write an image; by default 30 x 40 grey pixels that depend on the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if values is None:
        values = (
            np.random.default_rng(zlib.crc32(path.name.encode())).integers(0, 256, (30, 40)).astype(np.uint8)
        )
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    image.save(path, **options)
    return path


def folder(root: Path, counts: dict[str, int]) -> Path:
    """Write class folders with so many images each."""
    for name, count in counts.items():
        for index in range(count):
            picture(root / name / f"{name}-{index}.png")
    return root


def manifest(root: Path, rows: list[tuple], *, header: str = "path,label", name: str = "list.csv") -> Path:
    """Write a manifest, and the images that its first column names and that are not there."""
    separator = next(mark for mark in ",;\t" if mark in header)
    for path, *_ in rows:
        target = root / path
        if not target.exists() and ".." not in Path(path).parts and not Path(path).is_absolute():
            picture(target)
    lines = [header, *(separator.join(map(str, row)) for row in rows)]
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root / name


def dicom(path: Path, pixels: np.ndarray, **fields) -> Path:
    """Write a DICOM file; the calling module skips its tests where pydicom is missing."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    frame = pixels if fields.get("NumberOfFrames", 1) == 1 else pixels[0]
    data.Rows, data.Columns = frame.shape[:2]
    data.SamplesPerPixel = 3 if frame.ndim == 3 else 1
    data.PhotometricInterpretation = "RGB" if frame.ndim == 3 else "MONOCHROME2"
    if frame.ndim == 3:
        data.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    for name, value in fields.items():
        setattr(data, name, value)
    if "BitsStored" in fields:
        data.HighBit = data.BitsStored - 1
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path
