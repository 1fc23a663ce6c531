"""Disc, fovea and eye from probabilities whose truth is drawn."""

import math

import numpy as np
import pytest
from support.tracings import dice

from resegnet.results.anatomy import Disc, disc_of, find_disc, find_fovea, tell_eye


def distance_from(shape: tuple[int, int], centre: tuple[float, float]) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.hypot(rows - centre[0], columns - centre[1])


def disc_plane(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    return 1 / (1 + np.exp(distance_from(shape, centre) - radius))


@pytest.mark.parametrize("certainty", [1, 0.6])
def test_disc_has_the_place_and_size_that_was_drawn(certainty: float) -> None:
    probability = disc_plane((500, 640), (210.5, 420.25), 40)
    probability[100:104, 100:104] = 1  # specks that are no disc
    probability[200:220, 400:403] = 0  # a vessel
    disc = find_disc(certainty * probability)
    assert disc is not None
    assert disc.centre == pytest.approx((210.5, 420.25), abs=0.5)
    assert disc.diameter == pytest.approx(80, rel=0.02)
    truth = distance_from((500, 640), (210.5, 420.25)) < 40
    assert dice(disc.mask, truth) > 0.98


def test_a_vessel_across_the_border_makes_no_notch_in_a_disc() -> None:
    probability = disc_plane((640, 640), (320, 320), 40)
    probability[300:330, 350:] = 0
    disc = find_disc(probability)
    assert disc is not None
    truth = distance_from((640, 640), (320, 320)) < 40
    assert dice(disc.mask, truth) > 0.97


@pytest.mark.parametrize("radius", [2, 400])
def test_what_has_not_the_size_of_a_disc_is_none(radius: float) -> None:
    assert find_disc(disc_plane((640, 640), (320, 320), radius)) is None
    assert find_disc(np.full((640, 640), 0.49)) is None
    assert find_disc(0.28 * disc_plane((640, 640), (320, 320), 40)) is None


def test_fovea_is_the_spot_and_not_the_odd_pixel() -> None:
    probability = np.exp(-0.5 * (distance_from((640, 640), (300.25, 250.75)) / 12) ** 2)
    probability[20:23, 600:603] = 1
    assert find_fovea(0.6 * probability) == pytest.approx((300.25, 250.75), abs=1)
    assert find_fovea(0.05 * probability) is None


def test_a_fovea_at_the_usual_distance_from_the_disc_wins_over_a_stronger_spot() -> None:
    fovea, other = (
        np.exp(-0.5 * (distance_from((640, 640), centre) / 12) ** 2) for centre in ((330.0, 280.0), (20.0, 620.0))
    )
    disc = disc_of(distance_from((640, 640), (310, 480)) < 40)
    assert find_fovea(0.7 * other + 0.5 * fovea) == pytest.approx((20, 620), abs=1)
    assert find_fovea(0.7 * other + 0.5 * fovea, disc) == pytest.approx((330, 280), abs=1)
    assert find_fovea(0.2 * other, disc_of(distance_from((640, 640), (310, 60)) < 30)) is None  # too far for an eye


def test_disc_right_of_the_fovea_is_a_right_eye() -> None:
    assert tell_eye((300, 500), (320, 250), 100) == "right"
    assert tell_eye((300, 250), (320, 500), 100) == "left"
    assert tell_eye((300, 500), (320, 250)) == "right"


@pytest.mark.parametrize(
    ("disc", "fovea", "diameter"),
    [
        (None, (320, 250), 100),
        ((300, 500), None, 100),
        ((300, 500), (320, 450), 100),  # too near
        ((300, 900), (320, 250), 100),  # too far
        ((100, 300), (320, 250), 100),  # above
    ],
)
def test_no_eye_is_told_where_places_are_missing_or_implausible(
    disc: tuple[float, float] | None, fovea: tuple[float, float] | None, diameter: float
) -> None:
    assert tell_eye(disc, fovea, diameter) is None


def test_disc_of_a_mask_and_equality() -> None:
    mask = distance_from((100, 100), (40, 60)) < 20
    disc = disc_of(mask)
    assert disc is not None and disc.centre == pytest.approx((40, 60))
    assert disc.diameter == pytest.approx(2 * math.sqrt(mask.sum() / math.pi))
    assert disc == Disc(disc.centre, disc.diameter, mask.copy()) and hash(disc) == hash(disc_of(mask.copy()))
    assert disc != disc_of(~mask)
    assert disc_of(np.zeros((10, 10), bool)) is None
