"""The decoder refuses some files, with an ImageError that says why: no picture, a broken one, one that is too large."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.pictures import GREY, PHOTO, encode, png

from resegnet.errors import ImageError
from resegnet.image import MAX_PIXELS, read_image

# --- arrays


@pytest.mark.parametrize(
    ("array", "part"),
    [
        (np.zeros((3, 8, 8), np.uint8), "colours last"),
        (np.zeros((8, 8, 2), np.uint8), "shape"),
        (np.zeros(8, np.uint8), "shape"),
        (np.zeros((1, 8, 8, 3), np.uint8), "shape"),
        (np.zeros((), np.uint8), "shape"),
        (np.zeros((0, 8), np.uint8), "8 x 0 pixels"),
        (np.zeros((8, 8), np.int64), "int64"),
        (np.zeros((8, 8), complex), "complex128"),
        (np.full((8, 8), "a"), "<U1"),
        (np.full((8, 8), None), "object"),
        (np.full((8, 8), 200.0), "200"),
        (np.full((8, 8), -0.1), "-0.1"),
        (np.array([[0.5, np.nan]]), "nan"),
        (np.array([[0.5, np.inf]]), "inf"),
    ],
)
def test_arrays_that_are_no_photograph(array, part):
    with pytest.raises(ImageError, match=part):
        read_image(array)


# --- sources that cannot be read


@pytest.mark.parametrize("source", [None, 7, [1, 2], {"path": "a.png"}, object()])
def test_other_types_are_named(source):
    with pytest.raises(ImageError, match=type(source).__name__):
        read_image(source)


@pytest.mark.parametrize("path", ["", "nothing.png", "a\0b.png", "x" * 5000, "https://example.org/eye.png"])
def test_paths_that_lead_nowhere(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert len(str(caught.value)) < 300 and str(caught.value).isprintable()


def test_folders_and_pipes_are_refused_without_waiting(tmp_path):
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"pipe\.png"):
        read_image(tmp_path / "pipe.png")


def test_the_message_names_the_file_with_its_folder(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("no picture")
    expected = f"^'{re.escape(str(path))}' cannot be identified; expected a JPEG.*: convert"
    with pytest.raises(ImageError, match=expected):
        read_image(path)
    with path.open("rb") as file, pytest.raises(ImageError, match=expected):
        read_image(file)


@pytest.mark.parametrize("address", ["https://example.org/eye.png", "s3://bucket/eye.png", "file:///tmp/eye.png"])
def test_addresses_are_not_fetched(address):
    with pytest.raises(ImageError, match=f"^'{address}' is an address, and addresses are not fetched: download"):
        read_image(address)


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.fromarray(PHOTO).save(tmp_path / "eye.png")
    for source in ("~/eye.png", Path("~/eye.png")):
        np.testing.assert_array_equal(read_image(source), PHOTO)


def test_tensors_and_lists_are_told_what_to_do():
    import torch  # no other test of this file needs it

    tensor = torch.from_numpy(PHOTO).permute(2, 0, 1)
    with pytest.raises(
        ImageError, match=r"type Tensor is not a picture.* give tensor\.permute\(1, 2, 0\)\.cpu\(\)\.numpy"
    ):
        read_image(tensor)
    np.testing.assert_array_equal(read_image(tensor.permute(1, 2, 0).cpu().numpy()), PHOTO)
    with pytest.raises(ImageError, match=r"type list is not a picture.* one by one, and numbers as numpy\.array"):
        read_image(["left.png", "right.png"])
    np.testing.assert_array_equal(read_image(np.array(PHOTO.tolist(), np.uint8)), PHOTO)


def test_formats_that_pillow_reads_and_we_do_not():
    for kind in ("ICO", "TGA", "PCX", "EPS"):
        with pytest.raises(ImageError, match="cannot be identified"):
            read_image(encode(Image.fromarray(PHOTO), kind))


def test_broken_file_objects():
    class Broken(io.BytesIO):
        def read(self, *_):
            raise RuntimeError("connection lost")

    with pytest.raises(ImageError, match="cannot be read"):
        read_image(Broken())
    closed = io.BytesIO(b"x")
    closed.close()
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(closed)
    with pytest.raises(ImageError, match="binary mode"):
        read_image(io.StringIO("text"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP", "PPM", "GIF"])
def test_truncated_files(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), kind)
    for part in (0.05, 0.3, 0.6, 0.9):
        with pytest.raises(ImageError):
            read_image(data[: int(len(data) * part)])


# --- the pixel limit


def test_pixel_limit_is_exact_for_every_source():
    data = encode(Image.fromarray(PHOTO), "PNG")
    for source in (data, Image.fromarray(PHOTO), PHOTO, GREY / 255):
        assert read_image(source, max_pixels=32 * 64).shape == (32, 64, 3)
        with pytest.raises(ImageError, match="64 x 32 pixels"):
            read_image(source, max_pixels=32 * 64 - 1)


@pytest.mark.parametrize("side", [8_001, 9_500, 40_000])  # over our limit, over Pillow's warning, over its error
def test_oversize_is_refused_by_the_header_alone(side):
    data = png(side, side, 8, b"")
    assert side**2 > MAX_PIXELS
    with pytest.raises(ImageError, match=r"is larger than \d+ megapixels.*; reduce it first\.$"):
        read_image(data)
