"""Inputs that strangers send: files of every format, whole, cut and altered, costly and hostile ones, and odd objects.

Run as a program, it reads them all in one process and prints a line of JSON for each: the outcome, the processor time
and the peak of additional memory.
"""

from __future__ import annotations

import faulthandler
import io
import itertools
import json
import os
import pickle
import resource
import struct
import sys
import time
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from resegnet.config import Config
from resegnet.errors import ImageError
from resegnet.image import MAX_PIXELS, read_image
from resegnet.segmenter import Segmenter
from support.dicom import costly_dicom, whole_dicom

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

HANGS_S = 180  # wall time on a busy machine, after which the process is stopped with a traceback
SEGMENTED_PX = 1_000_000  # larger pictures are read, but not segmented


class Case(NamedTuple):
    """An input to read. `make` creates it only when it is its turn, so that no case pays for another."""

    name: str
    make: Callable[[], Any]
    truth: np.ndarray | tuple[int, int] | None = None  # the right pixels, or (H, W); None: a picture or an ImageError
    refused: bool = False  # nothing but an ImageError is right


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


# --- every format and mode, whole, cut, altered


def whole_files() -> Iterator[tuple[str, bytes, np.ndarray | tuple[int, int]]]:
    rgb, grey = Image.fromarray(PHOTO), Image.fromarray(GREY)
    ink, palette = Image.fromarray(GREY > 127), Image.fromarray(PHOTO).quantize(8)
    alpha = Image.fromarray(np.where(np.arange(64) < 32, 0, 255).astype(np.uint8) * np.ones((32, 1), np.uint8))
    clear = np.asarray(alpha)[..., None] > 0
    rgba, la = Image.merge("RGBA", [*rgb.split(), alpha]), Image.merge("LA", [grey, alpha])
    wide, real = Image.fromarray(GREY.astype(np.uint16) * 257), Image.fromarray(GREY / np.float32(255))
    integers = Image.fromarray(GREY.astype(np.int32) * 257)
    shape = PHOTO.shape[:2]
    for kind in ("PNG", "TIFF", "BMP", "PPM", "GIF"):
        yield f"{kind} 1", encode(ink, kind), INK_AS_RGB
        yield f"{kind} L", encode(grey, kind), GREY_AS_RGB
        yield f"{kind} RGB", encode(rgb, kind), PHOTO
    for kind in ("PNG", "TIFF", "BMP", "GIF"):
        yield f"{kind} P", encode(palette, kind), PHOTO
    white_gone = np.where((PHOTO == 255).all(axis=2, keepdims=True), 0, PHOTO)
    for kind in ("PNG", "GIF"):
        yield f"{kind} P transparent", encode(palette, kind, transparency=palette.getpixel((24, 8))), white_gone
    for kind in ("PNG", "TIFF"):
        yield f"{kind} RGBA", encode(rgba, kind), PHOTO * clear
        yield f"{kind} LA", encode(la, kind), GREY_AS_RGB * clear
    for kind in ("PNG", "TIFF", "PPM"):
        yield f"{kind} I;16", encode(wide, kind), GREY_AS_RGB
    yield "TIFF I", encode(integers, "TIFF"), GREY_AS_RGB
    yield "TIFF F", encode(real, "TIFF"), GREY_AS_RGB
    yield "TIFF F deflate", encode(real, "TIFF", compression="tiff_adobe_deflate"), GREY_AS_RGB
    yield "TIFF CMYK", encode(rgb.convert("CMYK"), "TIFF"), PHOTO
    yield "TIFF 16-bit RGB", tiff(PHOTO.astype(np.uint16) * 257), PHOTO
    yield "PNG 16-bit RGB", png(*shape, 16, b"".join(b"\0" + row.tobytes() for row in PHOTO.astype(">u2") * 257)), PHOTO
    for compression in ("tiff_lzw", "packbits", "tiff_adobe_deflate", "zstd", "lzma"):
        yield f"TIFF {compression}", encode(rgb, "TIFF", compression=compression), PHOTO
    yield "TIFF group 4", encode(ink, "TIFF", compression="group4"), INK_AS_RGB
    yield "TIFF jpeg", encode(rgb, "TIFF", compression="jpeg"), shape
    yield "TIFF tiled", encode(rgb, "TIFF", compression="tiff_lzw", tiffinfo={322: 16, 323: 16}), shape
    yield "TIFF pages", encode(rgb, "TIFF", save_all=True, append_images=[grey, ink]), PHOTO
    yield "BigTIFF", encode(rgb, "TIFF", big_tiff=True), PHOTO
    for mode in ("L", "RGB", "CMYK", "YCbCr"):
        for options in ({}, {"progressive": True}):
            yield f"JPEG {mode} {options}", encode(rgb.convert(mode), "JPEG", quality=95, **options), shape
    cmyk = encode(rgb.convert("CMYK"), "JPEG", quality=95)
    adobe = cmyk.index(b"Adobe")
    yield (
        "JPEG YCCK",
        cmyk[: adobe + 11] + b"\2" + cmyk[adobe + 12 :],
        shape,
    )  # the transform that Adobe's marker states
    yield "WebP lossless", encode(rgb, "WEBP", lossless=True), PHOTO
    yield "WebP RGBA", encode(rgba, "WEBP", lossless=True, exact=True), PHOTO * clear
    yield "WebP lossy", encode(rgb, "WEBP"), shape
    for kind, name, options in (("GIF", "GIF", {}), ("WEBP", "WebP", {"lossless": True}), ("PNG", "APNG", {})):
        frames = {"save_all": True, "append_images": [Image.fromarray(255 - GREY_AS_RGB)]}
        yield f"{name} animated", encode(Image.fromarray(GREY_AS_RGB), kind, **frames, **options), GREY_AS_RGB
    yield from whole_dicom(PHOTO)


