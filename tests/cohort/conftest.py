"""Photographs of a cohort, and the command `segment` round a network that needs no weights."""

from __future__ import annotations

import pytest
from support.stand_in import DarkOnGreen
from support.synthetic import draw_fundus

from resegnet import Config, Segmenter
from resegnet.__main__ import main
from resegnet.io import png


@pytest.fixture(scope="session")
def drawings():
    """Encoded photographs, all different."""
    return [png(draw_fundus(seed, (130, 140)).image) for seed in range(12)]


@pytest.fixture
def folder(tmp_path, drawings):
    """Photographs in folders, two of one name, and things that are none."""
    names = ["a.png", "b.png", "p1/left.png", "p1/right.png", "p2/left.png", "p2/visit 2/left.png"]
    for name, content in zip(names, drawings, strict=False):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(content)
    (tmp_path / "photos/notes.txt").write_text("no photograph")
    (tmp_path / "photos/._a.png").write_bytes(b"of a Mac")
    return tmp_path / "photos"


@pytest.fixture
def network():
    return DarkOnGreen()


@pytest.fixture
def segment(tmp_path, network, monkeypatch):
    """Run the command round a network that needs no weights, in `tmp_path`; gives the exit status."""
    monkeypatch.chdir(tmp_path)
    segmenter = Segmenter(network, Config(input_size=96, threshold=0.5), "a/model@v1")
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda *_, **__: segmenter)
    return lambda *arguments: main(["segment", *map(str, arguments)])
