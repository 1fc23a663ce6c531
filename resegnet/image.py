"""Reading a photograph: the one decoder of the package.

Command line, page, training and evaluation all call `read_image`, so that a picture has the same pixels everywhere,
whether it comes as a path, bytes, a file object, a Pillow image or an array.
"""

from __future__ import annotations

import io
import os
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from resegnet.errors import ImageError

# Sensors of fundus cameras have up to 24 megapixels, a few up to 51. A segmentation takes some 30 bytes per pixel, so a
# picture at the limit takes about 2 GB.
MAX_PIXELS = 64_000_000
_MAX_WEBP_PIXELS = 50_000_000  # the WebP decoder holds the picture four times
_TILE_PX = 1024  # side of the tiles that are converted one by one
MAX_BYTES = 400_000_000  # MAX_PIXELS of 16-bit colour, uncompressed, and room for the rest of the file

# Suffixes, in lower case, by which pictures are recognised in folders.
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

# Some small files keep Pillow busy for long; they are recognised before decoding. In a progressive JPEG a few bytes
# make a scan, and each scan goes over the whole picture again: 0.08 s at 64 megapixels. Encoders write 10, rarely 18.
_SCAN = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e][\x01-\x04]")
_PROGRESSIVE = re.compile(rb"\xff\xc2\x00[\x0b\x0e\x11\x14]\x08")  # is refused inside a TIFF
_MAX_SCANNED_PIXELS = 32 * MAX_PIXELS
_LEAST_SCANNED_PIXELS = 200_000  # even a tiny scan costs as much time as this many pixels
_JPEG_EXIF = re.compile(rb"\xff\xe1(..)Exif\x00\x00", re.DOTALL)
_MAX_BLOCKS = 1_000_000  # limit for a file object that returns only a few bytes at a time
_LEAST_READS, _LEAST_READ_BYTES = 20_000, 50_000_000
# Decoders that are written in Python and take a microsecond and more per pixel: run lengths in BMP, PPM as text or of
# an odd depth.
_SLOW_DECODERS = ("bmp_rle", "ppm", "ppm_plain")

# Pillow warns about oversize, odd metadata and the like. The warnings that matter become an ImageError here; users can
# do nothing about the others. `warnings.catch_warnings` replaces a global, so one thread at a time may use it.
_pillow = threading.Lock()


_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_MAX_FOLDER = 160  # a longer folder is left out of a message

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray


def read_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a photograph as 8-bit RGB at its own size.

    Parameters
    ----------
    source
        A path (`~` stands for the home folder), the bytes of a file, a binary file object (read from its start), a
        Pillow image, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16, bool or float in [0, 1].
        Addresses are not fetched. Files may be JPEG, PNG, TIFF, BMP,
        WebP, PPM, PGM or GIF; grey, palette, CMYK or colour; with or without alpha; 8 or 16 bit, or float grey in
        [0, 1]. If a file has several pages or frames, the first is read.
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


