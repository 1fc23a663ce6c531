"""Pictures whose pixels are known, and what writes them in formats and variants that Pillow does not write."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

# Eight flat blocks. JPEG and WebP keep the middle of each to a few grey levels, and all eight orientations differ.
COLOURS = np.array(
    [
        [[0, 0, 0], [255, 255, 255], [200, 60, 30], [30, 200, 60]],
        [[60, 30, 200], [128, 128, 128], [255, 0, 0], [0, 0, 255]],
    ],
    np.uint8,
)
PHOTO = np.kron(COLOURS, np.ones((16, 16, 1), np.uint8))  # (32, 64, 3)
GREY = np.ascontiguousarray(PHOTO[..., 0])
GREY_AS_RGB = np.repeat(GREY[..., None], 3, axis=2)
INK_AS_RGB = np.where(GREY_AS_RGB > 127, 255, 0).astype(np.uint8)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(height: int, width: int, bits: int, rows: bytes, more: bytes = b"") -> bytes:
    """Write an RGB PNG by hand: Pillow writes no 16-bit colour, and no header that contradicts its pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def tiff(array: np.ndarray, bits: int = 16, photometric: int = 2, planar: int = 1) -> bytes:
    """Write an uncompressed little-endian TIFF of the bytes of `array`, in their order in memory."""
    height, width = array.shape[:2]
    samples = array.shape[2] if array.ndim == 3 else 1
    pixels = array.tobytes()
    strips, per_strip = (samples, len(pixels) // samples) if planar == 2 else (1, len(pixels))
    return directory(
        [
            (256, "I", [width]),
            (257, "I", [height]),
            (258, "H", [bits] * samples),
            (259, "H", [1]),
            (262, "H", [photometric]),
            (273, "I", [8 + i * per_strip for i in range(strips)]),
            (277, "H", [samples]),
            (278, "I", [height]),
            (279, "I", [per_strip] * strips),
            (284, "H", [planar]),
        ],
        pixels,
    )


def directory(tags: list[tuple[int, str, list[int]]], pixels: bytes = b"", following: int = 0) -> bytes:
    """Write a little-endian TIFF of one directory, with `pixels` at byte 8."""
    body = bytearray(b"II*\0" + b"\0" * 4 + pixels)
    entries = b""
    for tag, kind, values in sorted(tags):
        packed = struct.pack(f"<{len(values)}{kind}", *values)
        if len(packed) <= 4:  # values of at most 4 bytes are in the entry itself, others elsewhere in the file
            packed = packed.ljust(4, b"\0")
        else:
            body += packed
            packed = struct.pack("<I", len(body) - len(packed))
        entries += struct.pack("<HHI", tag, {"B": 7, "H": 3, "I": 4}[kind], len(values)) + packed
    body[4:8] = struct.pack("<I", len(body))
    return bytes(body + struct.pack("<H", len(tags)) + entries + struct.pack("<I", following))


def grey_tags(width: int, height: int, compression: int) -> list[tuple[int, str, list[int]]]:
    """Return the tags that a TIFF of one 8-bit channel needs, besides the place of its pixels."""
    return [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [8]),
        (259, "H", [compression]),
        (262, "H", [1]),
        (277, "H", [1]),
    ]
