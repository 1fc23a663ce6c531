"""A drawn eye, and a noisy prediction of its vessels."""

import pytest
from support.synthetic import draw_fundus
from support.tracings import segmentation_of


@pytest.fixture(scope="session")
def eye():
    return draw_fundus(5, (420, 500))


@pytest.fixture(scope="session")
def result(eye):
    return segmentation_of(eye)
