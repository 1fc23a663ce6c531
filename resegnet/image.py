"""Reading a photograph: the one decoder of the package.

Command line, app, training and evaluation all come through `read_image`, so that a picture has the same
pixels everywhere, whatever it was handed over as.
"""

from __future__ import annotations

import io
import os
import threading
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

# Backs of fundus cameras have up to 24 megapixels, a few up to 51. At some 30 bytes per pixel for the whole
# line, a picture at the limit asks for about 2 GB.
MAX_PIXELS = 64_000_000

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "PPM", "GIF")

_EXPECTED = "a JPEG, PNG, TIFF, BMP, WebP, PPM, PGM or GIF picture"
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

# Pillow warns about oversize, odd metadata and the like. What matters of it becomes an ImageError here; the
# rest no user can act on. `warnings.catch_warnings` swaps a global, so one thread at a time.
_pillow = threading.Lock()


class ImageError(ValueError):
    """A picture that cannot be read; the message is one sentence that a user can be shown."""


def read_image(
    source: str | os.PathLike | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Read a photograph as 8-bit RGB at its own size.

    Parameters
    ----------
    source
        A path, the bytes of a file, a binary file object (read from its start), a Pillow image or an array
        (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16, bool or float in [0, 1]. Files may be
        JPEG, PNG, TIFF, BMP, WebP, PPM, PGM or GIF; grey, palette, CMYK or colour; with or without alpha; 8
        or 16 bit, or float grey in [0, 1]. Of several pages or frames the first is read.
    max_pixels
        A picture of more pixels is refused, by its header, before it is decoded.

    Returns
    -------
    ndarray
        (H, W, 3), uint8, RGB, contiguous, the caller's own. Grey comes as three equal channels; of 16 bit the
        high byte is kept; transparency shows black, as the surround of a fundus photograph is; the EXIF
        orientation is applied. Colour profiles are ignored, in training and in use alike.

    Raises
    ------
    ImageError
        For whatever is not such a picture, a missing or damaged file among them. Nothing else is raised.
    """
    name = _name(source)
    if isinstance(source, np.ndarray):
        return _from_array(source, name, max_pixels)
    if isinstance(source, Image.Image):
        return _from_pillow(source, name, max_pixels)
    if isinstance(source, str | os.PathLike):
        stream = _open_path(source, name)
    elif isinstance(source, bytes | bytearray | memoryview):
        stream = io.BytesIO(source)
    elif callable(getattr(source, "read", None)):
        stream = io.BytesIO(_read_all(source, name))
    else:
        raise ImageError(
            f"{name} is not a picture; expected a path, bytes, a binary file object, a Pillow image or an "
            "array: convert it to one of these."
        )
    with stream:
        return _from_pillow(stream, name, max_pixels)


def _name(source: object) -> str:
    """What to call the source in a message."""
    if isinstance(source, np.ndarray):
        return "The array"
    if isinstance(source, Image.Image):
        return "The Pillow image"
    if isinstance(source, bytes | bytearray | memoryview):
        return "The file"
    path = source if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
    if isinstance(path, str | os.PathLike):
        text = os.path.basename(os.fsdecode(path))
        # A name can hold line breaks or undecodable bytes, and a wrongly passed text can be of any length.
        return "'" + "".join(c if c.isprintable() else "?" for c in text[:80]) + "'"
    return "The file object" if hasattr(source, "read") else f"An object of type {type(source).__name__}"


def _open_path(path: str | os.PathLike, name: str) -> BinaryIO:
    try:
        # Only regular files: opening a pipe or a device could wait for ever.
        if Path(path).is_file():
            return open(path, "rb")
    except (OSError, TypeError, ValueError) as error:
        raise ImageError(f"{name} cannot be opened; expected {_EXPECTED}: check its permissions.") from error
    what = "is a folder" if os.path.isdir(path) else "does not exist or is not a file"
    raise ImageError(f"{name} {what}; expected {_EXPECTED}: check the path.")


def _read_all(stream: BinaryIO, name: str) -> bytes:
    try:
        if stream.seekable():
            stream.seek(0)
        data = stream.read()
    except Exception as error:  # a file object of the caller's may raise whatever it likes
        raise ImageError(f"{name} cannot be read to its end; expected {_EXPECTED}: open it again.") from error
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ImageError(f"{name} gave {type(data).__name__}; expected bytes: open it in binary mode, 'rb'.")
    return data


def _from_pillow(source: BinaryIO | Image.Image, name: str, max_pixels: int) -> np.ndarray:
    # Pillow's decoders raise nearly anything on damaged files (SyntaxError, struct.error, IndexError ...),
    # hence the wide net.
    try:
        with _pillow, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = source if isinstance(source, Image.Image) else Image.open(source, formats=FORMATS)
            width, height = image.size
            _check_size(height, width, name, max_pixels)
            _check_tiff(image, name)
            image.load()
            image = _upright(image)
            if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
                return np.array(_opaque(image).convert("RGB"))
            values = np.array(image)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name} cannot be identified; expected {_EXPECTED} of 8 or 16 bit: convert it to one of these."
        ) from error
    except Image.DecompressionBombError as error:
        limit = 2 * Image.MAX_IMAGE_PIXELS / 1e6
        raise ImageError(
            f"{name} has more pixels than Pillow's own limit of {limit:.0f} megapixels: scale it down."
        ) from error
    except Exception as error:
        raise ImageError(
            f"{name} cannot be decoded; expected an undamaged picture: copy it again or save it as PNG."
        ) from error
    if values.dtype.kind == "i":  # mode "I" holds 16-bit PGM and 32-bit files alike
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(
                f"{name} has values from {values.min()} to {values.max()}; expected 8 or 16 bit: save it so."
            )
        values = values.astype(np.uint16)
    return _from_array(values, name, max_pixels)


def _check_tiff(image: Image.Image, name: str) -> None:
    """Refuse the layouts that Pillow 12 decodes to wrong pixels without a word."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, ())
    white_is_zero = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    planes_apart = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2
    if 12 in bits or (16 in bits and (white_is_zero or planes_apart)):
        raise ImageError(
            f"{name} is a TIFF of a rare layout; expected 8 or 16 bit, zero for black, colours interleaved: "
            "save it as PNG."
        )


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # damaged EXIF data raise many things, and the pixels are good all the same
        return image
    turn = _TURN_UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _opaque(image: Image.Image) -> Image.Image:
    """Lay a picture that has transparency over black."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)


def _from_array(array: np.ndarray, name: str, max_pixels: int) -> np.ndarray:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise ImageError(
            f"{name} has shape {array.shape}; expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): "
            "put rows first and colours last."
        )
    _check_size(*array.shape[:2], name, max_pixels)
    array = np.asarray(array)
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    elif array.dtype.kind == "u" and array.dtype.itemsize == 2:
        # The high byte: exact for 8 bit widened by 257, and what Pillow keeps of 16-bit colour files.
        array = (array >> 8).astype(np.uint8)
    elif array.dtype.kind == "f":
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 1):  # so put that nan fails too
            raise ImageError(
                f"{name} has values from {low:g} to {high:g}; expected floats in [0, 1] without nan: scale "
                "them, or give uint8 or uint16."
            )
        array = np.rint(array * np.float32(255)).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ImageError(
            f"{name} is of type {array.dtype}; expected uint8, uint16, bool or float in [0, 1]: convert it."
        )
    if channels == 4:
        return np.array(_opaque(Image.fromarray(np.ascontiguousarray(array))).convert("RGB"))
    if array.ndim == 2:
        array = array[:, :, None]
    return np.array(np.broadcast_to(array, (*array.shape[:2], 3)), order="C")


def _check_size(height: int, width: int, name: str, max_pixels: int) -> None:
    if height < 1 or width < 1:
        raise ImageError(f"{name} has {width} x {height} pixels; expected a photograph: choose another.")
    if height * width > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} pixels; expected {max_pixels / 1e6:g} million at most: scale it."
        )
