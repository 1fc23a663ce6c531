"""Keeps costly and hostile files from a decoder: limits on reads, scans, tiles and metadata, and silence."""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import ImageFile, TiffImagePlugin

from resegnet.errors import ImageError

# Sensors of fundus cameras have up to 24 megapixels, a few up to 51. A segmentation takes some 30 bytes per pixel, so a
# picture at the limit takes about 2 GB.
MAX_PIXELS = 64_000_000

# Some small files keep Pillow busy for long; they are recognised before decoding. In a progressive JPEG a few bytes
# make a scan, and each scan goes over the whole picture again: 0.08 s at 64 megapixels. Encoders write 10, rarely 18.
_SCAN = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e][\x01-\x04]")
_PROGRESSIVE = re.compile(rb"\xff\xc2\x00[\x0b\x0e\x11\x14]\x08")  # is refused inside a TIFF
_MAX_SCANNED_PIXELS = 32 * MAX_PIXELS
_LEAST_SCANNED_PIXELS = 200_000  # even a tiny scan costs as much time as this many pixels
_JPEG_EXIF = re.compile(rb"\xff\xe1(..)Exif\x00\x00", re.DOTALL)
_LEAST_READS, _LEAST_READ_BYTES = 20_000, 50_000_000
# Decoders that are written in Python and take a microsecond and more per pixel: run lengths in BMP, PPM as text or of
# an odd depth.
_SLOW_DECODERS = ("bmp_rle", "ppm", "ppm_plain")

# Pillow warns about oversize, odd metadata and the like. The warnings that matter become an ImageError here; users can
# do nothing about the others. `warnings.catch_warnings` replaces a global, so one thread at a time may use it.
_decoding = threading.Lock()


@contextmanager
def quiet_decoding() -> Iterator[None]:
    """Silence the warnings of a decoder, while no other thread decodes."""
    with _decoding, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class MeteredFile(io.BytesIO):
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


def check_layout(image: ImageFile.ImageFile, data: bytes, name: str) -> None:
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


def jpeg_exif(data: bytes) -> Iterator[bytes]:
    """Yield the EXIF data of each segment of a JPEG; Pillow joins them."""
    if data.startswith(b"\xff\xd8"):
        for found in _JPEG_EXIF.finditer(data):
            yield data[found.end() : found.start() + 2 + int.from_bytes(found[1], "big")]


def check_exif(exif: bytes, name: str) -> None:
    """Refuse EXIF data whose entries point to the same bytes many times, since Pillow keeps a copy for each.

    Raises
    ------
    ImageError
        If these are such data.
    """
    stream = MeteredFile(exif.removeprefix(b"Exif\0\0"), name)
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(stream.read(8))
        stream.seek(directory.next)
        directory.load(stream)
    except ImageError:
        raise
    except Exception:  # damaged data raise many kinds of errors, and Pillow ignores them
        return


def check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    """Refuse a picture without pixels, or of more than `max_pixels`; `size` is height and width.

    Raises
    ------
    ImageError
        If it is one.
    """
    height, width = size
    if height < 1 or width < 1:
        raise ImageError(f"{name} has {width} x {height} pixels; expected a photograph: choose another.")
    if height * width > max_pixels:
        raise ImageError(
            f"{name} is larger than {max_pixels / 1e6:g} megapixels ({width} x {height} pixels); reduce it first."
        )
