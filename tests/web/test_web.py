"""The page's handlers, without a browser: levels, results in memory, answers, files to save, the About text."""

import csv
import hashlib
import io
import json
import re
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from gradio import EventData
from gradio.exceptions import Error
from PIL import Image
from support import PATIENCE_S
from support.stand_in import DarkOnGreen, TwoLooksOnGreen
from support.synthetic import draw_fundus

import app
from resegnet import Config, Segmentation, Segmenter
from resegnet.cohort.photograph import Photograph
from resegnet.cohort.work import CohortOptions, Work
from resegnet.releases.records import DISCLAIMER
from resegnet.results import export
from resegnet.results.compare import compare
from resegnet.results.measures import Undefined
from resegnet.results.zones import ZONE_B, ZONE_C
from resegnet.version import __version__
from resegnet.web.about import about
from resegnet.web.endpoints import Endpoints
from resegnet.web.handlers import Handlers
from resegnet.web.layout import build_app
from resegnet.web.levels import pack, probability_levels, slider_stops
from resegnet.web.models import Models
from resegnet.web.numbers import REASONS, SHOWN_MEASURES
from resegnet.web.recent import RecentResults
from resegnet.web.visits import Visits

FITTED = 0.6137


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


def settings(photo, **changed):
    """The settings that the browser sends with a request."""
    known = {"request": 7, "photo": photo, "reference": None, "threshold": 0.55}
    return known | {"color": "#ff8000", "opacity": 0.5, "what": "mask"} | changed


def unpack(stream, shape):
    return np.cumsum(np.frombuffer(zlib.decompress(stream), np.uint8), dtype=np.uint8).reshape(shape)


# Levels


def test_levels_give_the_mask_at_every_stop_to_the_last_pixel():
    stops = slider_stops(0.5334)
    assert len(stops) == 202
    edges = np.float32(stops)
    probability = np.concatenate([edges, np.nextafter(edges, np.float32(0)), np.nextafter(edges, np.float32(1))])
    probability = np.stack([probability, np.random.default_rng(0).random(len(probability), np.float32)])
    fov = np.random.default_rng(1).random(probability.shape) < 0.7
    result = Segmentation(np.zeros((*fov.shape, 3), np.uint8), probability, fov, 0.5)
    levels = unpack(pack(probability_levels(result, stops)), fov.shape)
    for k, stop in enumerate(stops):
        np.testing.assert_array_equal(levels > k, result.at(stop).mask)


@pytest.mark.parametrize("fitted", [0.5, 1e-6, 1 - 1e-6, 0.35])
def test_the_fitted_threshold_is_a_stop_and_all_fit_into_a_byte(fitted):
    stops = slider_stops(fitted)
    assert fitted in stops
    assert stops == sorted(set(stops))
    assert (stops[0], stops[-1]) == (0, 1)
    assert len(stops) <= 255


# Memory


def paths_of(results):
    return [path for path, _ in results._results]


def test_results_in_memory_are_bounded_and_the_longest_unused_goes_first(tmp_path):
    network = DarkOnGreen()
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for path in paths:
        Image.fromarray(draw_fundus(3, (130, 130)).image).save(path)
    two = 2 * 130 * 130 * (3 + 4 + 1)  # photograph, probability, field
    results = RecentResults(Models(Segmenter(network, Config(input_size=64))), limit_bytes=two)
    a, b, c = paths
    for path, calls in [(a, 1), (b, 2), (a, 2), (c, 3), (a, 3), (b, 4)]:
        results(path)
        assert network.calls == calls
    results.forget(a)
    results(b)
    assert network.calls == 4
    results(a)
    assert network.calls == 5


def test_results_in_memory_go_when_their_time_is_over(segmenter, network, photograph, reference):
    now = [0.0]
    results = RecentResults(Models(segmenter), keep_s=3600, clock=lambda: now[0])
    results(photograph)
    now[0] = 1800
    results(reference)
    for now[0], kept in [(3599, [photograph, reference]), (3600, [reference]), (5400, [])]:
        results.sweep()
        assert paths_of(results) == kept
    results(photograph)
    assert network.calls == 3


def test_they_go_by_themselves(segmenter, photograph):
    results = RecentResults(Models(segmenter), keep_s=0)
    results(photograph)
    sweeper = results._sweeper
    if sweeper is not None:  # it is done otherwise
        sweeper.join(PATIENCE_S)
    assert not results._results


