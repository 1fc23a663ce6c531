"""Reading a photograph: the one decoder of the package.

Command line, page, training and evaluation all call `read_image`, so that a picture has the same pixels everywhere,
whether it comes as a path, bytes, a file object, a Pillow image or an array.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from resegnet.dicom import is_dicom, read_dicom
from resegnet.errors import ImageError, MissingDecoderError, MissingExtraError, require
from resegnet.picture_checks import (
    MAX_PIXELS,
    MeteredFile,
    check_exif,
    check_layout,
    check_size,
    jpeg_exif,
    quiet_decoding,
)

# Decoders that hold the picture several times, or that take long.
_MAX_PIXELS_OF = {"WEBP": 50_000_000, "JPEG2000": 25_000_000}
_TILE_PX = 1024  # side of the tiles that are converted one by one
MAX_BYTES = 400_000_000  # MAX_PIXELS of 16-bit colour, uncompressed, and room for the rest of the file

# Suffixes, in lower case, by which pictures are recognised in folders.
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".webp", ".dcm"})
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "PPM", "GIF")
_DICOM_FORMATS = ("JPEG", "JPEG2000")  # of the frames in a DICOM file

_EXPECTED = "a JPEG, PNG, TIFF, BMP, WebP, PPM, PGM, GIF or DICOM picture"
_HEIC = re.compile(rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL)
_ZIP = b"PK\x03\x04"
_ORIENTATION_TAG = 0x0112
_TURN_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_MAX_BLOCKS = 1_000_000  # limit for a file object that returns only a few bytes at a time
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_MAX_FOLDER = 160  # a longer folder is left out of a message

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray


@dataclass(frozen=True, eq=False)
class Picture:
    """A photograph, and what its file says about it.

    Attributes
    ----------
    pixels : (H, W, 3) uint8, RGB
        See `read_image`.
    um_per_px
        Micrometres on the retina for a pixel, from a DICOM file; None if unknown.
    burned_in
        True if a DICOM file says that text, such as a name, is part of the picture.
    """

    pixels: np.ndarray
    um_per_px: float | None = None
    burned_in: bool = False


def read_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a photograph as 8-bit RGB at its own size.

    Parameters
    ----------
    source
        A path (`~` stands for the home folder), the bytes of a file, a binary file object (read from its start), a
        Pillow image, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16, bool or float in [0, 1].
        Addresses are not fetched. Files may be JPEG, PNG, TIFF, BMP, WebP, PPM, PGM or GIF; grey, palette, CMYK or
        colour; with or without alpha; 8 or 16 bit, or float grey in [0, 1]. With the extra `dicom` they may be DICOM,
        uncompressed or of run lengths, JPEG or JPEG 2000. If a file has several pages or frames, the first is read.
    max_pixels
        A picture of more pixels is refused by its header, before it is decoded. A file of more than 400 MB is refused
        too.

    Returns
    -------
    image
        (H, W, 3) uint8 RGB, contiguous, a copy that the caller may change. Grey becomes three equal channels. 16 bit is
        reduced to the high byte. Transparent pixels become black, like the surround of a fundus photograph. The EXIF
        orientation is applied. Colour profiles are ignored, in training as in prediction.

    Raises
    ------
    ImageError
        If the source is not such a picture, for example because the file is missing or damaged. No other exception is
        raised.
    """
    return read_picture(source, max_pixels).pixels


