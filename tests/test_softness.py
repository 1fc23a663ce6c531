"""The width of edges is measured right, and soft photographs are segmented at two sizes."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from support.synthetic import draw_fundus

from resegnet import Segmenter
from resegnet.learning.stress import Stress, apply_stress
from resegnet.softness import Edges, measure_edges, smaller_side


def bars(width: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw straight vessels with edges that are integrals of a Gaussian."""
    vessels = np.zeros((1200, 1200), bool)
    vessels[:, np.arange(1200) % 100 < width] = True
    light = ndimage.gaussian_filter(np.where(vessels, 90.0, 150.0), (0, sigma))
    return light.round().astype(np.uint8), vessels


@pytest.mark.parametrize("sigma", [2.0, 3.0, 4.0])
def test_edges_of_known_width(sigma):
    edges = measure_edges(*bars(20, sigma), 1100)
    # Height over steepest slope of such an edge; the measurement itself blurs by 0.7 px.
    assert edges.width_px == pytest.approx(np.sqrt(2 * np.pi) * np.hypot(sigma, 0.7), rel=0.1)
    assert edges.share == pytest.approx(edges.width_px / 20, rel=0.1)


def test_edges_are_not_measured_where_there_is_little_to_measure():
    light, vessels = bars(20, 2.0)
    assert measure_edges(light, np.zeros_like(vessels), 1100) is None
    assert measure_edges(np.full_like(light, 100), vessels, 1100) is None
    assert measure_edges(light, vessels, 900) is None


@pytest.mark.parametrize(
    ("edges", "side", "scale", "expected"),
    [
        (Edges(8.0, 0.5), 1664, 1.0, 832),  # 4 px / 8 px
        (Edges(16.0, 0.5), 1664, 0.5, 832),  # the same edge in a photograph of twice as many pixels
        (Edges(6.0, 0.4), 1664, 1.0, 1120),  # 4 px / 6 px, up to a multiple of 32
        (Edges(20.0, 0.6), 1664, 1.0, 832),  # at least a half
        (Edges(20.0, 0.6), 1056, 1.0, 704),  # at least the smallest size of the network
        (None, 1664, 1.0, 832),  # too few vessels to measure
        (Edges(5.0, 0.5), 1664, 1.0, None),  # sharp
        (Edges(8.0, 0.34), 1664, 1.0, None),  # broad vessels of a narrow field
        (Edges(8.0, 0.5), 992, 1.0, None),  # too small to be halved
        (None, 704, 1.0, None),
    ],
)
def test_the_smaller_size(edges, side, scale, expected):
    assert smaller_side(edges, side, scale, 704) == expected


@pytest.mark.slow
def test_only_a_soft_photograph_is_segmented_at_two_sizes():
    bundled = Segmenter.from_pretrained("bundled-vessels")
    calls = []

    def counting(rgb: np.ndarray) -> np.ndarray:
        calls.append(rgb.shape[-1])
        return bundled.network(rgb)

    segmenter = dataclasses.replace(bundled, network=counting)
    image = draw_fundus(0, (1500, 1500)).image
    segmenter(image)
    assert len(calls) == 1
    calls.clear()
    soft = apply_stress(image, Stress("softened", softened=0.003))
    result = segmenter(soft)
    first, second = calls
    assert first / 2 <= second < first
    assert result.probability.shape == image.shape[:2]
    calls.clear()
    one_size = dataclasses.replace(bundled.config, input_size=1024, smallest_input_size=None)
    dataclasses.replace(segmenter, config=one_size)(soft)
    assert calls == [1024]


@pytest.mark.slow
@pytest.mark.data
def test_two_sizes_find_more_on_an_enlarged_and_softened_photograph(real):
    folder = real / "drive" / "train"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row["image_id"] == "drive_29")  # held back for validation
    image = np.array(Image.open(folder / row["image_file_name"]).convert("RGB"))
    vessels = np.array(Image.open(folder / row["mask_file_name"]).convert("L")) > 127
    soft = apply_stress(image, Stress("", enlarged=3.0, softened=0.0015))
    segmenter = Segmenter.from_pretrained(anatomy=False)
    once = dataclasses.replace(segmenter, config=dataclasses.replace(segmenter.config, smallest_input_size=None))

    def f1(by: Segmenter) -> float:
        mask = np.array(Image.fromarray(by(soft).mask).resize(vessels.shape[::-1]))
        return 2 * np.count_nonzero(mask & vessels) / (np.count_nonzero(mask) + np.count_nonzero(vessels))

    assert f1(segmenter) > f1(once) + 0.01
