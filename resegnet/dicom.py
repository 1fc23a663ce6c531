"""Reads a DICOM file: its first frame, the scale, and whether text is burned in.

A DICOM file says whose eye it shows. Nothing of that leaves this module: pydicom parses only the elements listed here,
and its warnings, log lines and errors, which may quote any value, are dropped. `pip install "resegnet[dicom]"`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resegnet.errors import ImageError
from resegnet.picture_checks import MeteredFile, check_size, quiet_decoding

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_ELEMENTS = [
    *("BurnedInAnnotation", "PixelSpacing", "NumberOfFrames", "Rows", "Columns", "PixelData"),
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "PixelRepresentation"),
    *("BitsAllocated", "BitsStored", "HighBit"),
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for part in ("Descriptor", "Data")
    ),
]

# Transfer syntaxes by UID: DICOM PS3.5, annex A.
_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_RUN_LENGTHS = "1.2.840.10008.1.2.5"
_JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91))
_BY_PILLOW = (*(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51)), *_JPEG_2000)  # JPEG too

_GREY = ("MONOCHROME1", "MONOCHROME2")
_PALETTE = "PALETTE COLOR"
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422")
_COLOURS_OF_JPEG = (*_COLOURS, "YBR_ICT", "YBR_RCT")

# pydicom unpacks run lengths in Python, 0.1 s for a megabyte of noise and 0.3 s for one that is made to take long.
_MAX_RUN_LENGTH_BYTES = 12_000_000
_MAX_OFFSETS_BYTES = 400_000  # of the table of 100,000 frames; pydicom turns each of its entries into an object
_TILE_ROWS = 256  # converted at a time: pydicom converts colours in floats

# A camera's field of 20 to 200 degrees is 6 to 40 mm wide, and has 500 to 10,000 px.
_PLAUSIBLE_UM = (0.5, 100.0)
_WIDEST_MM = 50.0  # of a frame; the spacing of a screen or a print makes it several times as wide
_SQUARE = 0.01  # largest difference of a pixel's sides that is one of rounding

# Tells a JPEG decoder that the components are red, green and blue. Without it, and without JFIF's mark, a decoder takes
# them for YCbCr, whatever the DICOM file says.
_ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"


@dataclass(frozen=True)
class DicomPicture:
    """The first frame of a DICOM file.

    Attributes
    ----------
    height, width
        px.
    pixels : (H, W) or (H, W, 3) uint8, grey or RGB
        None if the frame is compressed.
    frame
        A JPEG or JPEG 2000 file; None if there are `pixels`.
    is_negative
        True if 0 is white.
    is_ybr
        True if the decoded frame holds YCbCr, not RGB.
    um_per_px
        Micrometres on the retina for a pixel; None if the file gives none, or one that no photograph has.
    burned_in
        True if the file says that text is part of the picture.
    """

    height: int
    width: int
    pixels: np.ndarray | None
    frame: bytes | None
    is_negative: bool
    is_ybr: bool
    um_per_px: float | None
    burned_in: bool


def is_dicom(data: bytes) -> bool:
    """Tell whether a file begins as DICOM files do."""
    return data[128:132] == b"DICM"


def read_dicom(data: bytes, name: str, max_pixels: int) -> DicomPicture:
    """Read the first frame of a DICOM file, decoded unless it is JPEG or JPEG 2000.

    Parameters
    ----------
    data
        The file.
    name
        Name of the file for a message.
    max_pixels
        A larger picture is refused by its header.

    Raises
    ------
    ImageError
        If there is no such picture. The message holds nothing from the file but its size in pixels.
    """
    picture = None
    with quiet_decoding(), _without_log():
        try:
            picture = _read(data, name, max_pixels)
        except ImageError:
            raise
        except Exception:  # pydicom raises many kinds of errors, and they quote the file
            pass
    if picture is None:  # raised here, so that no error of pydicom is its context
        raise ImageError(
            f"{name} is a damaged DICOM file, or one without a photograph; expected one picture: export it again, or "
            "as PNG."
        )
    return picture


@contextmanager
def _without_log() -> Iterator[None]:
    """Drop what pydicom logs."""
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "pydicom"]
    loggers = {logging.getLogger(name) for name in ("pydicom", *names)}
    before = {logger: logger.disabled for logger in loggers}
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, was_disabled in before.items():
            logger.disabled = was_disabled


def _read(data: bytes, name: str, max_pixels: int) -> DicomPicture:
    from pydicom import dcmread

    if _DEFLATED in data:  # pydicom would inflate the file, to any size, before it can be checked
        raise _compressed(name)
    dataset = dcmread(MeteredFile(data, name), specific_tags=[*_ELEMENTS])
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    height, width = int(dataset.Rows), int(dataset.Columns)
    check_size((height, width), name, max_pixels)
    is_jpeg = syntax in _BY_PILLOW
    if not is_jpeg and syntax not in (*_UNCOMPRESSED, _RUN_LENGTHS):
        raise _compressed(name)
    _check_layout(dataset, name, is_jpeg)
    pixels, frame, is_ybr = None, None, False
    if is_jpeg:
        frame = _first_frame(dataset, name)
        if syntax in _JPEG_2000:
            is_ybr = _check_codestream(frame, dataset, name)
        elif (
            dataset.PhotometricInterpretation == "RGB"
            and frame.startswith(b"\xff\xd8")
            and b"Adobe" not in frame[:1000]
        ):
            frame = frame if b"JFIF" in frame[:1000] else frame[:2] + _ADOBE_RGB + frame[2:]
    else:
        pixels = _decode(dataset, name, runs=syntax == _RUN_LENGTHS)
    return DicomPicture(
        height=height,
        width=width,
        pixels=pixels,
        frame=frame,
        is_negative=dataset.PhotometricInterpretation == "MONOCHROME1",
        is_ybr=is_ybr,
        um_per_px=_scale(dataset, max(height, width)),
        burned_in=str(dataset.get("BurnedInAnnotation", "")).strip().upper() == "YES",
    )


def _compressed(name: str) -> ImageError:
    return ImageError(
        f"{name} is a DICOM file of a compression that is not read; expected none, run lengths, JPEG or JPEG 2000: "
        "export it uncompressed."
    )


def _check_layout(dataset: Dataset, name: str, is_jpeg: bool) -> None:
    """Refuse pixels that are neither grey nor colours of 8 to 16 bit.

    Raises
    ------
    ImageError
        If they are not.
    """
    colours = _COLOURS_OF_JPEG if is_jpeg else _COLOURS
    allowed = {1: _GREY if is_jpeg else (*_GREY, _PALETTE), 3: colours}
    stored, allocated = dataset.BitsStored, dataset.BitsAllocated
    if (
        dataset.PhotometricInterpretation not in allowed.get(dataset.SamplesPerPixel, ())
        or not (8 <= stored <= allocated and allocated in (8, 16))
        or dataset.get("HighBit", stored - 1) != stored - 1
        or dataset.get("PixelRepresentation", 0) != 0
    ):
        raise ImageError(
            f"{name} is a DICOM file of a rare layout; expected 8 to 16 bit without sign, grey, RGB, YBR or palette: "
            "export it as PNG."
        )


def _first_frame(dataset: Dataset, name: str) -> bytes:
    """Return the first of the encapsulated frames."""
    from pydicom.encaps import get_frame

    content = dataset.PixelData
    if int.from_bytes(content[4:8], "little") > _MAX_OFFSETS_BYTES:
        raise ImageError(f"{name} is a DICOM file of too many frames; expected one photograph: export it by itself.")
    frames = int(dataset.get("NumberOfFrames") or 1)
    return get_frame(MeteredFile(content, name), 0, number_of_frames=frames)


def _check_codestream(frame: bytes, dataset: Dataset, name: str) -> bool:
    """Tell whether a JPEG 2000 frame decodes to YCbCr: a decoder undoes only the transform that the codestream states.

    Raises
    ------
    ImageError
        If a sample has more bits than the DICOM file says, so that its values would be taken for darker ones.
    """
    start = frame.find(b"\xff\x4f\xff\x51")  # ISO/IEC 15444-1, A.5 and A.6: SOC, SIZ, ..., COD
    if start < 0 or len(frame) < start + 43:
        return False  # the decoder refuses it
    bits = frame[start + 42] % 128 + 1
    if bits > dataset.BitsStored:
        raise ImageError(
            f"{name} is a DICOM file of a rare layout; expected frames of {dataset.BitsStored} bit as it says, got "
            f"{bits}: export it as PNG."
        )
    at = start + 2
    while frame[at : at + 1] == b"\xff" and frame[at + 1 : at + 2] not in (b"\x52", b"\x90", b""):
        at += 2 + int.from_bytes(frame[at + 2 : at + 4])
    is_transformed = frame[at + 8 : at + 9] == b"\x01"
    return str(dataset.PhotometricInterpretation).startswith("YBR_FULL") and not is_transformed


def _decode(dataset: Dataset, name: str, runs: bool) -> np.ndarray:
    """Decode the first frame: (H, W) or (H, W, 3) uint8, grey or RGB."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels import apply_color_lut, convert_color_space, pixel_array

    if runs:
        frame = _first_frame(dataset, name)
        if len(frame) > _MAX_RUN_LENGTH_BYTES:
            raise _compressed(name)
        dataset.PixelData, dataset.NumberOfFrames = encapsulate([frame]), 1
    # A view, since 64 megapixels of 16-bit colour are 400 MB.
    values = pixel_array(dataset, index=0, raw=True, view_only=True, decoding_plugin="pydicom" if runs else "")
    colours, stored = dataset.PhotometricInterpretation, int(dataset.BitsStored)
    is_ybr = colours.startswith("YBR")
    if colours == _PALETTE:
        return _as_8_bit(apply_color_lut(np.arange(1 << stored, dtype=np.uint16), dataset), 16)[values]
    pixels = np.empty(values.shape, np.uint8)
    for top in range(0, len(pixels), _TILE_ROWS):
        tile = _as_8_bit(values[top : top + _TILE_ROWS], stored)
        pixels[top : top + _TILE_ROWS] = convert_color_space(tile, "YBR_FULL", "RGB") if is_ybr else tile
    return pixels


def _as_8_bit(values: np.ndarray, stored: int) -> np.ndarray:
    """Return the highest 8 of the stored bits; uint8 stays as it is."""
    return values if values.dtype == np.uint8 else (values >> (stored - 8)).astype(np.uint8)


def _scale(dataset: Dataset, side_px: int) -> float | None:
    """Return the scale, micrometres per px, if the pixels are square and the longer side is no longer than an eye's.

    For ophthalmic photographs, Pixel Spacing is the distance on the retina, in millimetres: DICOM PS3.3, C.8.17.2.
    """
    try:
        down, right = (float(side) * 1000 for side in dataset.PixelSpacing)
    except Exception:  # there is none, or it holds other things than two numbers; the pixels are good all the same
        return None
    least, most = _PLAUSIBLE_UM
    scale = math.sqrt(down * right) if down > 0 and right > 0 else math.nan
    is_plausible = least <= scale <= most and scale * side_px <= 1000 * _WIDEST_MM
    return scale if is_plausible and abs(down - right) <= _SQUARE * scale else None