def test_two_who_wait_for_one_photograph_take_one_forward_pass(segmenter, network, photograph, reference):
    results = RecentResults(Models(segmenter))
    network.go_on.clear()
    threads = [threading.Thread(target=results, args=[path]) for path in (reference, photograph, photograph)]
    for thread in threads:
        thread.start()
    while network.calls == 0:
        time.sleep(0.01)
    network.go_on.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert network.calls == 2


def test_a_session_gives_its_memory_back_when_it_opens_another_photograph(segmenter, photograph, reference):
    handlers = Handlers(Models(segmenter), examples=[reference])
    _, files = handlers.show(photograph, [], None)
    handlers.show(reference, files, settings(photograph))
    assert paths_of(handlers.results) == [reference]
    handlers.show(photograph, [reference], settings(reference))  # examples stay for the other sessions
    assert set(paths_of(handlers.results)) == {reference, photograph}
    handlers.show(reference, [], settings(photograph))  # nobody drops what is another session's
    assert set(paths_of(handlers.results)) == {reference, photograph}


def test_a_visit_is_found_by_its_secret_for_an_hour(segmenter, photograph, reference):
    now = [0.0]
    visits = Visits(3600, clock=lambda: now[0])
    visits.keep("a" * 32, ["eye.png"])
    visits.keep(None, ["other.png"])
    now[0] = 3599
    assert visits.find("a" * 32) == ["eye.png"]
    assert visits.find("b" * 32) == visits.find(None) == []
    now[0] = 3600
    assert visits.find("a" * 32) == []

    handlers = Handlers(Models(segmenter), [])
    handlers.show(photograph, [], settings(None, visit="c" * 32))
    shown, files = handlers.restore([], settings(None, visit="c" * 32, reopen=True))
    assert (shown["photo"], files[-1]) == (photograph, photograph)
    assert handlers.restore([], settings(None, visit="c" * 32)) == ({"request": 7, "kept": True}, [photograph])
    for secret in ("d" * 32, "c", None, ["c" * 32]):
        assert handlers.restore([], settings(None, visit=secret, reopen=True)) == ({"request": 7, "nothing": True}, [])
    Path(photograph).unlink()
    assert handlers.restore([], settings(None, visit="c" * 32, reopen=True))[0]["nothing"]
    gone, files = handlers.show_again([], settings(None), EventData(None, {"photo": reference}))
    assert "no longer on the server" in gone["error"] and files == []  # a file of another session


def test_a_photograph_beside_the_one_on_the_page_leaves_both_in_memory(segmenter, network, photograph, tmp_path):
    second = str(tmp_path / "second.png")
    Image.fromarray(draw_fundus(2, (140, 170)).image).save(second)
    handlers = Handlers(Models(segmenter), [])
    _, files = handlers.show(photograph, [], settings(None))
    _, files = handlers.show(second, files, settings(photograph))
    beside = handlers.show_beside(files, settings(photograph, request=3))
    assert (beside["request"], beside["photo"], beside["height"]) == (3, photograph, 150)
    calls = network.calls
    for path in files:
        assert handlers.measure(files, settings(path))["measures"]["vessel_density"] > 0
    assert network.calls == calls
    assert "no longer on the server" in handlers.show_beside([second], settings(photograph))["error"]
    handlers.results.forget(photograph)
    Path(photograph).unlink()
    assert "no longer on the server" in handlers.show_beside(files, settings(photograph))["error"]


# Answers for the browser


def test_counts_and_files_tell_the_whole_result(segmenter, photograph):
    shown, files = Handlers(Models(segmenter), []).show(photograph, ["earlier.png"], settings(None, request=12))
    result = segmenter(photograph)
    assert files == ["earlier.png", photograph]
    assert (shown["request"], shown["photo"]) == (12, photograph)
    assert (shown["height"], shown["width"], shown["name"]) == (150, 180, "my eye.png")
    assert shown["stops"][shown["fitted"]] == FITTED
    for k in (0, 60, shown["fitted"], 200):
        assert sum(shown["counts"][k:]) == result.at(shown["stops"][k]).mask.sum()
    with Image.open(shown["photograph"]["path"]) as image:
        assert np.abs(np.asarray(image, int) - result.image).mean() < 3
    with open(shown["levels"]["path"], "rb") as file:
        levels = unpack(file.read(), (150, 180))
    np.testing.assert_array_equal(levels > shown["fitted"], result.mask)


