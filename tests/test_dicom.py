"""DICOM files: their pixels are those of any other file, their scale is known, and their patient stays unknown."""

from __future__ import annotations

import json
import logging
import warnings

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from support.dicom import PATIENT, dicom
from support.pictures import COLOURS, GREY, GREY_AS_RGB, PHOTO, encode
from support.stand_in import DarkOnGreen
from support.synthetic import draw_fundus

from resegnet import Config, Segmenter
from resegnet.__main__ import main
from resegnet.errors import ImageError, MissingExtraError
from resegnet.image import read_image, read_picture
from resegnet.quality import BURNED_IN

WIDE = PHOTO.astype(np.uint16) * 257


@pytest.fixture
def segmenter():
    return Segmenter(DarkOnGreen(), Config(input_size=96, threshold=0.5), "a/model@v1")


def palette(bits: int) -> dict[str, object]:
    """Return the elements of a palette that turns grey levels into their negative in red, and black in the others."""
    levels = np.arange(256)[::-1]
    tables = {"Red": levels, "Green": 0 * levels, "Blue": 0 * levels}
    elements: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, values in tables.items():
        entries = values.astype(np.uint8) if bits == 8 else values.astype("<u2") * 257
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        elements[f"{colour}PaletteColorLookupTableData"] = entries.tobytes()
    return elements


RED_NEGATIVE = np.dstack([255 - GREY, 0 * GREY, 0 * GREY])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (dicom(PHOTO), PHOTO),
        (dicom(PHOTO, ImplicitVRLittleEndian), PHOTO),
        (dicom(PHOTO, ExplicitVRBigEndian), PHOTO),
        (dicom(PHOTO, RLELossless), PHOTO),
        (dicom(np.stack([PHOTO, PHOTO[::-1]])), PHOTO),
        (dicom(PHOTO.transpose(2, 0, 1).reshape(PHOTO.shape), PlanarConfiguration=1), PHOTO),
        (dicom(WIDE), PHOTO),
        (dicom(WIDE >> 4, BitsStored=12), PHOTO),
        (dicom(GREY), GREY_AS_RGB),
        (dicom(GREY, RLELossless), GREY_AS_RGB),
        (dicom(WIDE[..., 0] >> 6, BitsStored=10), GREY_AS_RGB),
        (dicom(255 - GREY, PhotometricInterpretation="MONOCHROME1"), GREY_AS_RGB),
        (dicom(GREY, **palette(8)), RED_NEGATIVE),
        (dicom(GREY, **palette(16)), RED_NEGATIVE),
        (dicom(GREY, ImplicitVRLittleEndian, **palette(16)), RED_NEGATIVE),
        (dicom(PHOTO[:31, :33]), PHOTO[:31, :33]),
    ],
    ids=[
        *("explicit", "implicit", "big endian", "run lengths", "frames", "planes", "16 bit", "12 bit", "grey"),
        *("grey run lengths", "10 bit grey", "negative", "palette", "wide palette", "implicit palette", "odd length"),
    ],
)
def test_uncompressed_pixels(data, expected):
    image = read_image(data)
    assert image.dtype == np.uint8 and image.flags.c_contiguous and image.flags.writeable
    np.testing.assert_array_equal(image, expected)


def test_ybr_without_compression():
    ybr = convert_color_space(PHOTO, "RGB", "YBR_FULL")
    whole = read_image(dicom(ybr, PhotometricInterpretation="YBR_FULL"))
    assert np.abs(whole.astype(int) - PHOTO).max() <= 2  # rounded twice
    # Two pixels side by side share their colour: luma, luma, blue, red.
    halved = np.stack([ybr[:, ::2, 0], ybr[:, 1::2, 0], ybr[:, ::2, 1], ybr[:, ::2, 2]], axis=2)
    content = halved.tobytes()
    image = read_image(dicom(ybr, PhotometricInterpretation="YBR_FULL_422", PixelData=content))
    np.testing.assert_array_equal(image, whole)


def without_jfif(jpeg: bytes) -> bytes:
    assert jpeg[2:4] == b"\xff\xe0"
    return jpeg[:2] + jpeg[4 + int.from_bytes(jpeg[4:6], "big") :]


