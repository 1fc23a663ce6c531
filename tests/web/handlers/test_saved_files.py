"""Files that visitors save: those of the threshold, colour and scale on the page."""

import csv
import hashlib
import io
import json
import re
import zipfile
import zlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from gradio.exceptions import Error
from PIL import Image
from support.handlers import FITTED, settings, unpack
from support.stand_in import DarkOnGreen, TwoLooksOnGreen

from resegnet import Config, Segmenter
from resegnet.cohort.photograph import Photograph
from resegnet.cohort.work import CohortOptions, Work
from resegnet.releases.records import DISCLAIMER
from resegnet.results import export
from resegnet.results.compare import compare
from resegnet.results.measures import Undefined
from resegnet.results.zones import ZONE_B, ZONE_C
from resegnet.version import __version__
from resegnet.web.endpoints import Endpoints
from resegnet.web.handlers import Handlers
from resegnet.web.models import Models
from resegnet.web.numbers import REASONS, SHOWN_MEASURES


def saved(handlers, files, settings):
    path = handlers.save(files, settings)
    with open(path, "rb") as file:
        return path.rpartition("/")[2], file.read()


def test_saved_files_are_those_of_the_threshold_and_colour_on_the_page(segmenter, photograph, reference):
    handlers = Handlers(Models(segmenter), [])
    files = [photograph, reference]
    result = segmenter(photograph).at(0.55)
    overlay = export.overlay_png(result, color=(255, 128, 0), opacity=0.5)
    assert saved(handlers, files, settings(photograph)) == ("my eye_mask_0.55.png", export.mask_png(result))
    assert saved(handlers, files, settings(photograph, what="overlay")) == ("my eye_overlay_0.55.png", overlay)
    assert saved(handlers, files, settings(photograph, what="probability")) == (
        "my eye_probability.png",
        export.probability_png(result),
    )
    comparison = compare(result, reference)
    name, error_map = saved(handlers, files, settings(photograph, reference=reference, what="errors"))
    assert (name, error_map) == ("my eye_errors_0.55.png", export.png(comparison.error_map()))

    name, numbers = saved(handlers, files, settings(photograph, reference=reference, what="numbers"))
    assert name == "my eye_numbers_0.55.json"
    expected = export.summary(result) | {"comparison": {**comparison.scores(), "notes": []}}
    assert {key: json.loads(numbers)[key] for key in expected} == expected

    table = saved(handlers, files, settings(photograph, what="table"))[1]
    name, archive = saved(handlers, files, settings(photograph, reference=reference, what="all"))
    assert name == "my eye_resegnet_0.55.zip"
    with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
        assert zipped.testzip() is None
        members = {member: zipped.read(member) for member in zipped.namelist()}
    assert members.pop("my eye_report.pdf").startswith(b"%PDF")
    inside, alone = json.loads(members.pop("my eye_numbers.json")), json.loads(numbers)
    assert inside | {"date": None} == alone | {"date": None}
    assert members == {
        "my eye_table.csv": table,
        "my eye_mask.png": export.mask_png(result),
        "my eye_probability.png": export.probability_png(result),
        "my eye_overlay.png": overlay,
        "my eye_errors.png": error_map,
    }


def test_the_table_is_the_row_of_a_batch_and_the_numbers_say_which_photograph_and_when(segmenter, photograph, tmp_path):
    handlers = Handlers(Models(segmenter), [])
    name, table = saved(handlers, [photograph], settings(photograph, what="table", um_per_px=8.5))
    assert name == "my eye_table_0.55.csv"
    (row,) = csv.DictReader(io.StringIO(table.decode()))
    work = Work(segmenter, CohortOptions(str(tmp_path / "batch"), threshold=0.55, um_per_px=8.5, overlay=False))
    (tmp_path / "batch" / "masks").mkdir(parents=True)
    (tmp_path / "batch" / "records").mkdir()
    expected = work(Photograph("my eye", "my eye", photograph)).row
    del expected["mask"]
    assert row == {key: str(value) for key, value in (expected | {"source": "my eye.png"}).items()}

    before = datetime.now(UTC).replace(microsecond=0)
    numbers = json.loads(saved(handlers, [photograph], settings(photograph, what="numbers", um_per_px=8.5))[1])
    assert before <= datetime.fromisoformat(numbers["date"]) <= datetime.now(UTC)
    for key in ("photograph_sha256", "model_sha256", "source", "um_per_px"):
        assert str(numbers[key]) == row[key]


def texts_of(pdf):
    """Return the texts of a PDF of ours, which is not compressed."""
    texts = re.findall(rb"\((.*?)\) Tj", pdf)
    unescaped = [re.sub(rb"\\([0-7]{3}|.)", lambda m: bytes([int(m[1], 8)]) if len(m[1]) == 3 else m[1], text)
                 for text in texts]  # fmt: skip
    return [text.decode("cp1252") for text in unescaped]


