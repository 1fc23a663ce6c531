"""Reading a photograph: the one decoder of the package.

Command line, app, training and evaluation all come through `read_image`, so that a picture has the same
pixels everywhere, whatever it was handed over as.
"""

from __future__ import annotations

import io
import os
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from resegnet.errors import ImageError

# Backs of fundus cameras have up to 24 megapixels, a few up to 51. At some 30 bytes per pixel for the whole
# line, a picture at the limit asks for about 2 GB.
MAX_PIXELS = 64_000_000
_MAX_WEBP_PIXELS = 50_000_000  # its decoder holds the picture four times
_PART_PX = 1024  # side of the parts that are converted one by one
MAX_BYTES = 400_000_000  # MAX_PIXELS of 16-bit colour, uncompressed, and room for the rest of the file

# By which pictures are known in folders, in lower case.
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".webp"})
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

# What a small file can make Pillow do at length is counted beforehand. A progressive JPEG goes over the whole picture
# again for each scan, of which a few bytes are enough, 0.08 s for 64 megapixels; encoders write 10, rarely 18.
_SCAN = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e][\x01-\x04]")
_PROGRESSIVE = re.compile(rb"\xff\xc2\x00[\x0b\x0e\x11\x14]\x08")  # has no place inside a TIFF
_MAX_SCANNED_PIXELS = 32 * MAX_PIXELS
_LEAST_SCANNED_PIXELS = 200_000  # what a scan costs in any case
_JPEG_EXIF = re.compile(rb"\xff\xe1(..)Exif\x00\x00", re.DOTALL)
# Decoders in Python, a microsecond and more for each pixel: run lengths in BMP, PPM as text or of odd depth.
_MAX_BLOCKS = 1_000_000  # of a file object that gives its bytes little by little
_LEAST_READS, _LEAST_READ_BYTES = 20_000, 50_000_000
_SLOW_DECODERS = ("bmp_rle", "ppm", "ppm_plain")

# Pillow warns about oversize, odd metadata and the like. What matters of it becomes an ImageError here; the
# rest no user can act on. `warnings.catch_warnings` swaps a global, so one thread at a time.
_pillow = threading.Lock()


ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray


