"""README, docs/ and examples/README.md: their code runs, and gives what they say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions, requires

import numpy as np
import pytest
import torch
from support import PATIENCE_S
from support.documentation import ROOT, code_blocks

from resegnet import ReSegNet, Segmenter, read_image
from resegnet.hub import BUNDLED_RELEASES
from resegnet.publishing.card import model_card


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the examples and the package, to run code blocks in."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "resegnet").symlink_to(ROOT / "resegnet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_blocks(page: str) -> dict:
    """Run a page's Python blocks one after the other in one namespace, as a reader would; gives the namespace."""
    names: dict = {}
    for code in code_blocks(page, "python"):
        exec(compile(code, page, "exec"), names)
    return names


@pytest.mark.slow
def test_the_readmes_python_runs(workplace, capsys):
    result = run_blocks("README.md")["result"]
    assert f"{result.mask.shape} ()" in capsys.readouterr().out
    assert len(list((workplace / "out").iterdir())) == 6


@pytest.mark.slow
def test_the_examples_are_made_again(workplace):
    run_blocks("examples/README.md")
    for path in (ROOT / "examples").glob("synthetic_*"):
        made, kept = (read_image(folder / path.name).astype(int) for folder in (workplace / "examples", path.parent))
        assert made.shape == kept.shape and np.abs(made - kept).mean() < 0.5  # processors round differently


@pytest.mark.slow
def test_the_python_page_runs(workplace, capsys):
    names = run_blocks("docs/python.md")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(" left") and lines[2] == "True" and lines[-1] == "True"
    assert [line.split()[0] for line in lines[5:8]] == [f"synthetic_{name}.jpg" for name in ("brown", "orange", "pink")]
    assert {"mask.png", "overlay.png", "arteries_veins.png", "errors.png", "out"} <= {
        path.name for path in workplace.iterdir()
    }

    # The network that the page loads into segmentation_models_pytorch is that of the release.
    net, model = names["net"].eval(), ReSegNet.from_pretrained(BUNDLED_RELEASES["bundled-cc-by"])
    rgb = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(net((rgb - model.mean) / model.std), model(rgb))


@pytest.mark.slow
def test_onnx_without_this_package_finds_the_same_vessels(workplace):
    """In a process of its own, where other packages than numpy, Pillow, onnxruntime and what these need are missing."""
    code = "\n".join(code_blocks("docs/onnx.md", "python"))
    needed, modules = ["numpy", "pillow", "onnxruntime"], packages_distributions()
    for name in needed:
        found = [re.match(r"[\w.-]+", line)[0] for line in requires(name) or [] if "extra ==" not in line]
        needed += [other for other in found if other not in needed]
    missing = {module for module, names in modules.items() if not {name.lower() for name in names} & {*needed}}
    assert {"resegnet", "torch", "scipy", "skimage", "huggingface_hub"} - {"resegnet"} <= missing
    blocked = f"import sys\nfor name in {sorted(missing | {'resegnet'})}:\n    sys.modules[name] = None\n"
    code = f"{blocked}{code}\nnp.savez('found.npz', mask=mask, arteries=arteries, disc=disc, fovea=fovea)\n"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=workplace, timeout=PATIENCE_S)
    found, result = np.load("found.npz"), Segmenter.from_pretrained()("examples/retina_cc0.jpg")
    np.testing.assert_array_equal(read_image("mask.png")[..., 0] > 0, found["mask"])
    both = found["mask"] & result.mask
    assert 2 * both.sum() / (found["mask"].sum() + result.mask.sum()) > 0.98
    is_artery = result.kind_probability[0] >= result.kind_probability[1]
    assert (found["arteries"] == is_artery)[both].mean() > 0.95
    assert 0.9 < (found["disc"] > 0.5).sum() / result.disc.mask.sum() < 1.1
    assert result.disc.mask[np.unravel_index(found["disc"].argmax(), result.mask.shape)]
    place = np.unravel_index(found["fovea"].argmax(), result.mask.shape)
    assert np.hypot(*np.subtract(place, result.fovea)) < 0.1 * result.disc.diameter


def test_the_model_card_has_the_script_of_the_onnx_page():
    code = code_blocks("docs/onnx.md", "python")[0]
    code = code.replace("resegnet/releases/bundled", "downloaded").replace("examples/retina_cc0.jpg", "eye.jpg")
    for release in BUNDLED_RELEASES.values():
        assert f"```python\n{code}```" in model_card(release, "someone/resegnet")


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter.from_pretrained()


def run_against(url: str, language: str, part: str, *command: str) -> str:
    """Run the block of docs/page.md that holds `part` against the running page; gives what it prints."""
    (code,) = [block for block in code_blocks("docs/page.md", language) if part in block]
    assert "http://127.0.0.1:7860" in code
    code = code.replace("http://127.0.0.1:7860", url.rstrip("/"))
    return subprocess.run(
        [*command, code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE_S
    ).stdout


@pytest.mark.slow
def test_the_python_client_runs(url, segmenter):
    printed = run_against(url, "python", "gradio_client", sys.executable, "-c")
    truth = ROOT / "examples/synthetic_pink_vessels.png"
    comparison = segmenter(ROOT / "examples/synthetic_pink.jpg").compare(truth)
    assert float(printed.splitlines()[-1]) == comparison.scores()["f1"]


@pytest.mark.slow
def test_the_curl_commands_run(url, segmenter):
    answer = run_against(url, "bash", "curl", "bash", "-euc")
    assert "event: complete" in answer
    overlay, mask, _, numbers = json.loads(answer.partition("data: ")[2])
    assert mask["url"].endswith("retina_cc0_mask.png") and overlay["url"].startswith(url)
    assert numbers["measures"]["vessel_area_px"] == segmenter(ROOT / "examples/retina_cc0.jpg").at(0.4).mask.sum()
