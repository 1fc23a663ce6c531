"""The page as it is built: what it says of the model, and its examples."""

import base64
import io
import json
import subprocess
import sys

import pytest
from PIL import Image

import app
from resegnet import Config, Segmenter
from resegnet.web.about import about
from resegnet.web.layout import build_app
from resegnet.web.parts import thumbnail


def test_about_names_the_model_its_scores_and_its_limits():
    segmenter = Segmenter.from_pretrained()
    text = about(segmenter)
    metrics = json.loads((segmenter.folder / "metrics.json").read_text())
    vessels = {name: report for name, report in metrics.items() if "pooled" in report}
    assert {"drive", "les_av"} <= vessels.keys()
    for name, report in vessels.items():
        assert f"| {report['count']} | {report['pooled']['f1']:.3f} |" in text, name
    assert "| [DRIVE](https://drive.grand-challenge.org) | " in text
    assert "(https://doi.org/10.1109/TMI.2004.825627) | research and education only, no redistribution |" in text
    assert f"{segmenter.config.threshold:.4g}" in text
    assert "not a medical device" in text
    assert "deleted after" in text


def test_a_model_without_records_is_named_all_the_same(segmenter):
    text = about(segmenter)
    assert "a/model@v1" in text
    assert "without a record of its scores" in text


def block_of(page, elem_id):
    return next(block for block in page.blocks.values() if getattr(block, "elem_id", None) == elem_id)


def test_names_from_outside_are_text(network):
    foot = block_of(build_app(Segmenter(network, Config(input_size=128), "<img src=x onerror=alert(1)>")), "foot")
    assert "&lt;img" in foot.value
    assert "<img" not in foot.value


def test_three_examples_or_more_are_offered_and_no_reference(segmenter):
    examples = block_of(app.build_app(segmenter), "viewer").props["examples"]
    assert len(examples) >= 3
    assert not any("vessels" in example["name"] for example in examples)
    assert all(example["src"].startswith("data:image/jpeg;base64,") for example in examples)


def test_without_a_folder_of_examples_there_are_none(segmenter):
    assert block_of(build_app(segmenter), "viewer").props["examples"] == []


@pytest.mark.slow
def test_the_start_leaves_gradios_own_source_alone():
    # gradio parses and rewrites stubs for all its components whenever it is imported.
    code = (
        "import ast; real, parsed = ast.parse, []\n"
        "ast.parse = lambda source, *rest, **more: parsed.append(source) or real(source, *rest, **more)\n"
        "from resegnet.web.serve import _no_stubs\n"
        "with _no_stubs():\n    import gradio\n"
        "print(sum('(Component)' in str(source) for source in parsed))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_the_thumbnail_of_a_turned_photograph_is_upright(tmp_path):
    picture = Image.new("RGB", (200, 200), "blue")
    picture.paste("red", (0, 0, 100, 200))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half a turn
    picture.save(tmp_path / "turned.jpg", exif=exif)
    content = base64.b64decode(thumbnail(tmp_path / "turned.jpg")["src"].partition(",")[2])
    red, _, blue = Image.open(io.BytesIO(content)).getpixel((20, 72))
    assert blue > red