def read_picture(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a photograph with its scale, where its file gives one; see `read_image`."""
    name = _name(source)
    if isinstance(source, np.ndarray):
        return Picture(_from_array(source, name, max_pixels))
    if isinstance(source, Image.Image):
        return Picture(_from_pillow(source, name, max_pixels))
    if isinstance(source, str | os.PathLike):
        with _open_path(source, name) as stream:
            data = _read_all(stream, name)
    else:
        data = _read_all(source, name)
    if is_dicom(data):
        return _from_dicom(data, name, max_pixels)
    if _HEIC.match(data):
        raise ImageError(f"{name} is a HEIC picture, which is not read; expected {_EXPECTED}: save it as JPEG.")
    if not data:
        raise ImageError(f"{name} is empty; expected {_EXPECTED}: copy it again.")
    if data.startswith(_ZIP):
        raise ImageError(f"{name} is a ZIP archive; expected {_EXPECTED}: unpack it and give what is in it.")
    return Picture(_from_pillow(MeteredFile(data, name), name, max_pixels))


def _name(source: object) -> str:
    """Return the name of the source for a message."""
    if isinstance(source, np.ndarray):
        return "The array"
    if isinstance(source, Image.Image):
        return "The Pillow image"
    if isinstance(source, bytes | bytearray | memoryview):
        return "The file"
    try:
        path: Any = source if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
        folder, base = os.path.split(os.fsdecode(path))
        # A name can hold line breaks or undecodable bytes, and text passed by mistake can be of any length.
        shown = os.path.join(_short(folder, _MAX_FOLDER), "") if 0 < len(folder) <= _MAX_FOLDER else ""
        return f"'{shown}{_short(base)}'"
    except Exception:  # there is no name, or it is not text
        return f"An object of type {_short(type(source).__name__)}"


def _short(text: object, length: int = 80) -> str:
    """Return the text on one line of at most `length` characters, for a message."""
    return "".join(c if c.isprintable() else "?" for c in str(text)[:length])


def _open_path(path: str | os.PathLike[str], name: str) -> BinaryIO:
    if isinstance(path, str) and _ADDRESS.match(path):
        raise ImageError(f"{name} is an address, and addresses are not fetched: download the file and give its path.")
    try:
        path = os.path.expanduser(path)
        # Only regular files are opened, since opening a pipe or a device could block for ever.
        if Path(path).is_file():
            return open(path, "rb")
        what = "is a folder" if os.path.isdir(path) else "does not exist or is not a file"
    except Exception as error:  # the caller's path object may raise anything
        raise ImageError(f"{name} cannot be opened; expected {_EXPECTED}: check its permissions.") from error
    raise ImageError(f"{name} {what}; expected {_EXPECTED}: check the path.")


def _read_all(source: object, name: str) -> bytes:
    """Return the bytes of a file object or a bytes-like object, up to the number that a picture can have."""
    try:
        if isinstance(source, bytes | bytearray | memoryview):
            blocks = [bytes(source)]
        elif callable(getattr(source, "read", None)):
            stream: Any = source
            if stream.seekable():
                stream.seek(0)
            blocks, left = [], MAX_BYTES + 1
            while left > 0 and len(blocks) < _MAX_BLOCKS and (block := stream.read(left)):
                if not isinstance(block, bytes | bytearray | memoryview):
                    raise ImageError(
                        f"{name} gave {_short(type(block).__name__)}; expected bytes: open it in binary mode, 'rb'."
                    )
                blocks.append(bytes(block))
                left -= len(blocks[-1])
        else:
            raise ImageError(
                f"{name} is not a picture; expected a path, bytes, a binary file object, a Pillow image or an "
                f"array: {_advice(source)}."
            )
    except ImageError:
        raise
    except Exception as error:  # the caller's file object may raise anything
        raise ImageError(f"{name} cannot be read to its end; expected {_EXPECTED}: open it again.") from error
    if sum(map(len, blocks)) > MAX_BYTES or len(blocks) == _MAX_BLOCKS:
        raise ImageError(f"{name} has more than {MAX_BYTES / 1e6:.0f} MB or never ends; expected less: scale it down.")
    return b"".join(blocks)


def _advice(source: object) -> str:
    """Say what to do with a source that is not a picture."""
    if type(source).__module__.partition(".")[0] == "torch":
        return "for a tensor (3, H, W) give tensor.permute(1, 2, 0).cpu().numpy()"
    if isinstance(source, list | tuple):
        return "give several photographs one by one, and numbers as numpy.array(values, numpy.uint8)"
    return "convert it to one of these"


def _from_pillow(
    source: MeteredFile | Image.Image, name: str, max_pixels: int, formats: tuple[str, ...] = FORMATS
) -> np.ndarray:
    """Decode a file of one of the formats, or convert a Pillow image: (H, W, 3) uint8 RGB."""
    # On damaged files Pillow's decoders raise many kinds of errors (SyntaxError, struct.error, IndexError ...), so all
    # are caught.
    try:
        with quiet_decoding():
            image: Image.Image
            if isinstance(source, Image.Image):
                image = source
            else:
                check_exif(b"".join(jpeg_exif(source.getvalue())), name)
                image = opened = Image.open(source, formats=formats)
                check_layout(opened, source.getvalue(), name)
            width, height = image.size
            is_sixteen_bit = image.format in ("PNG", "PPM")  # in mode "I"
            check_size((height, width), name, min(max_pixels, _MAX_PIXELS_OF.get(image.format or "", max_pixels)))
            image.load()
            if formats is FORMATS:
                image = _upright(image, name)
            if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
                return _as_rgb(image)
            values = np.array(image)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name} cannot be identified; expected {_EXPECTED} of 8 or 16 bit: convert it to one of these."
        ) from error
    except Image.DecompressionBombError as error:
        pillow_limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise ImageError(
            f"{name} is larger than {pillow_limit:.0f} megapixels, Pillow's own limit; reduce it first."
        ) from error
    except Exception as error:
        raise ImageError(
            f"{name} cannot be decoded; expected an undamaged picture: copy it again or save it as PNG."
        ) from error
    if values.dtype.kind == "i":  # mode "I" holds 16-bit PGM and 32-bit files alike, which may hold 8 bits
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(
                f"{name} has values from {values.min()} to {values.max()}; expected 8 or 16 bit: save it so."
            )
        values = values.astype(np.uint16 if is_sixteen_bit or values.max() > 255 else np.uint8)
    return _from_array(values, name, max_pixels)


def _from_dicom(data: bytes, name: str, max_pixels: int) -> Picture:
    """Decode the first frame of a DICOM file."""
    try:
        require("pydicom", "reading a DICOM file")
    except MissingExtraError as error:
        raise MissingDecoderError(str(error)) from error
    found = read_dicom(data, name, max_pixels)
    if found.frame is None:
        pixels = _from_array(np.asarray(found.pixels), name, max_pixels)
    else:
        pixels = _from_pillow(MeteredFile(found.frame, name), name, max_pixels, _DICOM_FORMATS)
        if found.is_ybr:
            pixels = np.array(Image.fromarray(pixels, "YCbCr").convert("RGB"))
    if pixels.shape[:2] != (found.height, found.width):
        raise ImageError(f"{name} is a DICOM file that contradicts itself about its size: export it again, or as PNG.")
    return Picture(255 - pixels if found.is_negative else pixels, found.um_per_px, found.burned_in)


def _upright(image: Image.Image, name: str) -> Image.Image:
    """Apply the EXIF orientation."""
    exif = image.info.get("exif", b"")
    try:
        if not exif:  # ImageMagick writes it as text
            exif = bytes.fromhex("".join(image.info.get("Raw profile type exif", "").split("\n")[3:]))
        check_exif(exif, name)
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except ImageError:
        raise
    except Exception:  # damaged EXIF data raise many kinds of errors, and the pixels are good all the same
        return image
    turn = _TURN_UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _as_rgb(image: Image.Image) -> np.ndarray:
    """Convert to RGB, (H, W, 3) uint8, over a black background."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    # Tile by tile, since converting a large picture at once would hold it four times.
    for top in range(0, image.height, _TILE_PX):
        for left in range(0, image.width, _TILE_PX):
            tile = image.crop((left, top, min(left + _TILE_PX, image.width), min(top + _TILE_PX, image.height)))
            if tile.has_transparency_data:
                tile = tile.convert("RGBA")
                tile = Image.alpha_composite(Image.new("RGBA", tile.size, (0, 0, 0, 255)), tile)
            pixels[top : top + _TILE_PX, left : left + _TILE_PX] = np.asarray(tile.convert("RGB"))
    return pixels


def _from_array(array: np.ndarray, name: str, max_pixels: int) -> np.ndarray:
    """Convert an array of any supported shape and type: (H, W, 3) uint8 RGB."""
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise ImageError(
            f"{name} has shape {array.shape}; expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): "
            "put rows first and colours last."
        )
    check_size((array.shape[0], array.shape[1]), name, max_pixels)
    array = np.asarray(array)
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    elif array.dtype.kind == "u" and array.dtype.itemsize == 2:
        # The high byte restores 8 bit widened by 257 exactly, and Pillow keeps it of 16-bit colour files too.
        array = (array >> 8).astype(np.uint8)
    elif array.dtype.kind == "f":
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 1):  # false for nan, too
            raise ImageError(
                f"{name} has values from {low:g} to {high:g}; expected floats in [0, 1] without nan: scale "
                "them, or give uint8 or uint16."
            )
        levels = np.empty(array.shape, np.uint8)
        for row in range(0, len(array), _TILE_PX):
            levels[row : row + _TILE_PX] = np.rint(array[row : row + _TILE_PX] * np.float32(255))
        array = levels
    elif array.dtype != np.uint8:
        raise ImageError(
            f"{name} is of type {_short(array.dtype)}; expected uint8, uint16, bool or float in [0, 1]: convert it."
        )
    if channels == 4:
        return _as_rgb(Image.fromarray(np.ascontiguousarray(array)))
    if array.ndim == 2:
        array = array[:, :, None]
    return np.array(np.broadcast_to(array, (*array.shape[:2], 3)), order="C")
