"""Photographs and a network for tests of the page's handlers, without a browser."""

import pytest
from PIL import Image
from support.handlers import FITTED
from support.stand_in import DarkOnGreen
from support.synthetic import draw_fundus

from resegnet import Config, Segmenter


@pytest.fixture
def network():
    return DarkOnGreen()


@pytest.fixture
def segmenter(network):
    return Segmenter(network, Config(input_size=128, threshold=FITTED), "a/model@v1")


@pytest.fixture(autouse=True)
def gradio_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "my eye.png"
    Image.fromarray(draw_fundus(1, (150, 180)).image).save(path)
    return str(path)


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / "by hand.png"
    Image.fromarray(draw_fundus(1, (150, 180)).vessels).save(path)
    return str(path)
