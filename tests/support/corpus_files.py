"""Files that strangers send: every format, whole, cut and altered, odd metadata, and files that are no pictures."""

from __future__ import annotations

import io
import itertools
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms

from support.dicom import whole_dicom
from support.pictures import GREY, GREY_AS_RGB, INK_AS_RGB, PHOTO, directory, encode, png, tiff


class Case(NamedTuple):
    """An input to read. `make` creates it only when it is its turn, so that no case pays for another."""

    name: str
    make: Callable[[], Any]
    truth: np.ndarray | tuple[int, int] | None = None  # the right pixels, or (H, W); None: a picture or an ImageError
    refused: bool = False  # nothing but an ImageError is right


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
