"""The decoder: every kind of source gives the same 8-bit RGB."""

from __future__ import annotations

import io
import os
import threading
import warnings

import numpy as np
import pytest
from PIL import Image
from support.pictures import COLOURS, GREY, GREY_AS_RGB, PHOTO, encode, png, tiff

from resegnet.errors import ImageError
from resegnet.image import read_image


def block_middles(image: np.ndarray) -> np.ndarray:
    return image[8::16, 8::16].astype(int)


# --- sources


def test_every_kind_of_source_gives_the_same_pixels(tmp_path):
    path = tmp_path / "Auge ä.png"
    path.write_bytes(encode(Image.fromarray(PHOTO), "PNG"))
    data = path.read_bytes()
    with path.open("rb") as stream:
        stream.seek(0, os.SEEK_END)  # the position after writing
        sources = [path, str(path), data, bytearray(data), memoryview(data), stream, Image.open(path), PHOTO]
        for source in sources:
            image = read_image(source)
            assert image.dtype == np.uint8
            assert image.flags.c_contiguous and image.flags.writeable
            np.testing.assert_array_equal(image, PHOTO)


def test_a_stream_that_cannot_seek_is_read():
    class Stream(io.RawIOBase):
        left = encode(Image.fromarray(PHOTO), "PNG")

        def readable(self):
            return True

        def readinto(self, buffer):
            part, self.left = self.left[: len(buffer)], self.left[len(buffer) :]
            buffer[: len(part)] = part
            return len(part)

    np.testing.assert_array_equal(read_image(Stream()), PHOTO)


def test_the_result_is_the_callers_own():
    array = PHOTO.copy()
    read_image(array)[:] = 7
    np.testing.assert_array_equal(array, PHOTO)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM"])
def test_lossless_formats(kind):
    np.testing.assert_array_equal(read_image(encode(Image.fromarray(PHOTO), kind)), PHOTO)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats(kind):
    image = read_image(encode(Image.fromarray(PHOTO), kind, quality=95))
    assert image.shape == PHOTO.shape
    assert np.abs(block_middles(image) - COLOURS).max() <= 6


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff(compression):
    data = encode(Image.fromarray(PHOTO), "TIFF", compression=compression)
    np.testing.assert_array_equal(read_image(data), PHOTO)


# --- modes


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM", "GIF"])
def test_grey_becomes_three_equal_channels(kind):
    np.testing.assert_array_equal(read_image(encode(Image.fromarray(GREY), kind)), GREY_AS_RGB)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM", "GIF"])