def test_a_file_that_is_no_picture_gives_its_sentence_and_opens_nothing(segmenter, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    answer, files = Handlers(Models(segmenter), []).show(str(tmp_path / "notes.txt"), ["earlier.png"], settings(None))
    assert answer.keys() == {"request", "error"}
    assert answer["error"].startswith("'notes.txt' cannot be identified; expected a JPEG")
    assert files == ["earlier.png"]


def test_warnings_of_the_photograph_are_shown(segmenter, tmp_path):
    Image.new("RGB", (200, 200), (40, 90, 200)).save(tmp_path / "sky.png")
    shown, _ = Handlers(Models(segmenter), []).show(str(tmp_path / "sky.png"), [], None)
    assert shown["warnings"]
    assert shown["warnings"] == list(segmenter(tmp_path / "sky.png").warnings)


def test_a_prepared_example_takes_no_forward_pass(segmenter, network, photograph):
    handlers = Handlers(Models(segmenter), [photograph])
    handlers.prepare_examples()
    calls = network.calls
    shown, files = handlers.show_example([], settings(None), EventData(None, {"index": 0}))
    assert files == [photograph]
    assert network.calls == calls == 1
    assert shown == Handlers(Models(segmenter), []).show(photograph, [], settings(None))[0]


@pytest.mark.parametrize("data", [{"index": 1}, {"index": -1}, {"index": "0"}, {}, None])
def test_an_unknown_example_gives_a_sentence(segmenter, photograph, data):
    answer, files = Handlers(Models(segmenter), [photograph]).show_example([], settings(None), EventData(None, data))
    assert answer["error"].startswith("The example is ")
    assert files == []


# Comparison


def test_a_reference_comes_with_its_counts_and_scores(segmenter, photograph, reference):
    handlers = Handlers(Models(segmenter), [])
    shown, files = handlers.show(photograph, [], None)
    answer, files = handlers.show_reference(reference, files, settings(photograph))
    assert files == [photograph, reference]
    comparison = compare(segmenter(photograph), reference)
    sent = answer["reference"]
    for k in (0, 60, shown["fitted"]):
        hits = comparison.reference & segmenter(photograph).at(shown["stops"][k]).mask
        assert sum(sent["counts"][k:]) == hits.sum()
    scores = comparison.scores()
    assert sent["auroc"] == scores["auroc"]
    assert sent["cldice"] == {"threshold": FITTED, "value": scores["cldice"]}
    refined = handlers.refine(files, settings(photograph, reference=reference, threshold=0.55))
    assert refined == {"threshold": 0.55, "value": comparison.at(0.55).scores()["cldice"]}
    assert refined["value"] != scores["cldice"]


def test_a_turned_manual_segmentation_is_asked_about(segmenter, photograph, reference, tmp_path):
    handlers = Handlers(Models(segmenter), [])
    answer, _ = handlers.show_reference(reference, [photograph], settings(photograph))
    assert answer["reference"]["doubt"] is None
    with Image.open(reference) as image:
        image.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "turned.png")
    answer, _ = handlers.show_reference(str(tmp_path / "turned.png"), [photograph], settings(photograph))
    assert answer["reference"]["doubt"].endswith("is it neither turned nor flipped?")


def test_a_rejected_reference_gives_its_sentence(segmenter, photograph, tmp_path):
    Image.new("L", (20, 20), 255).save(tmp_path / "small.png")
    answer, files = Handlers(Models(segmenter), []).show_reference(
        str(tmp_path / "small.png"), [photograph], settings(photograph)
    )
    assert "20 x 20" in answer["reference"]["error"]
    assert files == [photograph]


# Files


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


def test_measures_are_those_of_the_threshold_on_the_page(segmenter, photograph):
    handlers = Handlers(Models(segmenter), [])
    answer = handlers.measure([photograph], settings(photograph, threshold=0.55))
    expected = segmenter(photograph).at(0.55).measure()
    assert answer["measures"] == {key: expected[key] for key in answer["measures"]}
    assert answer["measures"].keys() == {shown["key"] for shown in SHOWN_MEASURES if not shown["needs_anatomy"]}
    assert (answer["photo"], answer["threshold"], answer["reason"]) == (photograph, 0.55, None)
    all_vessel = handlers.measure([photograph], settings(photograph, threshold=0))
    assert all_vessel["measures"] is None and "More than half" in all_vessel["reason"]


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


def test_a_deleted_photograph_is_not_measured_and_raises_no_alarm(segmenter):
    answer = Handlers(Models(segmenter), []).measure([], settings("deleted.png"))
    assert answer["measures"] is None and "no longer on the server" in answer["reason"]


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


def test_a_deleted_photograph_gives_a_sentence(segmenter, tmp_path):
    gone = str(tmp_path / "gone.png")
    for use in (Handlers(Models(segmenter), []).save, Handlers(Models(segmenter), []).refine):
        with pytest.raises(Error, match="deletes photographs after an hour"):
            use([gone], settings(gone))


# About


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
