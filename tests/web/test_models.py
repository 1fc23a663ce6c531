"""The choice of models: what is offered, what is said of each, and that each result names the model that made it."""

from __future__ import annotations

import csv
import io
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from gradio import EventData
from gradio.exceptions import Error
from PIL import Image
from support import PATIENCE_S
from support.handlers import settings
from support.stand_in import DarkOnGreen, stored_records
from support.synthetic import draw_fundus

from resegnet import Config, Segmenter
from resegnet.errors import WeightsError
from resegnet.hub import BUNDLED_RELEASES
from resegnet.results.compare import compare
from resegnet.web.batch import Batches, follow_model
from resegnet.web.endpoints import Endpoints
from resegnet.web.handlers import Handlers
from resegnet.web.layout import build_app
from resegnet.web.models import Models, Release, describe, other_releases

FIRST, SECOND = Config(input_size=128, threshold=0.6137), Config(input_size=128, threshold=0.55)


@pytest.fixture
def first():
    return Segmenter(DarkOnGreen(), FIRST, "first")


@pytest.fixture
def loads():
    """The names of the models that were loaded."""
    return []


@pytest.fixture
def models(first, loads):
    def load():
        loads.append("second")
        return Segmenter(DarkOnGreen(), SECOND, "second")

    return Models(first, [Release("second", SECOND, None, load)])


@pytest.fixture(autouse=True)
def gradio_folder(tmp_path, monkeypatch):
    (tmp_path / "gradio").mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))


@pytest.fixture
def photograph(tmp_path):
    Image.fromarray(draw_fundus(1, (150, 180)).image).save(tmp_path / "eye.png")
    return str(tmp_path / "eye.png")


@pytest.fixture
def reference(tmp_path):
    Image.fromarray(draw_fundus(1, (150, 180)).vessels).save(tmp_path / "by hand.png")
    return str(tmp_path / "by hand.png")


# The models on offer


@pytest.mark.slow
def test_the_bundled_releases_are_a_choice():
    segmenter = Segmenter(DarkOnGreen(), FIRST, "bundled", BUNDLED_RELEASES["bundled"])
    others = other_releases(segmenter)
    vessels, other = others
    assert (vessels.model, vessels.folder) == ("bundled-vessels", BUNDLED_RELEASES["bundled-vessels"])
    assert (other.model, other.folder) == ("bundled-cc-by", BUNDLED_RELEASES["bundled-cc-by"])
    assert other.config == Config.load(BUNDLED_RELEASES["bundled-cc-by"] / "config.json")
    loaded = other.load()
    assert (loaded.model, loaded.config, loaded.folder) == (other.model, other.config, other.folder)
    folder = BUNDLED_RELEASES["bundled"]
    own = describe(Release("bundled", Config.load(folder / "config.json"), folder, lambda: None))
    alone, free = (describe(release) for release in others)
    assert "arteries, veins" in own and alone.startswith("Vessels alone.") and free.startswith("Vessels alone.")
    assert own.endswith("Use is restricted by the terms of DRIVE and 5 others, see About.")
    assert "DRIVE" in own
    assert "DRIVE" not in free and free.endswith("Licence: CC BY 4.0.")
    page = build_app(segmenter)
    viewer = next(block for block in page.blocks.values() if getattr(block, "elem_id", None) == "viewer")
    assert [offered["name"] for offered in viewer.props["models"]] == ["bundled", "bundled-vessels", "bundled-cc-by"]


@pytest.mark.parametrize("name", ["bundled-cc-by", "user/resegnet@v1", ""])
def test_who_names_another_model_gets_that_one_alone(name):
    assert other_releases(Segmenter(DarkOnGreen(), FIRST, name, BUNDLED_RELEASES.get(name))) == []
    assert Models(Segmenter(DarkOnGreen(), FIRST, name)).offered == []


def test_without_the_other_release_or_on_zero_gpu_there_is_no_choice(tmp_path, monkeypatch):
    segmenter = Segmenter(DarkOnGreen(), FIRST, "bundled", BUNDLED_RELEASES["bundled"])
    own_folder = replace(segmenter, folder=tmp_path)  # a folder of the visitor's that has this name
    assert other_releases(own_folder) == []
    with monkeypatch.context() as patch:
        patch.setenv("SPACES_ZERO_GPU", "true")
        assert other_releases(segmenter) == []
    (tmp_path / "config.json").write_text((BUNDLED_RELEASES["bundled"] / "config.json").read_text())
    for name in ("bundled-vessels", "bundled-cc-by"):
        monkeypatch.setitem(BUNDLED_RELEASES, name, tmp_path)  # has no weights
    assert other_releases(segmenter) == []


def line_of(folder, training):
    (folder / "training.json").write_text(json.dumps(training))
    return describe(Release("any", FIRST, folder, lambda: None))


def test_the_line_says_what_the_record_says(tmp_path, first):
    options = stored_records()["training"]["options"] | {"start_from": "", "teacher": [], "extra": []}
    free = line_of(tmp_path, {"options": options | {"dataset": ["hrf", "chase_db1"]}})
    assert free == "Vessels alone. Trained on HRF, CHASE_DB1. Licence: CC BY 4.0."
    mixed = line_of(tmp_path, {"options": options | {"dataset": ["hrf", "drive", "mine"]}})
    assert mixed == (
        "Vessels alone. Trained on HRF, DRIVE, mine. "
        "Use is restricted by the terms of DRIVE, data that its record does not name."
    )
    unknown = "Its record does not name what it was trained on. Use is restricted by the terms of data that its record"
    assert describe(first).startswith(f"Vessels alone. {unknown}")
    (tmp_path / "training.json").write_text("[")
    anatomy = replace(FIRST, encoder="two-looks", encoder_depth=2, decoder_channels=(16, 16), context_size=96,
                      context_channels=(32, 16, 16))  # fmt: skip
    line = describe(Release("any", anatomy, tmp_path, lambda: None))
    assert line.startswith(f"Vessels, arteries, veins, optic disc and fovea. {unknown}")