def test_a_scale_of_the_file_that_was_changed_or_cleared_is_not_in_the_files(segmenter, photograph, monkeypatch):
    handlers = Handlers(Models(segmenter), [])
    of_file = replace(segmenter(photograph), um_per_px=5.0)
    monkeypatch.setattr(handlers, "results", lambda *_: of_file)
    for given, origin in ((5.0, "photograph"), (7.0, "option"), (None, None)):
        numbers, table = (
            Path(handlers.save([photograph], settings(photograph, what=what, um_per_px=given))).read_text()
            for what in ("numbers", "table")
        )
        assert json.loads(numbers)["um_per_px"] == given
        (row,) = csv.DictReader(io.StringIO(table))
        assert row.get("scale_from") == origin
        assert row.get("um_per_px") == (None if given is None else str(given))


def test_the_report_has_the_numbers_of_the_api_and_says_how_they_were_made(segmenter, photograph, reference):
    handlers = Handlers(Models(segmenter), [])
    changed = {"reference": reference, "um_per_px": 8.5, "what": "report-pdf"}
    name, pdf = saved(handlers, [photograph, reference], settings(photograph, **changed))
    assert name == "my eye_report_0.55.pdf"
    assert pdf.count(b"/Type /Page\n") == 1 and pdf.count(b"/Subtype /Image") == 3
    texts = texts_of(pdf)
    path, reference_path = photograph, reference
    numbers = Endpoints(handlers.results).compare(path, reference_path, 0.55)[1]
    measures = numbers["measures"]
    shown = {
        "Vessel density": f"{measures['vessel_density']:.1%}",
        "Length": f"{measures['skeleton_length_px'] * 8.5 / 1000:,.1f} mm",
        "Mean calibre": f"{measures['calibre_mean_px'] * 8.5:.1f} \xb5m",
        "Tortuosity": f"{measures['tortuosity']:.3f}",
        "Fractal dimension": f"{measures['fractal_d0']:.3f}",
        "Branch points": f"{measures['branch_points']:.0f}",
        "End points": f"{measures['end_points']:.0f}",
        "Threshold": "0.55 (chosen; fitted for the model: 0.6137)",
        "Scale": "8.5 \xb5m per px",
        "Model": f"a/model@v1, with ReSegNet {__version__}",
        "Size": "180 x 150 px",
    }
    assert {title: texts[texts.index(title) + 1] for title in shown} == shown
    scores = numbers["comparison"]
    titles = {"F1 (Dice)": "f1", "Sensitivity": "sensitivity", "clDice": "cldice", "AUROC": "auroc"}
    assert {title: texts[texts.index(title) - 1] for title in titles} == {
        title: f"{scores[key]:.3f}" for title, key in titles.items()
    }
    assert "my eye.png" in texts and DISCLAIMER in texts
    with open(photograph, "rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() in texts


def test_the_report_shows_warnings_and_long_names_stay_on_the_page(segmenter, tmp_path):
    path = tmp_path / f"{'long name ' * 12}\u7709.png"
    Image.new("RGB", (900, 200), (40, 90, 200)).save(path)
    handlers = Handlers(Models(segmenter), [])
    name, pdf = saved(handlers, [str(path)], settings(str(path), what="report-pdf"))
    assert name.startswith("long name long name")
    words = " ".join(texts_of(pdf))
    (warning, *_) = segmenter(path).warnings
    assert warning in words
    _, picture = saved(handlers, [str(path)], settings(str(path), what="report-png"))
    with Image.open(io.BytesIO(picture)) as image:
        page = np.asarray(image.convert("L"))
    assert page.shape == (2339, 1653)
    margin = 100  # px, less than that of the page
    assert (page[:margin] == 255).all() and (page[-margin:] == 255).all()
    assert (page[:, :margin] == 255).all() and (page[:, -margin:] == 255).all()


@pytest.mark.parametrize("size", [(3000, 1), (1, 9000)])
def test_a_strip_has_a_report_too(segmenter, tmp_path, size):
    path = tmp_path / "strip.png"
    Image.new("RGB", size, (190, 90, 40)).save(path)
    handlers = Handlers(Models(segmenter), [])
    for what in ("report-pdf", "report-png"):
        assert saved(handlers, [str(path)], settings(str(path), what=what))[1]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"threshold": None}, "The threshold is None"),
        ({"threshold": 1.5}, "The threshold is 1.5"),
        ({"threshold": float("nan")}, "The threshold is nan"),
        ({"threshold": True}, "The threshold is True"),
        ({"threshold": "0.5"}, "The threshold is '0.5'"),
        ({"opacity": -1}, "The opacity is -1"),
        ({"color": "red"}, "The colour is 'red'"),
        ({"color": ["#ffffff"]}, "The colour is"),
        ({"what": "../../etc/passwd"}, "The file to save is"),
        ({"what": "errors"}, "The file to save is 'errors'"),  # without a reference
    ],
)
def test_settings_that_viewer_js_would_not_send_are_rejected(segmenter, photograph, changed, sentence):
    with pytest.raises(Error, match=sentence):
        Handlers(Models(segmenter), []).save([photograph], settings(photograph, **changed))


