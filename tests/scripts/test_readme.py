"""The README tells what the repository holds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from resegnet import ReSegNet, Segmenter
from resegnet.hub import BUNDLED_RELEASES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NAMES = {"drive": "DRIVE", "chase_db1": "CHASE_DB1", "hrf": "HRF", "les_av": "LES-AV"}


@pytest.mark.parametrize("name", NAMES)
def test_results_are_those_of_the_bundled_release(name):
    report = json.loads((BUNDLED_RELEASES["bundled"] / "metrics.json").read_text())[name]
    row = next(line for line in README.splitlines() if line.startswith(f"| {NAMES[name]} "))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    pooled = report["pooled"]
    expected = [f"{pooled[score]:.3f}" for score in ("f1", "recall", "specificity", "auroc", "mcc", "cldice")]
    assert cells[2:8] == [f"**{expected[0]}**", *expected[1:]]
    assert cells[1] == str(report["count"])


@pytest.mark.parametrize("release", BUNDLED_RELEASES)
def test_each_release_that_ships_has_its_row(release):
    metrics = json.loads((BUNDLED_RELEASES[release] / "metrics.json").read_text())
    row = next(line for line in README.splitlines() if line.startswith(f"| `{release}`: "))
    assert row.strip("| ").split(" | ")[1:] == [f"{metrics[name]['pooled']['f1']:.3f}" for name in NAMES]


def test_the_threshold_is_told():
    threshold = json.loads((BUNDLED_RELEASES["bundled"] / "config.json").read_text())["threshold"]
    assert f"threshold of {threshold:.3f}" in README


def test_every_file_of_the_map_exists_and_every_module_is_on_it():
    section = README.partition("\n## How it works\n")[2].partition("\n## ")[0]  # other tables begin with names too
    mapped = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    assert mapped
    for path in mapped:
        assert (ROOT / path).exists(), path
    for module in [*ROOT.glob("resegnet/*.py"), *ROOT.glob("resegnet/learning/*.py"), *ROOT.glob("*.py")]:
        if module.name != "__init__.py":
            assert module.relative_to(ROOT).as_posix() in mapped


def test_pictures_and_links_into_the_repository_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter.from_pretrained()


def run_example(language, part, url, *command):
    """Run the README's code block that holds `part`, against the running page."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (code,) = [block for block in blocks if part in block]
    assert "http://127.0.0.1:7860" in code
    code = code.replace("http://127.0.0.1:7860", url.rstrip("/"))
    return subprocess.run([*command, code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300).stdout


def test_the_python_client_example_runs(url, segmenter):
    printed = run_example("python", "gradio_client", url, sys.executable, "-c")
    truth = ROOT / "examples/synthetic_pink_vessels.png"
    comparison = segmenter(ROOT / "examples/synthetic_pink.jpg").compare(truth)
    assert float(printed.splitlines()[-1]) == comparison.scores()["f1"]


def test_the_curl_example_runs(url, segmenter):
    answer = run_example("bash", "curl", url, "bash", "-euc")
    assert "event: complete" in answer
    overlay, mask, _, numbers = json.loads(answer.partition("data: ")[2])
    assert mask["url"].endswith("retina_cc0_mask.png") and overlay["url"].startswith(url)
    result = segmenter(ROOT / "examples/retina_cc0.jpg").at(0.4)
    assert numbers["measures"]["vessel_area_px"] == result.mask.sum()


def test_the_example_of_many_photographs_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (code,) = [block for block in blocks if "segment_many" in block]
    exec(code, {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "synthetic_brown.jpg",
        "synthetic_orange.jpg",
        "synthetic_pink.jpg",
    ]


def test_the_network_alone_is_the_same(monkeypatch):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (code,) = [block for block in blocks if "as smp" in block]
    names = {}
    exec(code, names)
    net, model = names["net"].eval(), ReSegNet.from_pretrained(BUNDLED_RELEASES["bundled-cc-by"])
    rgb = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(net((rgb - model.mean) / model.std), model(rgb))


def test_every_picture_that_the_page_offers_has_its_origin_told():
    """The page takes all pictures beside the examples' README but references; figures lie a folder deeper."""
    told = re.findall(r"^\| `([^`]+)` \|", (ROOT / "examples/README.md").read_text(encoding="utf-8"), re.MULTILINE)
    pictures = [path for kind in ("jpg", "png") for path in (ROOT / "examples").glob(f"*.{kind}")]
    assert {path.name for path in pictures if "_vessels" not in path.stem} == set(told)
