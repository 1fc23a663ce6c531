"""Small files that claim or cost much memory or time."""

from __future__ import annotations

import itertools
import os
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from resegnet.image import MAX_PIXELS
from support.corpus_files import Case
from support.dicom import costly_dicom
from support.pictures import PHOTO, directory, encode, grey_tags, png, png_chunk, tiff


def claims(height: int, width: int) -> Iterator[tuple[str, bytes]]:
    """Yield headers without pixels."""
    yield "PNG", png(height, width, 8, b"")
    yield (
        "GIF",
        b"GIF89a"
        + struct.pack("<HH", width, height)
        + b"\0\0\0,\0\0\0\0"
        + struct.pack("<HH", width, height)
        + b"\0\2\0;",
    )
    yield "BMP", b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    yield "PPM", b"P6 %d %d 255\n" % (width, height)
    yield "PFM", b"Pf %d %d -1.0\n" % (width, height)
    yield "plain PPM", b"P3 %d %d 255\n" % (width, height)
    yield "odd PPM", b"P6 %d %d 100\n" % (width, height)
    yield (
        "JPEG",
        b"\xff\xd8\xff\xc0\0\x0b\x08" + struct.pack(">HH", height, width) + b"\1\1\x11\0\xff\xda\0\x08\1\1\0\0?\0",
    )
    yield (
        "TIFF",
        directory([*grey_tags(width, height, 1), (273, "I", [8]), (278, "I", [height]), (279, "I", [height * width])]),
    )
    canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    yield "WebP", b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0" + canvas
    lossless = struct.pack("<I", (width - 1) & 0x3FFF | ((height - 1) & 0x3FFF) << 14)
    yield "WebP lossless", b"RIFF\x12\0\0\0WEBPVP8L\x05\0\0\0\x2f" + lossless + b"\0"


def repeated(n: int, size: int) -> bytes:
    """Write a directory of `n` entries that all point to the same `size` bytes: the file itself."""
    entries = b"".join(struct.pack("<HHII", 500 + i, 7, size, 0) for i in range(n))
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", n) + entries + b"\0" * 4).ljust(size, b"\0")


def jpeg_with_exif(exif: bytes) -> bytes:
    data = encode(Image.fromarray(PHOTO), "JPEG")
    parts = [exif[at : at + 65_000] for at in range(0, len(exif), 65_000)]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", 8 + len(part)) + b"Exif\0\0" + part for part in parts)
    return data[:2] + segments + data[4 + int.from_bytes(data[4:6], "big") :]  # without JFIF's head