ADOBE_YCC = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01"
BEST = {"quality": 98, "subsampling": 0}
JPEG = encode(Image.fromarray(PHOTO), "JPEG", **BEST)
AS_IT_IS = encode(Image.frombytes("YCbCr", (64, 32), PHOTO.tobytes()), "JPEG", **BEST)  # red, green, blue inside


@pytest.mark.parametrize(
    ("frame", "colours"),
    [
        (JPEG, "YBR_FULL_422"),
        (JPEG, "RGB"),  # of many cameras; JFIF's mark says YCbCr
        (without_jfif(JPEG), "YBR_FULL_422"),
        (JPEG[:2] + ADOBE_YCC + JPEG[2:], "YBR_FULL"),
        (without_jfif(AS_IT_IS), "RGB"),
        (encode(Image.fromarray(PHOTO), "JPEG", progressive=True, **BEST), "YBR_FULL_422"),
    ],
    ids=["usual", "said to be RGB", "without JFIF", "Adobe", "RGB", "progressive"],
)
def test_jpeg(frame, colours):
    data = dicom(PHOTO, JPEGBaseline8Bit, [frame], PhotometricInterpretation=colours)
    middles = read_image(data)[8::16, 8::16]
    assert np.abs(middles.astype(int) - COLOURS).max() <= 6


def test_grey_and_negative_jpeg():
    for pixels, colours in ((GREY, "MONOCHROME2"), (255 - GREY, "MONOCHROME1")):
        frame = encode(Image.fromarray(pixels), "JPEG", quality=98)
        image = read_image(dicom(pixels, JPEGBaseline8Bit, [frame], PhotometricInterpretation=colours))
        assert np.abs(image[8::16, 8::16].astype(int) - GREY_AS_RGB[8::16, 8::16]).max() <= 6


def test_jpeg_2000():
    frame = encode(Image.fromarray(PHOTO), "JPEG2000", no_jp2=True, mct=1)
    for syntax, colours in ((JPEG2000Lossless, "YBR_RCT"), (JPEG2000, "RGB")):
        np.testing.assert_array_equal(
            read_image(dicom(PHOTO, syntax, [frame], PhotometricInterpretation=colours)), PHOTO
        )
    ybr = convert_color_space(PHOTO, "RGB", "YBR_FULL")
    frame = encode(Image.fromarray(ybr), "JPEG2000", no_jp2=True, mct=0)
    found = read_image(dicom(PHOTO, JPEG2000Lossless, [frame], PhotometricInterpretation="YBR_FULL"))
    assert np.abs(found.astype(int) - PHOTO).max() <= 3  # rounded twice
    wide = encode(Image.fromarray(WIDE[..., 0]), "JPEG2000", no_jp2=True)
    np.testing.assert_array_equal(read_image(dicom(WIDE[..., 0], JPEG2000Lossless, [wide])), GREY_AS_RGB)


def test_the_first_of_compressed_frames_also_in_pieces():
    first, second = (encode(Image.fromarray(array), "JPEG2000", no_jp2=True) for array in (PHOTO, 255 - PHOTO))
    both = dicom(PHOTO, JPEG2000Lossless, [first, second], NumberOfFrames=2)
    pieces = dicom(PHOTO, JPEG2000Lossless, [], PixelData=encapsulate([first], fragments_per_frame=3))
    for data in (both, pieces):
        np.testing.assert_array_equal(read_image(data), PHOTO)


# --- the scale


@pytest.mark.parametrize(
    ("spacing", "um_per_px"),
    [
        ([0.0052, 0.0052], 5.2),
        (["0.00520", "0.00521"], 5.205),
        (None, None),
        ([0.005, 0.006], None),  # not square
        ([0, 0], None),
        ([-0.005, -0.005], None),
        ([0.3, 0.3], None),  # of a screen
        ([1, 1], None),
        ([0.005, 0.005, 0.005], None),
        (0.005, None),
    ],
)
def test_the_scale_is_that_of_a_retina_or_none(spacing, um_per_px):
    found = read_picture(dicom(PHOTO, PixelSpacing=spacing)).um_per_px
    assert found == (None if um_per_px is None else pytest.approx(um_per_px, rel=1e-4))


