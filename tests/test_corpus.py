"""Every input soon ends in a right result or in an ImageError, and takes little memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from support.dicom import whole_dicom
from support.pictures import PHOTO, encode, tiff

from resegnet import Config, Segmenter
from resegnet.errors import ImageError
from resegnet.fov import find_field_of_view
from resegnet.image import read_image
from resegnet.quality import find_warnings

TESTS = Path(__file__).parent
SLOWEST_S = 5
MOST_MB = 1000

few = settings(max_examples=150, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> list[dict[str, Any]]:
    """Read every case in a process of its own, where a hang is stopped and memory can be measured."""
    folder = tmp_path_factory.mktemp("corpus")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(TESTS.parent), str(TESTS)))}
    command = [sys.executable, "-W", "error", str(TESTS / "support" / "corpus.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{lines[-1:]}: {done.stderr[-3000:]}"
    assert not (folder / "executed").exists(), "the content of a file was executed"
    return [line for line in lines if "case" in line]


@pytest.mark.slow
def test_each_case_ends_in_a_right_result_or_an_image_error(outcomes):
    assert len(outcomes) > 1000
    assert len({told["case"] for told in outcomes}) == len(outcomes)
    assert not {told["case"]: told["fault"] for told in outcomes if told["fault"]}
    segmented = sum("segmented_s" in told for told in outcomes)
    assert segmented > 300, "few inputs reached the segmenter"


@pytest.mark.slow
def test_none_takes_long_or_much_memory(outcomes):
    slow = {told["case"]: told["seconds"] for told in outcomes if told["seconds"] > SLOWEST_S}
    large = {told["case"]: told["mb"] for told in outcomes if told["mb"] > MOST_MB}
    long_to_segment = [told["case"] for told in outcomes if told.get("segmented_s", 0) > SLOWEST_S]
    assert (slow, large, long_to_segment) == ({}, {}, [])


@pytest.mark.slow
def test_messages_are_one_short_line_that_says_what_to_do(outcomes):
    """A message quotes the whole path that it was given, and shows no other one."""
    quoted = re.compile(r"'/[^']*'")
    messages = [quoted.sub("the photograph", told["message"]) for told in outcomes if "message" in told]
    assert len(messages) > 300
    for message in messages:
        assert len(message) < 300 and message.isprintable() and "/" not in message.replace("/dev", ""), message
        # The advice comes last, after a colon or a semicolon.
        assert re.search(r"[:;] ", message) and message.endswith("."), message


SEEDS = [
    *(encode(Image.fromarray(PHOTO), kind) for kind in ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "PPM", "GIF")),
    encode(Image.fromarray(PHOTO), "JPEG", progressive=True),
    encode(Image.fromarray(PHOTO).quantize(8), "GIF", save_all=True, append_images=[Image.new("L", (9, 9))]),
    encode(Image.fromarray(PHOTO), "TIFF", compression="tiff_lzw"),
    tiff(PHOTO.astype(np.uint16) * 257),
    *(data for _, data, _ in whole_dicom(PHOTO)),
]


def read(source: bytes | np.ndarray) -> np.ndarray | None:
    """Return the picture, or None if it is refused."""
    try:
        return read_image(source)
    except ImageError:
        return None


@st.composite
def altered_files(draw) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(data)


@pytest.mark.slow
@few
@given(st.one_of(altered_files(), st.binary(max_size=200)))
def test_files_at_random(data):
    image = read(data)
    assert image is None or (image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3)


@few
@given(
    arrays.arrays(
        st.one_of(arrays.scalar_dtypes(), arrays.unsigned_integer_dtypes(sizes=(8, 16)), arrays.floating_dtypes()),
        arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=8),
    )
)
def test_arrays_at_random(array):
    image = read(array)
    assert image is None or (image.shape == (*array.shape[:2], 3) and image.dtype == np.uint8)


@pytest.mark.slow
@few
@given(
    st.integers(1, 90),
    st.integers(1, 400),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["noise", "flat", "dots", "disc"]),
    st.integers(0, 255),
    st.booleans(),
)
def test_any_picture_has_a_field_of_view_and_is_segmented(height, width, seed, kind, level, turned):
    random = np.random.default_rng(seed)
    image = np.full((height, width, 3), level, np.uint8)
    if kind == "noise":
        image[:] = random.integers(0, 256, image.shape)
    elif kind == "dots":
        image[random.random((height, width)) < 0.05] = 255 - level
    elif kind == "disc":
        y, x = np.mgrid[:height, :width]
        centre, radius = random.uniform(0, 1, 2) * (height, width), random.uniform(1, max(height, width))
        image[np.hypot(y - centre[0], x - centre[1]) < radius] = random.integers(0, 256, 3)
    if turned:
        image = image.transpose(1, 0, 2)
    fov = find_field_of_view(image)
    assert fov.mask.shape == image.shape[:2] and fov.mask.dtype == bool and fov.mask.any()
    assert all(isinstance(warning, str) for warning in find_warnings(image, fov))
    result = Segmenter(lambda rgb: rgb[:, 1], Config(input_size=64))(image)
    assert result.probability.shape == fov.mask.shape and np.isfinite(result.probability).all()
    assert result.probability.min() >= 0 and result.probability.max() <= 1
