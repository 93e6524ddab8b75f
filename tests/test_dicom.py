"""DICOM files: what their header fields do to the pixels, and which of them are refused."""

import io

import numpy as np
import pytest
from PIL import Image

from companion.datasets import images, inspect, load_dataset
from companion.errors import InputError
from image_files import dicom

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")

RAMP = np.tile(np.arange(0, 4096, 128, dtype=np.uint16), (32, 1))  # 12 bits
GREY = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))


def read(path, **options) -> np.ndarray:
    return images.read(path, 32, **({"grey": True} | options)).astype(int)


def test_the_stored_bits_are_the_range(tmp_path):
    found = read(dicom(tmp_path / "x.dcm", RAMP, BitsStored=12))
    np.testing.assert_allclose(found[0], RAMP[0].astype(int) * 255 / 4095, atol=0.51)
    signed = dicom(tmp_path / "y.dcm", (RAMP.astype(int) - 2048).astype(np.int16), BitsStored=12)
    np.testing.assert_allclose(read(signed)[0], found[0], atol=1)


def test_monochrome1_is_inverted(tmp_path):
    up, down = (
        read(dicom(tmp_path / f"{kind}.dcm", GREY, PhotometricInterpretation=kind))
        for kind in ("MONOCHROME2", "MONOCHROME1")
    )
    assert (up + down == 255).all() and up[0, 0] == 0


def test_a_window_is_in_units_after_rescaling(tmp_path):
    # Stored 1024 is 0 after the intercept: the window -100 to 100 is stored 924 to 1124.
    pixels = np.tile(np.array([0, 900, 1024, 1150, 4095], np.uint16).repeat(8), (40, 1))
    scale = {"BitsStored": 12, "RescaleSlope": 1, "RescaleIntercept": -1024}
    path = dicom(tmp_path / "x.dcm", pixels, **scale, WindowCenter=[0, 500], WindowWidth=[200, 100])
    found = images.read(path, 28, grey=True)[0, [2, 8, 14, 20, 26]]
    np.testing.assert_allclose(found, [0, 0, 128, 255, 255], atol=2)


def test_colour_is_kept(tmp_path):
    red = np.full((32, 32, 3), (250, 10, 20), np.uint8)
    path = dicom(tmp_path / "x.dcm", red)
    assert not images.probe(path).grey and images.probe(path).mode == "DICOM RGB 8 bits"
    assert (read(path, grey=False) == red).all()
    planes = dicom(
        tmp_path / "y.dcm", np.ascontiguousarray(np.moveaxis(red, 2, 0)), PlanarConfiguration=1, Rows=32,
        Columns=32, SamplesPerPixel=3, PhotometricInterpretation="RGB",
    )  # fmt: skip
    assert (read(planes, grey=False) == red).all()


def test_pixels_stored_as_jpeg_are_decoded(tmp_path):
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit

    red, stream = np.full((32, 32, 3), (250, 10, 20), np.uint8), io.BytesIO()
    Image.fromarray(red).save(stream, "JPEG", quality=95)
    data = pydicom.dcmread(dicom(tmp_path / "x.dcm", red))
    data.file_meta.TransferSyntaxUID, data.PhotometricInterpretation = JPEGBaseline8Bit, "YBR_FULL_422"
    data.PixelData = encapsulate([stream.getvalue()])
    data["PixelData"].VR = "OB"
    data.save_as(tmp_path / "x.dcm")
    np.testing.assert_allclose(read(tmp_path / "x.dcm", grey=False), red, atol=3)


def test_files_without_a_suffix_are_known_by_their_mark(tmp_path):
    path = dicom(tmp_path / "a" / "IM0001", GREY)
    assert images.is_dicom(path) and images.probe(path).width == 32
    assert images.is_dicom(path.rename(tmp_path / "1.2.840.7"))
    (tmp_path / "README").write_text("no picture")
    assert not images.is_dicom(tmp_path / "README")


def _scans(root, patients, *, split=""):
    for index, patient in enumerate(patients):
        pixels = np.full((32, 32), index, np.uint8)
        dicom(root / split / "ab"[index % 2] / f"IM{index}", pixels, PatientID=patient)
    return root


def test_patients_of_the_headers_stay_in_one_split(tmp_path):
    root = _scans(tmp_path / "scans", [f"P{index // 4}" for index in range(48)])
    facts = inspect(root)
    assert facts.patients == 12 and not facts.official_split
    found = load_dataset(root, size=28)
    brightness = {split: set((pixels[:, 0, 0] // 4).tolist()) for split, pixels in found.images.items()}
    assert sum(map(len, brightness.values())) == 12  # the pixels say whose they are


@pytest.mark.parametrize(("test", "fine"), [(["P2", "P3"], False), (["ANON"] * 2, True)])
def test_a_patient_in_two_given_splits_is_refused_unless_all_have_one_name(tmp_path, test, fine):
    _scans(tmp_path / "scans", ["ANON"] * 4 if fine else ["P1", "P2", "P1", "P2"], split="train")
    _scans(tmp_path / "scans", test, split="test")
    if fine:
        assert load_dataset(tmp_path / "scans", size=28).official_split
        return
    with pytest.raises(InputError, match="patient 'P2' is in train and test"):
        load_dataset(tmp_path / "scans", size=28)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"NumberOfFrames": 2}, "holds 2 frames, and one image a file is wanted: save the one you mean"),
        ({"PhotometricInterpretation": "HSV"}, "photometric interpretation HSV, which is not read"),
        ({"Rows": 60_000, "Columns": 60_000}, "60000 x 60000 pixels, over the limit"),
        ({"BitsAllocated": 12}, "pixels that cannot be decoded.* install"),
    ],
    ids=["frames", "interpretation", "bomb", "bits"],
)
def test_what_is_not_read_is_refused_with_advice(tmp_path, fields, says):
    pixels = np.zeros((2, 32, 32), np.uint8) if "NumberOfFrames" in fields else GREY
    path = dicom(tmp_path / "x.dcm", pixels, **fields)
    with pytest.raises(InputError, match=says):
        images.read(path, 28, grey=True)


def test_damaged_and_deflated_files_are_refused(tmp_path):
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    path = dicom(tmp_path / "x.dcm", GREY)
    whole, data = path.read_bytes(), pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(path)
    for content, says in (
        (path.read_bytes(), "is stored deflated, which is not read"),  # before it is unpacked
        (b"", "cannot be read as DICOM"),
        (b"no such thing", "cannot be read as DICOM"),
        (whole[:-500], "has pixels that cannot be decoded"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=says) as caught:
            images.probe(path) if "deflated" in says else images.read(path, 28, grey=True)
        assert "\n" not in str(caught.value)
