"""`python -m resegnet benchmark` reports every line that docs/benchmarks.md quotes."""

from __future__ import annotations

import re

import pytest
from PIL import Image
from support.publishing import write_tiny
from support.synthetic import draw_fundus

from resegnet.__main__ import main

NUMBER = r"\d+\.\d+"
LINES = [
    r"Release .*release, U-Net, encoder resnet18 at 64 px, OnnxNetwork",
    r"Baseline: U-Net/ResNet34 at 512 px, eager float32; \d+ processors, 1 rounds",
    r"eye\.png, 210 x 200 px",
    rf"  picture to mask: {NUMBER} s, baseline {NUMBER} s, ratio {NUMBER}",
    rf"  file to mask and overlay files: {NUMBER} s, baseline {NUMBER} s, ratio {NUMBER}",
    rf"peak memory, eye\.png: {NUMBER} GB for the process",
    rf"picture to mask by size: 1 MP {NUMBER} s, .*; the network at its largest input {NUMBER} s",
    rf"memory in use after 2 photographs in a row: {NUMBER} GB, after 20: {NUMBER} GB",
    rf"import resegnet: {NUMBER} s",
    rf"10 photographs, all files written: {NUMBER} s each, one call after the other {NUMBER} s, ratio {NUMBER}",
]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_releases")
def test_the_report_has_all_its_lines_for_a_release_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("resegnet.benchmark.SIZES", ((584, 565),))  # eight megapixels take long to draw
    Image.fromarray(draw_fundus(1, (200, 210)).image).save(tmp_path / "eye.png")
    options = ["--model", str(write_tiny(tmp_path / "release")), "--repeats", "1", "--files", "10"]
    assert main(["benchmark", str(tmp_path / "eye.png"), *options]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [pattern for pattern in LINES if not any(re.fullmatch(pattern, line) for line in told)] == []
    shares = next(line for line in told if line.startswith("  shares: "))
    assert sum(int(share) for share in re.findall(r"(\d+)%", shares)) == pytest.approx(100, abs=5)
    operations = [int(count) for count in re.findall(r"ratio [\d.]+, (\d+) G operations", "\n".join(told))]
    assert len(operations) == 3 and operations[0] > max(operations[1:])  # the baseline is the larger network