def read_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a photograph as 8-bit RGB at its own size.

    Parameters
    ----------
    source
        A path, the bytes of a file, a binary file object (read from its start), a Pillow image or an array
        (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16, bool or float in [0, 1]. Files may be
        JPEG, PNG, TIFF, BMP, WebP, PPM, PGM or GIF; grey, palette, CMYK or colour; with or without alpha; 8
        or 16 bit, or float grey in [0, 1]. Of several pages or frames the first is read.
    max_pixels
        A picture of more pixels is refused, by its header, before it is decoded. A file of more than 400 MB is
        refused too.

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
        with _open_path(source, name) as stream:
            data = _read_all(stream, name)
    else:
        data = _read_all(source, name)
    return _from_pillow(_Metered(data, name), name, max_pixels)


def _name(source: object) -> str:
    """What to call the source in a message."""
    if isinstance(source, np.ndarray):
        return "The array"
    if isinstance(source, Image.Image):
        return "The Pillow image"
    if isinstance(source, bytes | bytearray | memoryview):
        return "The file"
    try:
        path = source if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
        # A name can hold line breaks or undecodable bytes, and a wrongly passed text can be of any length.
        return f"'{_short(os.path.basename(os.fsdecode(path)))}'"
    except Exception:  # no name, or an object that gives something else for one
        return f"An object of type {_short(type(source).__name__)}"


def _short(text: object) -> str:
    """The text in one line of at most 80 characters, for a message."""
    return "".join(c if c.isprintable() else "?" for c in str(text)[:80])


def _open_path(path: str | os.PathLike, name: str) -> BinaryIO:
    try:
        # Only regular files: opening a pipe or a device could wait for ever.
        if Path(path).is_file():
            return open(path, "rb")
        what = "is a folder" if os.path.isdir(path) else "does not exist or is not a file"
    except Exception as error:  # a path object of the caller's may raise whatever it likes
        raise ImageError(f"{name} cannot be opened; expected {_EXPECTED}: check its permissions.") from error
    raise ImageError(f"{name} {what}; expected {_EXPECTED}: check the path.")


def _read_all(source: object, name: str) -> bytes:
    """The bytes of a file object, or of an object that holds some; not more than a picture can have."""
    try:
        if isinstance(source, bytes | bytearray | memoryview):
            blocks = [bytes(source)]
        elif callable(getattr(source, "read", None)):
            if source.seekable():
                source.seek(0)
            blocks, left = [], MAX_BYTES + 1
            while left > 0 and len(blocks) < _MAX_BLOCKS and (block := source.read(left)):
                if not isinstance(block, bytes | bytearray | memoryview):
                    raise ImageError(
                        f"{name} gave {_short(type(block).__name__)}; expected bytes: open it in binary mode, 'rb'."
                    )
                blocks.append(bytes(block))
                left -= len(blocks[-1])
        else:
            raise ImageError(
                f"{name} is not a picture; expected a path, bytes, a binary file object, a Pillow image or an "
                "array: convert it to one of these."
            )
    except ImageError:
        raise
    except Exception as error:  # a file object of the caller's may raise whatever it likes
        raise ImageError(f"{name} cannot be read to its end; expected {_EXPECTED}: open it again.") from error
    if sum(map(len, blocks)) > MAX_BYTES or len(blocks) == _MAX_BLOCKS:
        raise ImageError(f"{name} has more than {MAX_BYTES / 1e6:.0f} MB or no end; expected less: scale it down.")
    return b"".join(blocks)


class _Metered(io.BytesIO):
    """A file that may be read only as often as a picture asks for.

    Pillow goes through metadata piece by piece, and fetches what a TIFF or EXIF entry points to as often as one does:
    a file of 1 MB can have 50 GB fetched, and a GIF's comment takes the square of its length.
    """

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self._name = name
        # The first frame of a GIF takes few reads, PNG one or two for each kilobyte at worst.
        self._reads_left = _LEAST_READS + (0 if data.startswith(b"GIF8") else len(data) // 500)
        self._bytes_left = _LEAST_READ_BYTES + 3 * len(data)

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._reads_left -= 1
        self._bytes_left -= len(data)
        if self._reads_left < 0 or self._bytes_left < 0:
            raise ImageError(f"{self._name} is mostly metadata; expected a photograph: save it as PNG without them.")
        return data


def _from_pillow(source: _Metered | Image.Image, name: str, max_pixels: int) -> np.ndarray:
    # Pillow's decoders raise nearly anything on damaged files (SyntaxError, struct.error, IndexError ...),
    # hence the wide net.
    try:
        with _pillow, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if isinstance(source, Image.Image):
                image = source
            else:
                _check_exif(b"".join(_jpeg_exif(source.getvalue())), name)
                image = Image.open(source, formats=FORMATS)
                _check_layout(image, source.getvalue(), name)
            width, height = image.size
            most = min(max_pixels, _MAX_WEBP_PIXELS) if image.format == "WEBP" else max_pixels
            _check_size(height, width, name, most)
            image.load()
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


def _check_layout(image: Image.Image, data: bytes, name: str) -> None:
    """Refuse what Pillow 12 decodes to wrong pixels without a word, or at great length."""
    rare = image.tile and image.tile[0].codec_name in _SLOW_DECODERS
    if image.format == "TIFF":
        tags = image.tag_v2
        bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, ())
        white_is_zero = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
        planes_apart = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2
        rare = 12 in bits or (16 in bits and (white_is_zero or planes_apart))
        if image.info.get("compression") == "jpeg":
            rare |= _PROGRESSIVE.search(data) is not None
        # Memory is taken for a whole tile, however small the picture.
        rare |= tags.get(TiffImagePlugin.TILEWIDTH, 0) * tags.get(TiffImagePlugin.TILELENGTH, 0) > MAX_PIXELS
    if rare:
        raise ImageError(
            f"{name} is a {image.format} of a rare layout; expected 8 or 16 bit, zero for black, colours interleaved, "
            "plain pixels: save it as PNG."
        )
    scanned = max(image.width * image.height, _LEAST_SCANNED_PIXELS)
    if data.startswith(b"\xff\xd8") and len(_SCAN.findall(data)) * scanned > _MAX_SCANNED_PIXELS:
        raise ImageError(f"{name} is a JPEG of far too many scans; expected about ten: save it again, or as PNG.")


def _jpeg_exif(data: bytes) -> Iterator[bytes]:
    """The EXIF data of a JPEG, of which Pillow puts together what several segments hold."""
    if data.startswith(b"\xff\xd8"):
        for found in _JPEG_EXIF.finditer(data):
            yield data[found.end() : found.start() + 2 + int.from_bytes(found[1], "big")]


def _check_exif(exif: bytes, name: str) -> None:
    """Refuse EXIF data that point to the same bytes again and again, since Pillow keeps a copy for each."""
    stream = _Metered(exif.removeprefix(b"Exif\0\0"), name)
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(stream.read(8))
        stream.seek(directory.next)
        directory.load(stream)
    except ImageError:
        raise
    except Exception:  # damaged data raise many things, and are ignored
        return


def _upright(image: Image.Image, name: str) -> Image.Image:
    exif = image.info.get("exif", b"")
    try:
        if not exif:  # as ImageMagick writes it
            exif = bytes.fromhex("".join(image.info.get("Raw profile type exif", "").split("\n")[3:]))
        _check_exif(exif, name)
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except ImageError:
        raise
    except Exception:  # damaged EXIF data raise many things, and the pixels are good all the same
        return image
    turn = _TURN_UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _as_rgb(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8, with what is transparent laid over black."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    # In parts: the whole of a large picture would be held four times over.
    for top in range(0, image.height, _PART_PX):
        for left in range(0, image.width, _PART_PX):
            part = image.crop((left, top, min(left + _PART_PX, image.width), min(top + _PART_PX, image.height)))
            if part.has_transparency_data:
                part = part.convert("RGBA")
                part = Image.alpha_composite(Image.new("RGBA", part.size, (0, 0, 0, 255)), part)
            pixels[top : top + _PART_PX, left : left + _PART_PX] = part.convert("RGB")
    return pixels


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
        levels = np.empty(array.shape, np.uint8)
        for row in range(0, len(array), _PART_PX):
            levels[row : row + _PART_PX] = np.rint(array[row : row + _PART_PX] * np.float32(255))
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


def _check_size(height: int, width: int, name: str, max_pixels: int) -> None:
    if height < 1 or width < 1:
        raise ImageError(f"{name} has {width} x {height} pixels; expected a photograph: choose another.")
    if height * width > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} pixels; expected {max_pixels / 1e6:g} million at most: scale it."
        )