def scans(side: int, count: int) -> bytes:
    """Write a progressive JPEG with `count` scans of the whole picture."""
    data = encode(Image.new("L", (side, side)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def run_length_bmp(width: int, height: int, data: bytes) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<III", 1078 + len(data), 0, 1078) + header + bytes(1024) + data


def text_chunks() -> Iterator[tuple[str, bytes]]:
    bomb = zlib.compress(bytes(100_000_000))
    yield "zTXt", b"Comment\0\0" + bomb
    yield "iTXt", b"Comment\0\1\0\0\0" + bomb
    yield "iCCP", b"profile\0\0" + bomb


def tile(side: int, compression: int) -> bytes:
    """Write a small TIFF of one huge tile."""
    return directory(
        [*grey_tags(64, 64, compression), (322, "I", [side]), (323, "I", [side]), (324, "I", [8]), (325, "I", [100])],
        zlib.compress(bytes(100_000))[:100].ljust(100, b"\0"),
    )


def costly(folder: Path) -> Iterator[Case]:
    for side in (16_384, 20_000, 65_535):
        for name, data in claims(side, side):
            yield Case(f"{name} claims {side} x {side}", partial(bytes, data), refused=True)
    for name, data in claims(8000, 8000):
        yield Case(f"{name} claims 8000 x 8000", partial(bytes, data), refused=name != "JPEG")
    for name, data in claims(1, 65_000):
        yield Case(f"{name} claims 65000 x 1", partial(bytes, data))
    big = {"mode": "RGBA", "size": (8000, 8000)}
    for kind, options in (("PNG", {"compress_level": 1}), ("TIFF", {"compression": "tiff_lzw"})):
        exif = Image.Exif()
        exif[0x0112] = 6
        yield Case(
            f"{kind}, 64 megapixels",
            lambda k=kind, o=options, e=exif: encode(Image.new(**big), k, exif=e, **o),
            (8000, 8000),
        )
    yield Case("PNG, black and white, 64 megapixels", lambda: encode(Image.new("1", (8000, 8000)), "PNG"), (8000, 8000))
    yield Case("PNG, 64 million x 1", lambda: encode(Image.new("1", (MAX_PIXELS, 1)), "PNG"), (1, MAX_PIXELS))
    yield Case(
        "TIFF of floats, 64 megapixels",
        lambda: encode(Image.new("F", (8000, 8000)), "TIFF", compression="tiff_lzw"),
        (8000, 8000),
    )
    yield Case("progressive JPEG, 64 megapixels", partial(scans, 8000, 1), (8000, 8000))
    yield Case(
        "WebP, 49 megapixels",
        lambda: encode(Image.new("RGB", (7000, 7000)), "WEBP", lossless=True, method=0),
        (7000, 7000),
    )
    yield Case(
        "WebP, 64 megapixels",
        lambda: encode(Image.new("RGB", (8000, 8000)), "WEBP", lossless=True, method=0),
        refused=True,
    )
    yield Case("floats, 64 megapixels", lambda: np.broadcast_to(0.5, (8000, 8000, 3)), (8000, 8000))
    yield Case("a progressive JPEG of 1000 scans", partial(scans, 8000, 1000), refused=True)
    yield Case("a progressive JPEG of 100000 scans", partial(scans, 32, 100_000), refused=True)
    jpeg = scans(2000, 90)
    strip = [*grey_tags(2000, 2000, 7), (273, "I", [8]), (278, "I", [2000]), (279, "I", [len(jpeg)])]
    yield Case("a TIFF of a progressive JPEG", partial(directory, strip, jpeg), refused=True)
    yield Case("TIFF, 65000 entries of the same bytes", partial(repeated, 65_000, 800_000), refused=True)
    for size, count in ((65_000, 5_000), (780_000, 64_000)):
        for kind in ("JPEG", "PNG", "WEBP"):
            exif = repeated(count, size)
            make = (
                partial(jpeg_with_exif, exif)
                if kind == "JPEG"
                else partial(encode, Image.fromarray(PHOTO), kind, exif=exif)
            )
            yield Case(f"{kind}, EXIF of {count} entries of the same bytes", make, refused=True)
    hexed = "\nexif\n  1\n" + repeated(30_000, 400_000).hex()
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", hexed, zip=True)
    yield Case(
        "PNG, EXIF as hexadecimal text, likewise",
        partial(encode, Image.fromarray(PHOTO), "PNG", pnginfo=info),
        refused=True,
    )
    yield Case("BMP, run lengths: a leap of 16 GB", partial(run_length_bmp, 64_000_000, 1, b"\0\2\0\xff"), refused=True)
    yield Case("BMP, run lengths: an end of line", partial(run_length_bmp, 64_000_000, 1, b"\1\1\0\0"), refused=True)
    yield Case("plain PPM of comments", partial(bytes, b"P3 10 10 255\n" + b"#\n" * 2_000_000), refused=True)
    yield Case("plain PPM", partial(bytes, b"P3 1000 1000 255\n" + b"7 " * 3_000_000), refused=True)
    yield Case("PGM of 12 bit", partial(bytes, b"P5 4000 4000 4095\n" + bytes(32_000_000)), refused=True)
    comment = b"!\xfe" + (b"\xff" + b"a" * 255) * 80_000 + b"\0"
    yield Case("GIF of a long comment", lambda: b"GIF89a\x08\0\x08\0\0\0\0" + comment + b";", refused=True)
    yield Case(
        "GIF of small comments",
        partial(bytes, b"GIF89a\x08\0\x08\0\0\0\0" + b"!\xfe\1a\0" * 2_000_000 + b";"),
        refused=True,
    )
    for name, body in text_chunks():
        more = png_chunk(name[:4].encode(), body)
        yield Case(f"PNG, 100 MB in {name}", partial(png, 1, 1, 8, b"\0abc", more))
    yield Case("PNG of a million chunks", partial(png, 1, 1, 8, b"\0abc", png_chunk(b"tEXt", b"a\0b") * 1_000_000))
    yield Case("PNG of too many rows", partial(png, 2, 2, 8, bytes(100_000_000)))
    yield Case(
        "JPEG of a million segments",
        lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 1_000_000 + encode(Image.fromarray(PHOTO), "JPEG")[2:],
    )
    yield Case(
        "JPEG of padding", lambda: b"\xff\xd8" + b"\xff" * 10_000_000 + encode(Image.fromarray(PHOTO), "JPEG")[2:]
    )
    for side, compression in itertools.product((60_000, 30_000, 20_000, 2**31 - 1), (1, 5, 7, 8)):
        yield Case(f"TIFF, a tile of {side}, compression {compression}", partial(tile, side, compression), refused=True)
    for count in (10_000, 3_000_000):
        strips = [*grey_tags(64, 64, 5), (273, "I", [8] * count), (278, "I", [1]), (279, "I", [2**31] * count)]
        yield Case(f"TIFF of {count} strips", partial(directory, strips))
    yield Case("TIFF, its directory follows itself", lambda: (d := tiff(PHOTO, bits=8))[:-4] + d[4:8], PHOTO)
    yield Case(
        "BigTIFF of endless entries",
        partial(bytes, b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**60) + b"\1" * 5_000_000),
    )
    for name, make, truth in costly_dicom(scans(8000, 1000)):
        yield Case(name, make, truth, refused=truth is None)
    sparse = folder / "sparse.png"
    sparse.write_bytes(png(1, 1, 8, b"\0abc")[:33] + struct.pack(">I", 2**31 - 1) + b"tEXt")
    os.truncate(sparse, 2**37)
    yield Case("a file of 128 GB", partial(Path, sparse), refused=True)
