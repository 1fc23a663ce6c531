"""The README tells what the repository holds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from resegnet.segmenter import BUNDLED

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NAMES = {"drive": "DRIVE", "chase_db1": "CHASE_DB1", "hrf": "HRF", "les_av": "LES-AV"}


@pytest.mark.parametrize("name", NAMES)
def test_results_are_those_of_the_bundled_release(name):
    report = json.loads((BUNDLED / "metrics.json").read_text())[name]
    row = next(line for line in README.splitlines() if line.startswith(f"| {NAMES[name]} "))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    pooled = report["pooled"]
    expected = [f"{pooled[score]:.3f}" for score in ("f1", "recall", "specificity", "auroc", "mcc", "cldice")]
    assert cells[2:8] == [f"**{expected[0]}**", *expected[1:]]
    assert cells[1] == str(report["count"])


def test_the_threshold_is_told():
    threshold = json.loads((BUNDLED / "config.json").read_text())["threshold"]
    assert f"threshold of {threshold:.3f}" in README


def test_every_file_of_the_map_exists_and_every_module_is_on_it():
    mapped = re.findall(r"^\| `([^`]+)` \|", README, re.MULTILINE)
    for path in mapped:
        assert (ROOT / path).exists(), path
    for module in [*ROOT.glob("resegnet/*.py"), *ROOT.glob("resegnet/learning/*.py"), *ROOT.glob("*.py")]:
        if module.name != "__init__.py":
            assert module.relative_to(ROOT).as_posix() in mapped


def test_pictures_and_links_into_the_repository_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