# Loading


def test_a_model_is_loaded_once_and_only_if_it_is_chosen(models, first, loads):
    assert models(None) is models("first") is first
    assert models.threshold("second") == 0.55
    assert loads == []
    found = []
    threads = [threading.Thread(target=lambda: found.append(models("second"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert loads == ["second"] and len(found) == 3 and len({id(segmenter) for segmenter in found}) == 1


def test_a_model_that_fails_or_is_not_offered_gives_a_sentence(first, photograph):
    def load():
        raise WeightsError("model.onnx was altered")

    models = Models(first, [Release("broken", SECOND, None, load)])
    handlers = Handlers(models, [])
    with pytest.raises(Error, match=r"The model broken cannot be loaded: model\.onnx was altered"):
        handlers.show(photograph, [], settings(None, model="broken"))
    with pytest.raises(Error, match=r"The model is '\.\./x', expected one that the page offers"):
        handlers.show(photograph, [], settings(None, model="../x"))
    assert handlers.show(photograph, [], settings(None, model="first"))[0]["model"] == "first"


# Results


def test_each_answer_and_each_file_is_of_the_model_that_it_names(models, photograph):
    handlers = Handlers(models, [])
    for name, threshold in (("first", 0.6137), ("second", 0.55), ("first", 0.6137)):
        shown, files = handlers.show(photograph, [], settings(None, model=name))
        assert shown["model"] == name
        assert shown["stops"][shown["fitted"]] == threshold
        asked = settings(photograph, model=name, threshold=0.5, what="numbers")
        numbers = json.loads(Path(handlers.save(files, asked)).read_bytes())
        table = Path(handlers.save(files, asked | {"what": "table"})).read_text()
        report = Path(handlers.save(files, asked | {"what": "report-pdf"})).read_bytes()
        (row,) = csv.DictReader(io.StringIO(table))
        assert numbers["model"] == row["model"] == name
        assert f"({name}, with ReSegNet".encode() in report
        assert f"fitted for the model: {threshold:.4g}".encode() in report
        measured = handlers.measure(files, settings(photograph, model=name, threshold=threshold))
        assert measured["measures"]["vessel_density"] == models(name)(photograph).measure()["vessel_density"]
    numbers = Endpoints(handlers.results).segment(photograph, None)[3]
    assert (numbers["model"], numbers["threshold"]) == ("first", 0.6137)  # programs get the one of the start
    assert models.first.network.calls == 1 + 2  # the page's, and two of this test


def test_another_model_keeps_the_reference(models, photograph, reference):
    handlers = Handlers(models, [])
    _, files = handlers.show(photograph, [], settings(None, model="first"))
    _, files = handlers.show_reference(reference, files, settings(photograph, model="first"))
    answer, files = handlers.show_anew(files, settings(photograph, model="second", reference=reference))
    assert (answer["model"], answer["photo"], answer["request"]) == ("second", photograph, 7)
    scores = compare(models("second")(photograph), reference).scores()
    assert answer["reference"]["auroc"] == scores["auroc"]
    assert answer["reference"]["cldice"] == {"threshold": 0.55, "value": scores["cldice"]}
    assert files == [photograph, reference]
    alone, _ = handlers.show_anew(files, settings(photograph, model="second"))
    assert alone["model"] == "second" and "reference" not in alone
    gone, _ = handlers.show_anew([], settings(photograph, model="second", reference=reference))
    assert "no longer on the server" in gone["error"]


# Batch


def test_a_batch_and_the_rows_that_it_opens_are_of_the_chosen_model(models, photograph):
    handlers = Handlers(models, [])
    batches = Batches(handlers.results)
    *_, (batch, *_) = batches.run([photograph], None, False, "second")
    assert (batch.outcomes[0].row["model"], batch.outcomes[0].row["threshold"]) == ("second", 0.55)
    opened, _ = handlers.show_row(batch, [], settings(None, model="first"), EventData(None, {"row": 0}))
    assert (opened["model"], opened["start"]) == ("second", 0.55)
    for default in (None, ""):
        *_, (batch, *_) = batches.run([photograph], None, False, default)
        assert (batch.outcomes[0].row["model"], batch.outcomes[0].row["threshold"]) == ("first", 0.6137)
    with pytest.raises(Error, match="The model is 'third'"):
        next(batches.run([photograph], None, False, "third"))


def test_the_threshold_of_the_batch_follows_the_model_unless_it_was_chosen(models):
    update, line = follow_model(models, "second", 0.6137)
    assert (update["value"], update["info"]) == (0.55, "Lower: more and fainter vessels. Recommended: 0.55.")
    assert "second" in line
    update, _ = follow_model(models, "second", 0.3)
    assert update["value"] == 0.3
    update, line = follow_model(models, "", 0.55)
    assert update["value"] == 0.6137 and "first" in line