def files(folder: Path) -> Iterator[Case]:
    random = np.random.default_rng(7)
    wrong = itertools.cycle([".jpg", ".png", ".tif", ".gif", ".txt", ""])
    for name, data, truth in whole_files():
        yield Case(name, partial(bytes, data), truth)
        for tenth in range(1, 10):
            yield Case(f"{name}, {tenth} tenths", partial(bytes, data[: len(data) * tenth // 10]))
        for kind, positions in (("head", min(len(data), 200)), ("all", len(data))):
            altered = np.frombuffer(data, np.uint8).copy()
            altered[random.integers(positions, size=4)] ^= random.integers(1, 256, 4, dtype=np.uint8)
            yield Case(f"{name}, flipped in {kind}", altered.tobytes)
        path = folder / f"{name}{next(wrong)}".replace(" ", "_")
        path.write_bytes(data)
        yield Case(f"{path.name} by its wrong name", partial(Path, path), truth)
        behind = b"PK\3\4 <html><script>alert(1)</script></html> */=1; %PDF-1.7"
        yield Case(f"{name} and a polyglot's tail", partial(bytes, data + behind), truth)


# --- metadata


def with_metadata() -> Iterator[Case]:
    rgb = Image.fromarray(PHOTO)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profiles = {"valid": srgb, "broken": b"\xff" * 300, "huge": bytes(900_000)}
    for kind in ("JPEG", "PNG", "TIFF", "WEBP"):
        for name, profile in profiles.items():
            options = {"lossless": True} if kind == "WEBP" else {}
            truth = PHOTO.shape[:2] if kind == "JPEG" else PHOTO
            yield Case(f"{kind}, {name} profile", partial(encode, rgb, kind, icc_profile=profile, **options), truth)
        for orientation in (*range(1, 9), 0, 9, 65535):
            exif = Image.Exif()
            exif[0x0112] = orientation
            truth = PHOTO.shape[:2] if orientation not in (5, 6, 7, 8) else PHOTO.shape[1::-1]
            yield Case(f"{kind}, orientation {orientation}", partial(encode, rgb, kind, exif=exif), truth)
        lies = {
            "text": b"Exif\0\0no header at all",
            "loop": b"Exif\0\0" + directory([(0x8769, "I", [8]), (0x8825, "I", [8])], following=8),
            "beyond": b"Exif\0\0II*\0\xff\xff\xff\xff",
            "counts": b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHII", 0x0112, 3, 2**32 - 1, 8) * 40,
            "orientation as bytes": b"Exif\0\0" + directory([(0x0112, "B", [6] * 60_000)]),
        }
        for name, exif in lies.items():
            if kind != "TIFF":
                yield Case(f"{kind}, EXIF: {name}", partial(encode, rgb, kind, exif=exif), PHOTO.shape[:2])


# --- costly files


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


# --- files that are not pictures


def foreign(folder: Path) -> Iterator[Case]:
    class Boom:
        def __reduce__(self):
            return Path.touch, (folder / "executed",)

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("eye.png", encode(Image.fromarray(PHOTO), "PNG"))
    contents = {
        "nothing": b"",
        "a byte": b"\0",
        "zeros": bytes(100_000),
        "text": b"no picture",
        "pickle": pickle.dumps(Boom()),
        "zip": archive.getvalue(),
        "html": b"<!doctype html><img src=x onerror=alert(1)>",
        "pdf": b"%PDF-1.7\n%%EOF",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n("
        + bytes(folder / "executed")
        + b") (w) file closefile\n",
        "avif": b"\0\0\0\x20ftypavif" + bytes(24),
        "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
        "psd": b"8BPS\0\1" + bytes(40),
        "icns": b"icns" + bytes(20),
        "fits": b"SIMPLE  =                    T".ljust(2880),
        "wmf": b"\xd7\xcd\xc6\x9a" + bytes(30),
        "BUFR": b"BUFR" + bytes(20),
        "gzip": b"\x1f\x8b\x08" + bytes(30),
        "pcx": b"\x0a\5\1\x08" + bytes(130),
    }
    for name, data in contents.items():
        for extension in (name, "jpg", "tif"):
            path = folder / f"foreign.{extension}"
            yield Case(f"{name} as .{extension}", lambda p=path, d=data: (p.write_bytes(d), p)[1], refused=True)
    os.mkfifo(folder / "pipe.png")
    (folder / "nowhere.png").symlink_to(folder / "not there")
    (folder / "itself.png").symlink_to(folder / "itself.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "folder.png").mkdir()
    paths = ["pipe.png", "nowhere.png", "itself.png", "zero.png", "folder.png", "folder.png/x.png", "a" * 300]
    for path in [
        *(folder / name for name in paths),
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/mem",
        "\0",
        "",
        "~",
        "-",
        "\ud800",
    ]:
        yield Case(f"path {str(path)[-20:]!a}", lambda p=path: p, refused=True)


# --- objects


class Reader:
    """A file object with the given `read` method and attributes."""

    def __init__(self, read: Callable[[int], Any], **attributes: Any) -> None:
        self.read = read
        self.seekable = lambda: False
        vars(self).update(attributes)


class Raises:
    """An object that raises on every attribute."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return Raises
        raise RuntimeError(name)


class LyingPath(os.PathLike):
    def __init__(self, path: Any) -> None:
        self.path = path

    def __fspath__(self) -> Any:
        if isinstance(self.path, Exception):
            raise self.path
        return self.path


def objects() -> Iterator[Case]:
    good = encode(Image.fromarray(PHOTO), "PNG")
    reads = {
        "more than asked for": lambda n: good * 2 if n else b"",
        "endless zeros": lambda n: bytes(min(n, 10**6)),
        "endless single bytes": lambda n: b"P",
        "text": lambda n: "text",
        "None": lambda n: None,
        "numbers": lambda n: 7,
        "a list": lambda n: [1, 2],
        "an array": lambda n: PHOTO,
        "less each time": iter([good[:9], b""]).__next__,
        "floats in a view": lambda n: memoryview(np.zeros(9)),
        "an error": lambda n: 1 // 0,
        "recursion": lambda n: (lambda f: f(f))(lambda f: f(f)),
    }
    for name, read in reads.items():
        yield Case(f"read gives {name}", partial(Reader, read))
    yield Case("seek raises", partial(Reader, lambda n: good, seekable=lambda: 1 // 0), refused=True)
    yield Case("a name of many lines", partial(Reader, lambda n: b"", name="a\n\x1b[31m" * 10**6), refused=True)
    yield Case("a name that is a number", partial(Reader, lambda n: b"", name=3), refused=True)
    yield Case("/dev/zero, opened", lambda: open("/dev/zero", "rb"), refused=True)  # noqa: SIM115
    yield Case("every attribute raises", Raises, refused=True)
    for path in (7, None, RuntimeError("no path")):
        yield Case(f"a path object that gives {path!r}", partial(LyingPath, path), refused=True)
    yield Case("every second byte", lambda: memoryview(b"".join(bytes([b, 0]) for b in good))[::2], PHOTO)
    released = memoryview(good)
    released.release()
    yield Case("a released view", lambda: released, refused=True)
    for thing in (
        None,
        7,
        1.5,
        object(),
        {},
        [],
        (),
        int,
        read_image,
        "x" * 10**7,
        b"x" * 10**7,
        type("T" * 10**6, (), {})(),
    ):
        yield Case(f"{type(thing).__name__[:20]} object", lambda t=thing: t, refused=True)
    for mode in Image.MODES:
        yield Case(f"Pillow {mode}", partial(Image.new, mode, (40, 30)))
    for mode in ("LAB", "HSV", "YCbCr", "La", "RGBa", "RGBX", "PA", "I;16B", "I;16L"):
        yield Case(f"Pillow {mode}, odd", partial(Image.new, mode, (40, 30)))
    closed = Image.open(io.BytesIO(good))
    closed.close()
    yield Case("a closed Pillow image", lambda: closed, refused=True)
    yield Case("an empty Pillow image", partial(Image.new, "RGB", (0, 0)), refused=True)

    ramp = np.linspace(0, 1, 40 * 30).reshape(40, 30)
    arrays = {
        "nan": np.full((9, 9), np.nan),
        "inf": np.full((9, 9), -np.inf),
        "nan in half precision": np.full((9, 9), np.nan, "e"),
        "nan in long doubles": np.full((9, 9), np.nan, "g"),
        "negative floats": ramp - 1,
        "huge floats": ramp * 1e308,
        "complex": ramp + 1j,
        "objects": np.full((9, 9), 10**400, object),
        "text": np.full((9, 9), "eye"),
        "dates": np.zeros((9, 9), "M8[s]"),
        "huge integers": np.full((9, 9), 2**63, "u8"),
        "no pixels": np.zeros((0, 9)),
        "no columns": np.zeros((9, 0, 3)),
        "no colours": np.zeros((9, 9, 0)),
        "5-D": np.zeros((1, 1, 9, 9, 3)),
        "64-D": np.zeros((1,) * 64),
        "0-D": np.zeros(()),
        "many fields": np.zeros((9, 9), [(f"field{i}" * 20, "u1") for i in range(2000)]),
        "300 colours": np.zeros((9, 9, 300)),
        "oversize": np.broadcast_to(np.uint8(1), (20_000, 20_000, 3)),
        "signed": np.zeros((9, 9), "i1"),
        "void": np.zeros((9, 9), "V1000000"),
    }
    for name, array in arrays.items():
        yield Case(f"array: {name}", lambda a=array: a, refused=True)
    rounded = np.repeat(np.rint(ramp * 255).astype(np.uint8)[..., None], 3, axis=2)
    good_arrays = {
        "floats": (ramp, rounded),
        "byte-swapped floats": (ramp.astype(">f8"), rounded),
        "long doubles": (ramp.astype("g"), rounded),
        "columns first": (np.asfortranarray(PHOTO), PHOTO),
        "steps": (PHOTO[::-2, ::3], PHOTO[::-2, ::3]),
        "byte-swapped integers": (PHOTO.astype(">u2") * 257, PHOTO),
        "masked": (np.ma.masked_array(PHOTO, PHOTO > 9), PHOTO),
        "read-only": (np.frombuffer(PHOTO.tobytes(), "u1").reshape(PHOTO.shape), PHOTO),
        "strides of 0": (np.broadcast_to(np.uint8(7), (40, 30)), np.full((40, 30, 3), 7, np.uint8)),
        "1 x 1": (np.zeros((1, 1)), (1, 1)),
        "1 x 20000": (np.zeros((20_000, 1)), (20_000, 1)),
        "20000 x 1": (np.zeros((1, 20_000, 3)), (1, 20_000)),
        "24 x 100000": (np.tile(rounded[:24], (1, 4000, 1))[:, :100_000], (24, 100_000)),
        "lone pixels": (np.eye(600) > 0, (600, 600)),
    }
    for name, (array, truth) in good_arrays.items():
        yield Case(f"array: {name}", lambda a=array: a, truth)


def cases(folder: Path) -> Iterator[Case]:
    yield from files(folder)
    yield from with_metadata()
    yield from foreign(folder)
    yield from objects()
    yield from costly(folder)


# --- reading them


def memory_mb(field: str) -> float:
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) / 1024


def outcome(case: Case, segmenter: Segmenter) -> dict[str, Any]:
    source = case.make()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak of memory
    before, start = memory_mb("VmRSS"), time.process_time()
    told: dict[str, Any] = {"case": case.name, "refused": case.refused, "fault": ""}
    image = None
    try:
        image = read_image(source)
    except ImageError as error:
        told["message"] = str(error)
    except BaseException:
        told["fault"] = traceback.format_exc()
    told |= {"seconds": time.process_time() - start, "mb": memory_mb("VmHWM") - before}
    if image is not None:
        told["shape"] = image.shape
        if case.refused:
            told["fault"] = "was read"
        elif image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.flags.writeable:
            told["fault"] = f"{image.dtype} {image.shape}"
        elif isinstance(case.truth, tuple) and image.shape[:2] != case.truth:
            told["fault"] = f"{image.shape} instead of {case.truth}"
        elif isinstance(case.truth, np.ndarray) and not np.array_equal(image, case.truth):
            told["fault"] = "other pixels"
    elif case.truth is not None and not told["fault"]:
        told["fault"] = told["message"]
    if image is not None and image.size <= 3 * SEGMENTED_PX:
        start = time.process_time()
        try:
            result = segmenter(image)
            if result.mask.shape != image.shape[:2] or not np.isfinite(result.probability).all():
                told["fault"] = "a wrong segmentation"
        except BaseException:
            told["fault"] = traceback.format_exc()
        told["segmented_s"] = time.process_time() - start
    return told


def main() -> None:
    folder = Path(sys.argv[1])
    # The network does not matter here; the steps round it do.
    segmenter = Segmenter(lambda rgb: rgb[:, 1], Config(input_size=64))
    segmenter(PHOTO)
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # protects the machine of the test if a limit fails
    for case in cases(folder):
        print(json.dumps({"begun": case.name}), flush=True)
        faulthandler.dump_traceback_later(HANGS_S, exit=True)
        print(json.dumps(outcome(case, segmenter)), flush=True)
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