class _Metered(io.BytesIO):
    """A file in memory that raises ImageError when it is read more often than a picture needs.

    Pillow reads metadata piece by piece, and copies the bytes that a TIFF or EXIF entry points to for every such entry:
    a file of 1 MB can make it copy 50 GB, and the time for a GIF's comment grows with the square of its length.
    """

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self._name = name
        # The first frame of a GIF takes few reads, a PNG at worst one or two per kilobyte.
        self._reads_left = _LEAST_READS + (0 if data.startswith(b"GIF8") else len(data) // 500)
        self._bytes_left = _LEAST_READ_BYTES + 3 * len(data)

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._reads_left -= 1
        self._bytes_left -= len(data)
        if self._reads_left < 0 or self._bytes_left < 0:
            raise ImageError(
                f"{self._name} is mostly metadata; expected a photograph: save it as PNG without metadata."
            )
        return data


def _from_pillow(source: _Metered | Image.Image, name: str, max_pixels: int) -> np.ndarray:
    """Decode a file, or convert a Pillow image: (H, W, 3) uint8 RGB."""
    # On damaged files Pillow's decoders raise many kinds of errors (SyntaxError, struct.error, IndexError ...), so all
    # are caught.
    try:
        with _pillow, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image: Image.Image
            if isinstance(source, Image.Image):
                image = source
            else:
                _check_exif(b"".join(_jpeg_exif(source.getvalue())), name)
                image = opened = Image.open(source, formats=FORMATS)
                _check_layout(opened, source.getvalue(), name)
            width, height = image.size
            limit = min(max_pixels, _MAX_WEBP_PIXELS) if image.format == "WEBP" else max_pixels
            _check_size((height, width), name, limit)
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
        pillow_limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise ImageError(
            f"{name} is larger than {pillow_limit:.0f} megapixels, Pillow's own limit; reduce it first."
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


def _check_layout(image: ImageFile.ImageFile, data: bytes, name: str) -> None:
    """Refuse files that Pillow 12 decodes to wrong pixels without an error, or only after a long time.

    Raises
    ------
    ImageError
        If this is such a file.
    """
    rare = bool(image.tile) and image.tile[0].codec_name in _SLOW_DECODERS
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, ())
        white_is_zero = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
        planes_apart = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2
        rare = 12 in bits or (16 in bits and (white_is_zero or planes_apart))
        if image.info.get("compression") == "jpeg":
            rare |= _PROGRESSIVE.search(data) is not None
        # Pillow takes memory for a whole tile, however small the picture is.
        rare |= tags.get(TiffImagePlugin.TILEWIDTH, 0) * tags.get(TiffImagePlugin.TILELENGTH, 0) > MAX_PIXELS
    if rare:
        raise ImageError(
            f"{name} is a {image.format} of a rare layout; expected 8 or 16 bit, zero for black, interleaved colours "
            "and plain pixels: save it as PNG."
        )
    scanned = max(image.width * image.height, _LEAST_SCANNED_PIXELS)
    if data.startswith(b"\xff\xd8") and len(_SCAN.findall(data)) * scanned > _MAX_SCANNED_PIXELS:
        raise ImageError(f"{name} is a JPEG of far too many scans; expected about ten: save it again, or as PNG.")


def _jpeg_exif(data: bytes) -> Iterator[bytes]:
    """Yield the EXIF data of each segment of a JPEG; Pillow joins them."""
    if data.startswith(b"\xff\xd8"):
        for found in _JPEG_EXIF.finditer(data):
            yield data[found.end() : found.start() + 2 + int.from_bytes(found[1], "big")]


def _check_exif(exif: bytes, name: str) -> None:
    """Refuse EXIF data whose entries point to the same bytes many times, since Pillow keeps a copy for each.

    Raises
    ------
    ImageError
        If these are such data.
    """
    stream = _Metered(exif.removeprefix(b"Exif\0\0"), name)
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(stream.read(8))
        stream.seek(directory.next)
        directory.load(stream)
    except ImageError:
        raise
    except Exception:  # damaged data raise many kinds of errors, and Pillow ignores them
        return


def _upright(image: Image.Image, name: str) -> Image.Image:
    """Apply the EXIF orientation."""
    exif = image.info.get("exif", b"")
    try:
        if not exif:  # ImageMagick writes it as text
            exif = bytes.fromhex("".join(image.info.get("Raw profile type exif", "").split("\n")[3:]))
        _check_exif(exif, name)
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
    _check_size((array.shape[0], array.shape[1]), name, max_pixels)
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


def _check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    height, width = size
    if height < 1 or width < 1:
        raise ImageError(f"{name} has {width} x {height} pixels; expected a photograph: choose another.")
    if height * width > max_pixels:
        raise ImageError(
            f"{name} is larger than {max_pixels / 1e6:g} megapixels ({width} x {height} pixels); reduce it first."
        )