def test_a_spacing_that_makes_the_frame_wider_than_an_eye_is_no_scale():
    wide = np.zeros((8, 2000, 3), np.uint8)
    assert read_picture(dicom(wide, PixelSpacing=[0.02, 0.02])).um_per_px == 20
    assert read_picture(dicom(wide, PixelSpacing=[0.0847, 0.0847])).um_per_px is None  # 300 dpi


def test_text_for_a_scale_spoils_no_picture():
    data = dicom(PHOTO, PixelSpacing=[0.0052, 0.0052])
    for text in (b"Jane\\Jane    ", b"nan\\nan      ", b"1e999\\1e999  "):
        broken = data.replace(b"0.0052\\0.0052 "[:13], text[:13])
        assert broken != data
        picture = read_picture(broken)
        assert picture.um_per_px is None
        np.testing.assert_array_equal(picture.pixels, PHOTO)


def test_the_scale_reaches_the_measures_where_none_is_given(segmenter):
    eye = draw_fundus(1, (130, 140)).image
    result = segmenter(dicom(eye, PixelSpacing=[0.008, 0.008]))
    assert result.um_per_px == 8
    numbers = result.measure()
    assert numbers["calibre_mean_um"] == pytest.approx(8 * numbers["calibre_mean_px"])
    assert result.measure(2)["calibre_mean_um"] == pytest.approx(2 * numbers["calibre_mean_px"])
    assert "calibre_mean_um" not in segmenter(eye).measure()
    assert result.at(0.6).um_per_px == 8


def test_text_in_the_picture_is_warned_of(segmenter):
    eye = draw_fundus(1, (130, 140)).image
    plain = segmenter(dicom(eye, BurnedInAnnotation="NO")).warnings
    assert BURNED_IN not in plain
    assert segmenter(dicom(eye, BurnedInAnnotation="YES")).warnings == (BURNED_IN, *plain)


# --- nothing personal


def revealed(text: str | bytes) -> list[str]:
    """Return the words of the patient's elements that stand in a text."""
    content = text if isinstance(text, bytes) else text.encode()
    words = [word for value in PATIENT.values() for word in value.replace("^", " ").split() if len(word) > 3]
    assert len(words) > 10
    return [word for word in words if word.encode() in content]


def test_the_patient_stays_in_the_file(segmenter, tmp_path, monkeypatch, capsys, caplog):
    caplog.set_level(logging.DEBUG)
    eye = draw_fundus(1, (130, 140)).image
    data = dicom(eye, PixelSpacing=[0.008, 0.008])
    assert revealed(data) and revealed("seen by Quack")  # the check itself
    (tmp_path / "eyes").mkdir()
    (tmp_path / "eyes/1.dcm").write_bytes(data)
    (tmp_path / "eyes/2.dcm").write_bytes(data[: len(data) // 2])
    (tmp_path / "eyes/3.dcm").write_bytes(dicom(eye, JPEGLosslessSV1, [b"\xff\xd8" + PATIENT["PatientName"].encode()]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda *_, **__: segmenter)
    assert main(["segment", "eyes", "--out", "out", "--probability"]) == 1
    segmenter("eyes/1.dcm").save("saved", "eye")
    files = [path for folder in ("out", "saved") for path in (tmp_path / folder).rglob("*") if path.is_file()]
    assert len(files) >= 12
    for path in files:
        assert not revealed(path.read_bytes()), path
        assert not revealed(str(path))
    said = capsys.readouterr()
    assert not revealed(said.out + said.err + caplog.text)
    assert json.loads((tmp_path / "out/records/1.json").read_text())["row"]["um_per_px"] == 8
    assert json.loads((tmp_path / "saved/eye_summary.json").read_text())["um_per_px"] == 8


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEGBaseline8Bit])
def test_damaged_files_reveal_nothing(syntax, caplog, recwarn):
    caplog.set_level(logging.DEBUG)
    data = dicom(PHOTO, syntax, [JPEG] if syntax == JPEGBaseline8Bit else None, PixelSpacing=[0.008, 0.008])
    random = np.random.default_rng(3)
    messages = []
    for _ in range(300):
        altered = bytearray(data[: random.integers(132, len(data) + 1)])
        for place in random.integers(132, len(altered), 3) if len(altered) > 132 else []:
            altered[place] = random.integers(256)
        try:
            read_picture(bytes(altered))
        except ImageError as error:
            messages.append(f"{error} {error.__cause__!r} {error.__context__!r}")
    assert len(messages) > 50
    assert not [message for message in messages if revealed(message)]
    assert not revealed(caplog.text)
    assert not [str(warning.message) for warning in recwarn]


def test_logs_and_warnings_of_pydicom_are_as_before(caplog):
    read_image(dicom(PHOTO))
    logging.getLogger("pydicom").warning("of the caller's own use")
    assert "own use" in caplog.text
    with pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)


