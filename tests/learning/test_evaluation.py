"""Reports on data sets whose scores are known, by a segmenter that reads its answer off the photograph."""

import argparse
import csv
import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score, roc_auc_score

from resegnet.__main__ import build_parser, main
from resegnet.config import Config
from resegnet.errors import DataError
from resegnet.geometry import Geometry
from resegnet.image import read_image
from resegnet.learning import evaluation
from resegnet.learning.data import load_vessels
from resegnet.learning.evaluate import _keep
from resegnet.learning.evaluate import evaluate as evaluate_command
from resegnet.learning.evaluation import evaluate_dataset, find_second_observer, format_table, round_trip
from resegnet.learning.samples import photograph_sha256
from resegnet.results.agreement import COMPARED, agreement
from resegnet.results.measure import measure_mask
from resegnet.results.render import ERROR_COLORS
from resegnet.results.segmentation import Segmentation

THRESHOLD = 100 / 255
SIZE = (70, 90)


class ReadsTheAnswer:
    """Probability is the green channel, the field of view where blue is over 127."""

    config = Config(threshold=THRESHOLD, input_size=96)
    model = "reads the answer"

    def __call__(self, image):
        probability = image[:, :, 1].astype(np.float32) / 255
        return Segmentation(image, probability, image[:, :, 2] > 127, THRESHOLD, ())


def picture(seed, good):
    """Three bars, green that is right with probability `good`; ReSegNet's own field misses 5 columns of the
    set's. Two bars go on outside both, where nothing counts."""
    random = np.random.default_rng(seed)
    vessels, fov, own = (np.zeros(SIZE, bool) for _ in range(3))
    vessels[10:14, 12:80] = vessels[30:33, 0:70] = vessels[20:70, 40:43] = True
    fov[5:65, 5:85] = True
    own[5:65, 10:85] = True
    green = np.where(np.where(random.random(SIZE) < good, vessels, ~vessels), 180, 20) + random.integers(-19, 20, SIZE)
    image = np.stack([np.full(SIZE, 90), green, np.where(own, 200, 50)], axis=2).astype(np.uint8)
    return image, vessels, fov, own


PICTURES = {"eye_a": picture(1, 0.95), "eye_b": picture(2, 0.8), "eye_c": picture(3, 0.99)}


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels).save(path)