@pytest.mark.parametrize("scale", ["8.5", True, 0, -1, 1e9, float("nan")])
def test_a_scale_that_viewer_js_would_not_send_is_rejected(segmenter, photograph, scale):
    with pytest.raises(Error, match="expected micrometres per pixel"):
        Handlers(Models(segmenter), []).save([photograph], settings(photograph, what="numbers", um_per_px=scale))


def test_kinds_and_calibres_come_when_the_page_draws_them(photograph, reference):
    config = Config(encoder="two-looks", encoder_depth=2, decoder_channels=(16, 16), input_size=128, threshold=FITTED,
                    context_size=96, context_channels=(32, 16, 16))  # fmt: skip
    segmenter = Segmenter(TwoLooksOnGreen(), config)
    handlers = Handlers(Models(segmenter), [])
    shown, files = handlers.show(photograph, [], None)
    result = segmenter(photograph)
    disc, fovea = shown["shapes"]["disc"], shown["shapes"]["fovea"]
    assert (disc["y"], disc["x"]) == pytest.approx(np.array(result.disc.centre) + 0.5)
    assert fovea == pytest.approx([result.fovea[1] + 0.5, result.fovea[0] + 0.5])
    assert shown["shapes"]["eye"] == result.eye and shown["has_kinds"]
    assert disc["zones"] == [ZONE_B.borders_px(result.disc), ZONE_C.borders_px(result.disc)]
    assert {measure["key"] for measure in SHOWN_MEASURES} <= result.measure().keys()
    (outline,) = disc["outline"]
    x, y = np.array(outline).reshape(-1, 2).T
    area = abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2
    assert area == pytest.approx(result.disc.mask.sum(), rel=0.05)

    answer = handlers.measure(files, settings(photograph))
    assert answer["kinds"] is answer["calibres"] is None
    answer = handlers.measure(files, settings(photograph, needs=["kinds", "calibres", 3]))
    moved = result.at(0.55)
    content = Path(answer["kinds"]["path"]).read_bytes()
    np.testing.assert_array_equal(unpack(content, (150, 180)), moved.kinds)
    points = np.frombuffer(zlib.decompress(Path(answer["calibres"]["path"]).read_bytes()), "<f4").reshape(-1, 3)
    np.testing.assert_allclose(points[:, 1::-1] - 0.5, moved.centrelines.points, atol=1e-3)
    np.testing.assert_allclose(points[:, 2], moved.centrelines.calibres_px, rtol=1e-6)
    name, picture = saved(handlers, files, settings(photograph, what="kinds", safe_kinds=True))
    assert name == "my eye_arteries_veins_0.55.png"
    assert picture == export.kinds_map_png(moved, safe_colors=True)
    _, packed = saved(handlers, files, settings(photograph, what="all", safe_kinds=True))
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.read("my eye_kinds_map.png") == picture
    without = Handlers(Models(Segmenter(DarkOnGreen(), Config(input_size=128))), [])
    with pytest.raises(Error, match="The file to save is 'kinds'"):
        without.save(files, settings(photograph, what="kinds"))


def test_each_reason_has_its_words_and_the_report_tells_them(photograph):
    assert REASONS.keys() == set(Undefined)
    config = Config(encoder="two-looks", encoder_depth=2, decoder_channels=(16, 16), input_size=128, threshold=FITTED,
                    context_size=96, context_channels=(32, 16, 16))  # fmt: skip
    handlers = Handlers(Models(Segmenter(TwoLooksOnGreen(), config)), [])
    assert handlers.measure([photograph], settings(photograph))["reasons"].keys() == {"crae_px", "crve_px", "avr"}
    words = " ".join(texts_of(saved(handlers, [photograph], settings(photograph, what="report-pdf"))[1]))
    assert "Fewer than six arteries cross zone B." in words and "Fewer than six veins cross zone B." in words


def test_files_of_others_cannot_be_asked_for(segmenter, photograph, reference):
    """The browser names the photograph and the reference; only those that the session itself opened are given."""
    handlers = Handlers(Models(segmenter), [])
    for asked in (None, "", photograph, "/etc/passwd", {}):
        with pytest.raises(Error, match="deletes photographs after an hour"):
            handlers.save([reference], settings(asked))
    with pytest.raises(Error, match="deletes photographs after an hour"):
        handlers.save([photograph], settings(photograph, reference=reference))
    with pytest.raises(Error, match="deletes photographs after an hour"):
        handlers.save([photograph], None)