# --- files that are refused

# Values of 12 bit in a frame that says 16: a decoder would take them for nearly black.
WIDER = encode(Image.fromarray(WIDE[..., 0] >> 4), "JPEG2000", no_jp2=True)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (dicom(PHOTO, JPEGLosslessSV1, [JPEG]), "compression that is not read"),
        (dicom(PHOTO, JPEGLSLossless, [JPEG]), "compression that is not read"),
        (dicom(PHOTO, DeflatedExplicitVRLittleEndian), "compression that is not read"),
        (dicom(PHOTO, "1.2.840.10008.1.2.4.203", [JPEG]), "compression that is not read"),
        (dicom(PHOTO, PixelData=None), "without a photograph"),
        (dicom(PHOTO, Rows=None), "without a photograph"),
        (dicom(PHOTO, Rows=0), "64 x 0 pixels"),
        (dicom(PHOTO, Rows=33), "damaged"),
        (dicom(PHOTO, NumberOfFrames=2), "damaged"),
        (dicom(PHOTO, Rows=65535, Columns=65535), "larger than 64 megapixels"),
        (dicom(PHOTO, SamplesPerPixel=4), "rare layout"),
        (dicom(PHOTO, PhotometricInterpretation="YBR_PARTIAL_422"), "rare layout"),
        (dicom(GREY, PixelRepresentation=1), "rare layout"),
        (dicom(GREY.astype(np.uint32), BitsStored=32), "rare layout"),
        (dicom(GREY, BitsStored=4), "rare layout"),
        (dicom(GREY, PhotometricInterpretation="PALETTE COLOR"), "damaged"),
        (dicom(PHOTO, JPEGBaseline8Bit, [JPEG], Rows=31), "contradicts itself"),
        (dicom(WIDE[..., 0] >> 4, JPEG2000Lossless, [WIDER], BitsStored=12), "frames of 12 bit as it says, got 16"),
        (dicom(PHOTO, JPEG2000Lossless, [WIDER[:40]]), "cannot be (identified|decoded)"),
        (dicom(PHOTO, JPEGBaseline8Bit, [JPEG[:300]]), "cannot be decoded"),
        (dicom(PHOTO, JPEGBaseline8Bit, [encode(Image.fromarray(PHOTO), "PNG")]), "cannot be identified"),
        (dicom(PHOTO, JPEGBaseline8Bit, []), "cannot be identified|damaged"),
        (bytes(128) + b"DICM", "damaged"),
    ],
)
def test_what_is_no_photograph_is_refused(data, words):
    with pytest.raises(ImageError, match=rf"^The file .*({words}).*\.$"):
        read_image(data)


def test_a_missing_extra_is_an_image_error_with_the_command(monkeypatch):
    monkeypatch.setattr("resegnet.errors.find_spec", lambda _: None)
    with pytest.raises(
        ImageError, match=r'^pydicom is not installed, and reading .* `pip install "resegnet\[dicom\]"`\.$'
    ) as caught:
        read_image(dicom(PHOTO))
    assert isinstance(caught.value, MissingExtraError)
    read_image(PHOTO)


def test_heic_is_told_from_damage():
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    with pytest.raises(ImageError, match=r"^The file is a HEIC picture, which is not read;.*: save it as JPEG\.$"):
        read_image(head + bytes(100))