def test_black_and_white(kind):
    ink = GREY > 127
    expected = np.repeat(np.uint8(255) * ink[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_image(encode(Image.fromarray(ink), kind)), expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_palette(kind):
    image = Image.fromarray(PHOTO).quantize(8)
    assert image.mode == "P"
    np.testing.assert_array_equal(read_image(encode(image, kind)), PHOTO)


def test_transparent_palette_shows_black():
    image = Image.fromarray(PHOTO).quantize(8)
    clear = image.getpixel((24, 8))  # the white block
    expected = PHOTO.copy()
    expected[(PHOTO == 255).all(axis=2)] = 0
    np.testing.assert_array_equal(read_image(encode(image, "PNG", transparency=clear)), expected)
    np.testing.assert_array_equal(read_image(encode(image, "GIF", transparency=clear)), expected)


def test_transparent_colour_without_alpha_channel_shows_black():
    expected = PHOTO.copy()
    expected[(PHOTO == 255).all(axis=2)] = 0
    data = encode(Image.fromarray(PHOTO), "PNG", transparency=(255, 255, 255))
    np.testing.assert_array_equal(read_image(data), expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_laid_over_black(kind):
    alpha = np.full(GREY.shape, 255, np.uint8)
    alpha[:16], alpha[16:, :32] = 0, 128
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    image = read_image(encode(Image.fromarray(np.dstack([PHOTO, alpha])), kind, **options))
    assert not image[:16].any()
    assert np.abs(image[16:, :32] - PHOTO[16:, :32] * (128 / 255)).max() <= 1
    np.testing.assert_array_equal(image[16:, 32:], PHOTO[16:, 32:])


def test_grey_with_alpha():
    alpha = np.where(np.arange(64) < 32, 0, 255).astype(np.uint8) * np.ones((32, 1), np.uint8)
    image = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])
    np.testing.assert_array_equal(read_image(encode(image, "PNG")), GREY_AS_RGB * (alpha[..., None] > 0))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    # Pillow writes CMYK JPEG as Adobe does, inverted and marked so. Read wrongly, it becomes a negative.
    data = encode(Image.fromarray(PHOTO).convert("CMYK"), kind, **({"quality": 95} if kind == "JPEG" else {}))
    assert kind != "JPEG" or b"Adobe" in data
    assert np.abs(block_middles(read_image(data)) - COLOURS).max() <= 6


def test_exif_orientation_stands_the_picture_up():
    upright = {
        1: PHOTO,
        2: PHOTO[:, ::-1],
        3: PHOTO[::-1, ::-1],
        4: PHOTO[::-1],
        5: PHOTO.transpose(1, 0, 2),
        6: np.rot90(PHOTO, -1),
        7: PHOTO[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(PHOTO),
    }
    for orientation, expected in upright.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        for kind in ("PNG", "TIFF"):
            data = encode(Image.fromarray(PHOTO), kind, exif=exif)
            np.testing.assert_array_equal(read_image(data), expected, err_msg=f"{kind}, {orientation}")
        np.testing.assert_array_equal(read_image(Image.open(io.BytesIO(data))), expected)
        jpeg = read_image(encode(Image.fromarray(PHOTO), "JPEG", exif=exif, quality=95))
        assert np.abs(block_middles(jpeg) - block_middles(expected)).max() <= 6


def test_damaged_exif_does_not_spoil_a_good_picture():
    data = encode(Image.fromarray(PHOTO), "PNG", exif=b"Exif\x00\x00no header at all")
    np.testing.assert_array_equal(read_image(data), PHOTO)


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "WEBP"])
def test_first_of_several(kind):
    first, second = Image.fromarray(GREY_AS_RGB), Image.fromarray(255 - GREY_AS_RGB)
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(first, kind, save_all=True, append_images=[second], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    np.testing.assert_array_equal(read_image(data), GREY_AS_RGB)


# --- 16 bit and float


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_keeps_the_high_byte(kind):
    wide = GREY.astype(np.uint16) * 257
    wide[0, :4] = [0, 255, 256, 65535]
    image = read_image(encode(Image.fromarray(wide), kind))
    np.testing.assert_array_equal(image[1:], GREY_AS_RGB[1:])
    np.testing.assert_array_equal(image[0, :4], np.repeat([[0], [0], [1], [255]], 3, axis=1))


def png_16_bit_rgb(array: np.ndarray) -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    return png(*array.shape[:2], 16, rows)


@pytest.mark.parametrize("write", [png_16_bit_rgb, tiff])
def test_16_bit_colour_files(write):
    np.testing.assert_array_equal(read_image(write(PHOTO.astype(np.uint16) * 257)), PHOTO)


def test_16_bit_files_and_arrays_agree_on_every_value():
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = read_image(ramp)
    assert (np.diff(expected[..., 0].ravel().astype(int)) >= 0).all() and expected[0, 0, 0] == 0
    assert expected[-1, -1, 0] == 255
    np.testing.assert_array_equal(read_image(encode(Image.fromarray(ramp), "PNG")), expected)
    np.testing.assert_array_equal(read_image(png_16_bit_rgb(np.dstack([ramp] * 3))), expected)
    np.testing.assert_array_equal(read_image(ramp.astype(">u2")), expected)


def test_tiff_layouts_that_pillow_misreads_are_refused():
    wide = PHOTO.astype(np.uint16) * 257
    planes = np.ascontiguousarray(wide.transpose(2, 0, 1)).reshape(wide.shape)
    for data in (tiff(planes, planar=2), tiff(65535 - wide[..., 0], photometric=0)):
        with pytest.raises(ImageError, match="rare layout"):
            read_image(data)
    np.testing.assert_array_equal(read_image(tiff(wide[..., 0], photometric=1)), GREY_AS_RGB)
    np.testing.assert_array_equal(read_image(tiff(255 - GREY, bits=8, photometric=0)), GREY_AS_RGB)


def test_float_tiff():
    np.testing.assert_array_equal(read_image(encode(Image.fromarray(GREY / np.float32(255)), "TIFF")), GREY_AS_RGB)
    with pytest.raises(ImageError, match=r"from 0 to 255.*\[0, 1\]"):
        read_image(encode(Image.fromarray(GREY.astype(np.float32)), "TIFF"))


def test_32_bit_integers_that_hold_8_bits_are_read_so_and_larger_ones_are_refused():
    eight_bits = Image.fromarray(GREY.astype(np.int32))
    np.testing.assert_array_equal(read_image(encode(eight_bits, "TIFF")), GREY_AS_RGB)
    np.testing.assert_array_equal(read_image(eight_bits), GREY_AS_RGB)
    with pytest.raises(ImageError, match="16 bit"):
        read_image(encode(Image.fromarray(GREY.astype(np.int32) * 1000), "TIFF"))


# --- arrays


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (PHOTO[..., :1], GREY_AS_RGB),
        (GREY, GREY_AS_RGB),
        (GREY > 127, 255 * (GREY_AS_RGB > 127)),
        (PHOTO.astype(np.uint16) * 257, PHOTO),
        (PHOTO / 255, PHOTO),
        (PHOTO / np.float32(255), PHOTO),
        (PHOTO[::-1, ::-1], PHOTO[::-1, ::-1]),
        (np.asfortranarray(PHOTO), PHOTO),
        (np.dstack([PHOTO, np.full_like(GREY, 255)]), PHOTO),
        (np.dstack([PHOTO, np.zeros_like(GREY)]), np.zeros_like(PHOTO)),
        (np.dstack([PHOTO / 255, np.ones(GREY.shape)]), PHOTO),
        (np.zeros((1, 1), np.uint8), np.zeros((1, 1, 3))),
    ],
)
def test_arrays(array, expected):
    image = read_image(array)
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, expected)


def test_half_precision_rounds_to_the_nearest_level():
    levels = np.linspace(0, 1, 1001)[None].astype(np.float16)
    assert np.abs(read_image(levels)[0, :, 0] - levels[0].astype(float) * 255).max() <= 0.5 + 1e-3


# --- settings of others


def test_pillows_settings_and_the_warning_filters_stay_as_they_were():
    data = encode(Image.fromarray(PHOTO), "PNG")
    filters, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    threads = [threading.Thread(target=lambda: [read_image(data) for _ in range(20)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == filters and limit == Image.MAX_IMAGE_PIXELS