def write_dataset(folder, pictures, with_fov=True):
    lines = []
    for name, (image, vessels, fov, *_) in pictures.items():
        write(folder / "test" / f"{name}.png", image)
        write(folder / "test" / f"{name}_mask.png", vessels)
        line = {"image_id": name, "patient": name, "dataset": "bars"}
        line |= {"image_file_name": f"{name}.png", "mask_file_name": f"{name}_mask.png"}
        if with_fov:
            write(folder / "test" / f"{name}_fov.png", fov)
            line["fov_file_name"] = f"{name}_fov.png"
        lines.append(json.dumps(line))
    (folder / "test" / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def bars(tmp_path):
    return write_dataset(tmp_path / "bars", PICTURES)


@pytest.fixture
def dataset(bars):
    return load_vessels(bars, "test")


def evaluate(dataset, **options):
    return evaluate_dataset(ReadsTheAnswer(), dataset, progress=False, **options)


def flat(pictures, field):
    """Truth and probability as the product gives it, 0 outside its own field, over all pixels that count."""
    truth = np.concatenate([vessels[field(fov, own)] for _, vessels, fov, own in pictures])
    answer = np.concatenate([(image[:, :, 1] / 255 * own)[field(fov, own)] for image, _, fov, own in pictures])
    return truth, answer


def test_scores_count_the_sets_field_and_what_the_own_field_leaves_out_is_missed(dataset):
    report = evaluate(dataset)
    truth, answer = flat(PICTURES.values(), lambda fov, own: fov)
    assert report["pooled"]["f1"] == pytest.approx(f1_score(truth, answer >= THRESHOLD))
    assert report["pooled"]["auroc"] == pytest.approx(roc_auc_score(truth, answer))
    each = [f1_score(t, a >= THRESHOLD) for t, a in (flat([p], lambda fov, own: fov) for p in PICTURES.values())]
    assert [row["f1"] for row in report["pictures"]] == pytest.approx(each)
    assert [row["image_id"] for row in report["pictures"]] == list(PICTURES)
    assert report["mean"]["f1"] == pytest.approx(np.mean(each))
    assert report["sd"]["f1"] == pytest.approx(np.std(each, ddof=1))
    assert report["field_of_view"] == [evaluation.FIELD_GIVEN]
    assert report["second_observer"] is None
    digests = [photograph_sha256(image) for image, *_ in PICTURES.values()]
    assert [row["sha256"] for row in report["pictures"]] == digests and len(set(digests)) == 3


def test_the_sha256_is_that_of_the_pixels():
    """The same pixels in another file are the same photograph; in another shape they are not."""
    image = PICTURES["eye_a"][0]
    for kind in ("PNG", "TIFF"):
        file = io.BytesIO()
        Image.fromarray(image).save(file, kind)
        assert photograph_sha256(read_image(file.getvalue())) == photograph_sha256(image)
    assert photograph_sha256(image.reshape(90, 70, 3)) != photograph_sha256(image)
    assert photograph_sha256(image ^ (np.indices(image.shape).sum(axis=0) == 0)) != photograph_sha256(image)


def test_a_set_without_fields_is_scored_in_the_one_found_and_says_so(tmp_path):
    folder = write_dataset(tmp_path / "bare", PICTURES, with_fov=False)
    report = evaluate(load_vessels(folder, "test"))
    truth, answer = flat(PICTURES.values(), lambda fov, own: own)
    assert report["pooled"]["f1"] == pytest.approx(f1_score(truth, answer >= THRESHOLD))
    assert report["field_of_view"] == [evaluation.FIELD_FOUND]
    assert "found by ReSegNet" in format_table(report)


def test_second_observer_is_scored_against_the_first_in_the_same_field(bars, dataset):
    folder = bars.parent / "second_observer"
    for name, (_, vessels, fov, _) in PICTURES.items():
        # Agrees in the field up to the lower half of it; what is traced outside the field must not count.
        second = vessels & (np.arange(SIZE[0]) < 25)[:, None]
        write(folder / f"{name}.png", second | ~fov)
    assert find_second_observer(bars) == folder
    report = evaluate(dataset, second_observer=folder)
    second = report["second_observer"]
    _, vessels, fov, _ = PICTURES["eye_a"]
    hits, all_of_them = (vessels & fov)[:25].sum(), (vessels & fov).sum()
    assert second["count"] == 3
    assert second["pooled"]["f1"] == pytest.approx(2 * hits / (hits + all_of_them))
    assert second["pooled"]["precision"] == 1
    assert second["sd"]["f1"] == pytest.approx(0)
    assert second["pooled"]["auroc"] is None
    assert second["mean"]["auroc"] is None
    assert second["model"] == report["pooled"]
    table = format_table(report)
    assert "second person" in table
    assert "same" not in table


@pytest.mark.parametrize("option", ["--numbers", "--json"])
def test_a_folder_in_place_of_a_file_is_refused_before_the_work(option, bars, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluation.Segmenter, "from_pretrained", lambda *_, **__: pytest.fail("it has begun"))
    assert main(["evaluate", "--dataset", str(bars), option, str(tmp_path)]) == 1
    assert f"{option} got the folder {tmp_path}, expected the name of a file" in capsys.readouterr().err


def test_the_report_is_written_although_nobody_reads_the_output(bars, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation.Segmenter, "from_pretrained", lambda *_, **__: ReadsTheAnswer())

    class ClosedPipe(io.StringIO):
        def write(self, _):
            raise BrokenPipeError

    report = tmp_path / "report.json"
    arguments = build_parser().parse_args(["evaluate", "--dataset", str(bars), "--json", str(report)])
    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    with pytest.raises(BrokenPipeError):
        evaluate_command(arguments)
    assert json.loads(report.read_text())["split"] == "test"


def test_a_spoilt_reference_of_a_second_observer_is_named(bars, dataset):
    (bars / "second_observer").mkdir(exist_ok=True)
    (bars / "second_observer" / "eye_a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"The second reference .*eye_a\.png cannot be read"):
        evaluate(dataset, second_observer=bars / "second_observer")


def test_a_folder_of_a_second_observer_that_is_not_there_is_refused(bars, capsys):
    assert main(["evaluate", "--dataset", str(bars), "--second-observer", "nowhere"]) == 1
    assert "--second-observer got nowhere, expected a folder" in capsys.readouterr().err


def test_model_is_also_scored_on_the_pictures_that_the_second_observer_has(bars, dataset):
    write(bars / "second_observer" / "eye_b.png", PICTURES["eye_b"][1])
    report = evaluate(dataset, second_observer=find_second_observer(bars))
    second = report["second_observer"]
    truth, answer = flat([PICTURES["eye_b"]], lambda fov, own: fov)
    assert second["count"] == 1
    assert second["pooled"]["f1"] == 1
    assert second["model"]["f1"] == pytest.approx(f1_score(truth, answer >= THRESHOLD))
    assert "model, same 1" in format_table(report)


def test_a_second_tracing_of_another_size_is_named(bars, dataset):
    write(bars / "second_observer" / "eye_b.png", PICTURES["eye_b"][1][1:])
    with pytest.raises(DataError, match=r"eye_b\.png is \(69, 90\).*\(70, 90\)"):
        evaluate(dataset, second_observer=bars / "second_observer")


def test_no_second_observer_for_a_hub_id_or_a_set_without():
    assert find_second_observer("someone/retina") is None
    assert find_second_observer("synthetic") is None


def test_the_second_observer_of_a_set_in_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "set" / "second_observer").mkdir(parents=True)
    assert find_second_observer("~/set") == tmp_path / "set" / "second_observer"


def test_scores_of_the_working_folder_get_its_name(tmp_path, monkeypatch):
    (tmp_path / "drive").mkdir()
    (tmp_path / "metrics.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "drive")
    arguments = argparse.Namespace(dataset=".", model=str(tmp_path), split="test", save=True, json=None)
    _keep(arguments, {"count": 1})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"drive": {"split": "test", "count": 1}}


def test_ceiling_is_what_a_flawless_network_of_that_size_would_score(dataset):
    report = evaluate(dataset)
    _, vessels, fov, own = PICTURES["eye_a"]
    back = round_trip(vessels, Geometry.around(own, 96))
    assert back.shape == SIZE
    assert report["ceiling"] == pytest.approx(f1_score(vessels[fov], back[fov]))  # the same reference three times
    assert report["pictures"][0]["ceiling"] == pytest.approx(report["ceiling"])
    assert 0.95 < report["ceiling"] < 1
    assert f"{report['ceiling']:.4f}" in format_table(report)
    # A comb of 1 px lines, 2 px apart, drowns at a sixteenth of its size; at its own size nothing is lost.
    comb = np.zeros((256, 256), bool)
    comb[:, ::3] = True
    whole = np.ones_like(comb)
    assert not round_trip(comb, Geometry.around(whole, 16)).any()
    assert np.array_equal(round_trip(comb, Geometry((256, 256), (0, 0, 256), 256)), comb)


def test_worst_pictures_are_written_as_error_maps(dataset, tmp_path):
    out = tmp_path / "maps"
    report = evaluate(dataset, worst=2, out=out)
    assert [Path(path).name for path in report["error_maps"]] == ["eye_b_errors.png", "eye_a_errors.png"]
    assert sorted(path.name for path in out.iterdir()) == ["eye_a_errors.png", "eye_b_errors.png"]
    image, vessels, fov, own = PICTURES["eye_b"]
    mask = (image[:, :, 1] >= 100) & own
    with Image.open(report["error_maps"][0]) as file:
        drawn = np.asarray(file)
    for kind, expected in {
        "hit": mask & vessels,
        "miss": ~mask & vessels,
        "false alarm": mask & ~vessels,
    }.items():
        assert np.array_equal((drawn == ERROR_COLORS[kind]).all(axis=2), expected & fov), kind
    assert report["error_maps"][0] in format_table(report)


def test_error_maps_are_asked_for_and_of_a_size_to_look_at(tmp_path):
    image = np.full((240, 2400, 3), (90, 20, 200), np.uint8)
    vessels = np.zeros((240, 2400), bool)
    vessels[100:110] = True
    folder = write_dataset(tmp_path / "large", {"eye": (image, vessels, np.ones_like(vessels))})
    dataset = load_vessels(folder, "test")
    assert evaluate(dataset)["error_maps"] == []
    assert evaluate(dataset, out=tmp_path / "none", worst=0)["error_maps"] == []
    report = evaluate(dataset, out=tmp_path / "maps")
    with Image.open(report["error_maps"][0]) as file:
        assert file.size == (2000, 200)


def test_undefined_scores_are_none_in_the_report_and_a_dash_in_the_table(tmp_path):
    image, vessels, fov, _ = PICTURES["eye_a"]
    blank = image.copy()
    blank[:, :, 1] = 0
    report = evaluate(load_vessels(write_dataset(tmp_path / "one", {"eye": (blank, vessels, fov)}), "test"))
    assert report["pooled"]["precision"] is None
    assert report["pooled"]["f1"] == 0
    assert report["sd"]["f1"] is None
    row = next(line for line in format_table(report).splitlines() if line.startswith("pooled"))
    assert row.split() == ["pooled", "0.0000", "0.0000", "-", *row.split()[4:]]
    json.dumps(report, allow_nan=False)


def test_agreement_of_known_differences():
    traced = np.array([3.0, 4.5, 7.0, 8.0, 9.5, 12.0])
    spread = traced.var(ddof=1)
    same = agreement(traced, traced)
    assert (same["count"], same["bias"], same["lower"], same["upper"], same["icc"]) == (6, 0, 0, 0, pytest.approx(1))
    # Absolute agreement: a constant difference counts as disagreement, as much as a scatter of its square.
    moved = agreement(traced + 2, traced)
    assert moved["bias"] == moved["lower"] == moved["upper"] == 2
    assert moved["mean"] == pytest.approx(traced.mean())
    assert moved["icc"] == pytest.approx(2 * spread / (2 * spread + 2**2))
    # Shrout and Fleiss 1979, table 2, the first and the last of the four judges: analysis of variance.
    first, last = [9, 6, 8, 7, 10, 6], [8, 2, 8, 6, 9, 7]
    whole = np.var([first, last]) * 12
    targets, judges = 2 * np.var(np.add(first, last) / 2) * 6, 6 * np.var([np.mean(first), np.mean(last)]) * 2
    rest = (whole - targets - judges) / 5
    expected = (targets / 5 - rest) / (targets / 5 + rest + 2 * (judges - rest) / 6)
    assert expected == pytest.approx(0.648, abs=0.0005)
    assert agreement(first, last)["icc"] == pytest.approx(expected)
    assert agreement(last, first)["icc"] == pytest.approx(expected)
    differences = np.subtract(first, last)
    limits = differences.mean() + np.array([-1.96, 1.96]) * differences.std(ddof=1)
    assert [agreement(first, last)[key] for key in ("lower", "upper")] == pytest.approx(limits)


def test_agreement_leaves_out_what_is_not_defined():
    whole = agreement([1.0, 2.5, 4.0], [1.5, 2.0, 4.5])
    assert agreement([1.0, math.nan, 2.5, 7.0, 4.0], [1.5, 3.0, 2.0, math.nan, 4.5]) == whole
    assert whole["count"] == 3
    assert math.isnan(agreement([1.0, math.nan], [2.0, 3.0])["icc"])
    for value in (2.0, 2.2, 1.7, 0.1):
        assert math.isnan(agreement([value] * 3, [value] * 3)["icc"])


def test_numbers_of_found_and_traced_vessels_are_measured_in_the_sets_field(bars, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluation.Segmenter, "from_pretrained", lambda *_, **__: ReadsTheAnswer())
    path, report_path = tmp_path / "new" / "numbers.csv", tmp_path / "report.json"
    arguments = ["--numbers", str(path), "--json", str(report_path), "--out", str(tmp_path / "maps")]
    assert main(["evaluate", "--dataset", str(bars), *arguments]) == 0
    printed = capsys.readouterr().out
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image_id"], row["vessels"]) for row in rows] == [
        (name, vessels) for name in PICTURES for vessels in ("found", "traced")
    ]
    for found, traced in zip(rows[::2], rows[1::2], strict=True):
        image, vessels, fov, own = PICTURES[found["image_id"]]
        for row, mask in ((found, (image[:, :, 1] >= 100) & own), (traced, vessels)):
            for key, value in measure_mask(mask, fov).items():
                assert row[key] == ("" if math.isnan(value) else str(value)), key
    densities = np.array([float(row["vessel_density"]) for row in rows]).reshape(3, 2)
    measured = json.loads(report_path.read_text())["numbers"]["agreement"]["vessel_density"]
    assert measured["bias"] == pytest.approx(np.subtract(*densities.mean(axis=0)))
    for key in COMPARED:
        assert any(line.startswith(f"{key} ") for line in printed.splitlines()), key
    assert evaluate(load_vessels(bars, "test"))["numbers"] is None


