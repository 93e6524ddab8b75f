"""DICOM files become pixels of 8 bits; pydicom reads, this module decides what of the standard is followed.

Rescale slope and intercept (or the modality table) are applied, then the first window (or table of values of
interest); without one the whole range of the stored bits is kept. MONOCHROME1 is turned round, so that high is
bright. Files of several frames are refused: which of them is the image is not for this package to say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from companion.datasets.images import Header, check_pixels, shown
from companion.errors import CompanionError, InputError, require_extra

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def _header(path: Path, *, pixels: bool) -> Any:
    pydicom = require_extra("pydicom", "dicom")
    try:
        syntax = pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID")
        # It would be unpacked whole, whatever its size, to be looked at.
        if syntax is not None and syntax.is_deflated:
            raise InputError(f"{shown(path)} is stored deflated, which is not read: export it uncompressed")
        found = pydicom.dcmread(path, stop_before_pixels=not pixels)
        missing = [name for name in ("Rows", "Columns", "PhotometricInterpretation") if name not in found]
        frames = int(found.get("NumberOfFrames") or 1)
    except InputError:
        raise
    except Exception as error:
        # A damaged file makes pydicom raise a dozen types.
        raise InputError(
            f"{shown(path)} cannot be read as DICOM ({type(error).__name__}): mend or remove it"
        ) from error
    if missing:
        raise InputError(
            f"{shown(path)} holds no image ({found.get('Modality', 'no modality')}): take it out of the folder"
        )
    if frames > 1:
        raise InputError(
            f"{shown(path)} holds {frames} frames, and one image a file is wanted: write the frame you mean to a "
            "file of its own (pydicom.pixels.iter_pixels reads them one by one)"
        )
    kind = found.PhotometricInterpretation
    if kind not in (*_GREY, *_COLOUR):
        raise InputError(
            f"{shown(path)} has photometric interpretation {kind}, which is not read: export it as PNG"
        )
    check_pixels(path, int(found.Columns), int(found.Rows))
    return found


def probe(path: Path) -> Header:
    """Read the header; see `companion.datasets.images.probe`.

    Raises
    ------
    InputError
        If it is no DICOM file, holds no or several images, or is of a kind that is not read.
    EnvironmentFailure
        If pydicom is missing.
    """
    found = _header(path, pixels=False)
    kind = found.PhotometricInterpretation
    return Header(
        width=int(found.Columns),
        height=int(found.Rows),
        mode=f"DICOM {kind} {found.get('BitsStored', '?')} bits",
        grey=kind in _GREY,
        patient=str(found.get("PatientID") or ""),
    )


def read(path: Path) -> np.ndarray:
    """Pixels of a DICOM file.

    Returns
    -------
    numpy.ndarray
        uint8, (rows, columns) or (rows, columns, 3).

    Raises
    ------
    InputError, EnvironmentFailure
        As for `probe`; also if the pixels cannot be decoded.
    """
    found = _header(path, pixels=True)
    try:
        if found.PhotometricInterpretation in _GREY:
            return _grey(found)
        return _colour(found)
    except CompanionError:
        raise
    except Exception as error:
        syntax = getattr(found.file_meta.get("TransferSyntaxUID"), "name", "an unknown way")
        raise InputError(
            f"{shown(path)}: its pixels cannot be decoded (stored as {syntax}): export it uncompressed, or install "
            "pydicom's decoders with  pip install 'pylibjpeg[all]'"
        ) from error


def _grey(found: Any) -> np.ndarray:
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    values = apply_voi_lut(apply_modality_lut(found.pixel_array, found), found).astype(np.float64)
    low, high = _range(found)
    scaled = np.clip((values - low) / (high - low), 0, 1) * 255
    if found.PhotometricInterpretation == "MONOCHROME1":
        scaled = 255 - scaled
    return scaled.round().astype(np.uint8)


def _range(found: Any) -> tuple[float, float]:
    """What a grey value can be after rescaling and windowing."""
    from pydicom.pixels.processing import apply_modality_lut

    if "VOILUTSequence" in found:
        return 0.0, 2.0 ** found.VOILUTSequence[0].LUTDescriptor[2] - 1
    if "ModalityLUTSequence" in found:
        return 0.0, 2.0 ** found.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    bits, signed = int(found.BitsStored), found.PixelRepresentation == 1
    ends = np.array(
        [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1], dtype=np.float64
    )
    low, high = sorted(float(end) for end in apply_modality_lut(ends, found))
    return (low, high) if low < high else (low, low + 1)


def _colour(found: Any) -> np.ndarray:
    from pydicom.pixels.processing import apply_color_lut

    values = found.pixel_array  # pydicom has turned YBR to RGB
    bits = int(found.BitsStored)
    if found.PhotometricInterpretation == "PALETTE COLOR":
        bits = int(found.RedPaletteColorLookupTableDescriptor[2])
        values = apply_color_lut(values, found)
    return (values.astype(np.float64) * (255 / (2**bits - 1))).round().astype(np.uint8)