def test_an_empty_split_is_refused(dataset):
    with pytest.raises(DataError, match="no picture"):
        evaluate(dataset.select([]))


def test_command_prints_the_table_and_writes_the_report(bars, tmp_path, monkeypatch, capsys):
    asked = []

    def from_pretrained(name=None, revision=None, engine=None):
        asked.append(name)
        return ReadsTheAnswer()

    monkeypatch.setattr(evaluation.Segmenter, "from_pretrained", from_pretrained)
    for name, (_, vessels, *_) in PICTURES.items():
        write(bars.parent / "second_observer" / f"{name}.png", vessels)
    path = tmp_path / "new" / "report.json"
    arguments = ["--dataset", str(bars), "--json", str(path), "--out", str(tmp_path / "maps"), "--worst", "1"]
    assert main(["evaluate", *arguments]) == 0
    printed = capsys.readouterr().out
    report = json.loads(path.read_text())
    assert printed == format_table(report) + "\n"
    assert (report["split"], report["model"], report["source"]) == ("test", "reads the answer", str(bars))
    assert (report["threshold"], report["count"]) == (THRESHOLD, 3)
    assert report["second_observer"]["pooled"]["f1"] == 1
    assert len(list((tmp_path / "maps").iterdir())) == 1
    assert {"resegnet", "torch", "numpy"} <= set(report["versions"])
    assert asked == [None]


@pytest.mark.slow
@pytest.mark.data
def test_second_observer_of_drive_scores_what_is_published(real):
    drive = real / "drive"
    report = evaluate(load_vessels(drive, "test"), second_observer=find_second_observer(drive))
    # Fraz et al. 2012, 10.1016/j.cmpb.2012.03.009, and many after it quote sensitivity 0.7760, specificity
    # 0.9724 and accuracy 0.9472: means over the pictures, inside the field of view.
    second = report["second_observer"]
    assert second["count"] == 20
    assert second["mean"]["recall"] == pytest.approx(0.7760, abs=0.0001)
    assert second["mean"]["specificity"] == pytest.approx(0.9724, abs=0.0002)
    assert second["mean"]["accuracy"] == pytest.approx(0.9472, abs=0.0002)
    assert second["pooled"]["f1"] == pytest.approx(0.789, abs=0.0005)
