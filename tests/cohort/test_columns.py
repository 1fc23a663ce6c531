"""The table of a cohort and its lines: whole numbers, quadrants, warnings, scales, progress."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.cohort import table
from support.dicom import dicom
from support.synthetic import draw_fundus

from resegnet import Segmenter
from resegnet.cohort import lines
from resegnet.cohort.photograph import Photograph
from resegnet.cohort.run import Counts
from resegnet.cohort.work import Outcome
from resegnet.io import png

COUNTS = ["field_area_px", "vessel_area_px", "branch_points", "end_points", "segments"]


@pytest.fixture
def dim(folder):
    """A folder with a dark photograph and one of a coloured square beside good ones."""
    eye = draw_fundus(3, (400, 420)).image
    (folder / "dark.png").write_bytes(png((eye * 0.15).astype(np.uint8)))
    Image.new("RGB", (90, 90), (10, 90, 200)).save(folder / "square.png")
    return folder


def test_whole_numbers_are_whole(folder, segment, tmp_path):
    assert segment(folder / "a.png", "--out", "out", "--quadrants") == 0
    (row,) = table(tmp_path / "out/results.csv")
    names = [*COUNTS, *(f"upper_left_{name}" for name in COUNTS), "width", "field_left"]
    assert all(row[name].isdecimal() for name in names), row
    assert "." in row["vessel_density"] and "." in row["skeleton_length_px"]
    schema = pq.read_schema(tmp_path / "out/results.parquet")
    assert {schema.field(name).type for name in names} == {pa.int64()}
    assert json.loads((tmp_path / "out/records/a.json").read_text())["row"]["segments"] == int(row["segments"])


def test_quadrants_are_measured_on_request_and_resuming_keeps_to_it(folder, segment, tmp_path, network):
    assert segment(folder / "a.png", "--out", "out") == 0
    few = table(tmp_path / "out/results.csv")[0]
    assert not [name for name in few if "upper" in name or "lower" in name]
    assert segment(folder / "a.png", "--out", "out", "--resume", "--quadrants") == 0
    many = table(tmp_path / "out/results.csv")[0]
    assert network.calls == 2
    assert few == {name: value for name, value in many.items() if name in few}
    assert sum(int(many[f"{part}_vessel_area_px"]) for part in ("upper_left", "upper_right", "lower_left",
               "lower_right")) == int(few["vessel_area_px"])  # fmt: skip
    for _ in range(2):
        assert segment(folder / "a.png", "--out", "out", "--resume") == 0
    assert network.calls == 3


def test_warnings_have_codes_sentences_and_a_count(dim, segment, tmp_path, capsys):
    assert segment(dim, "--out", "out") == 0
    rows = {row["id"]: row for row in table(tmp_path / "out/results.csv")}
    segmenter = Segmenter.from_pretrained()
    for name, row in rows.items():
        warnings = segmenter(row["source"]).warnings
        assert row["warning_codes"].split() == [warning.code for warning in warnings], name
        assert row["warnings"] == " ".join(warnings)
    assert rows["square"]["warning_codes"] == "not_fundus"
    assert "too_dark" in rows["dark"]["warning_codes"].split()
    warned = [row["warning_codes"].split() for row in rows.values() if row["warning_codes"]]
    codes = sorted({code for found in warned for code in found})
    counts = {code: sum(code in found for found in warned) for code in codes}
    listed = ", ".join(f"{code} {count}" for code, count in counts.items())
    said = f"\n{len(warned)} with warnings ({listed}): see the columns warning_codes and warnings\n"
    assert said in capsys.readouterr().out
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert (run["with_warnings"], run["warnings"]) == (len(warned), counts)


def test_a_cohort_without_warnings_has_text_columns_and_no_such_line(segment, tmp_path, capsys):
    (tmp_path / "eye.png").write_bytes(png(draw_fundus(1, (700, 700)).image))
    assert segment("eye.png", "--out", "out") == 0
    assert "with warnings" not in capsys.readouterr().out
    done = pq.read_table(tmp_path / "out/results.parquet")
    assert done.schema.field("warning_codes").type == done.schema.field("warnings").type == pa.string()
    assert done.column("warnings").to_pylist() == [""]


@pytest.mark.parametrize(("given", "used"), [((), 0.5), (("--threshold", "0.7"), 0.7)])
def test_run_json_has_the_threshold_that_was_used(folder, segment, tmp_path, given, used):
    assert segment(folder / "a.png", "--out", "out", *given) == 0
    run = json.loads((tmp_path / "out/run.json").read_text())
    row = table(tmp_path / "out/results.csv")[0]
    assert run["threshold"] == used
    for name in ("model", "model_sha256", "engine"):
        assert run[name] == row[name]
    assert (run["anatomy"], run["overlay"], run["probability"], run["quadrants"]) == (False, True, False, False)
    assert row["threshold"] == str(used)


# The scale


def test_the_scale_comes_from_the_table_the_option_or_the_file_in_this_order(segment, tmp_path):
    eye = draw_fundus(1, (130, 140)).image
    (tmp_path / "eye.dcm").write_bytes(dicom(eye, PixelSpacing=[0.008, 0.008]))
    (tmp_path / "eye.png").write_bytes(png(eye))
    (tmp_path / "list.csv").write_text("image,um_per_px,id\neye.dcm,5,given\neye.dcm,,dicom\neye.png,,plain\n")
    assert segment("list.csv", "--out", "out") == 0
    rows = {row["id"]: row for row in table(tmp_path / "out/results.csv")}
    assert [(row["um_per_px"], row["scale_from"]) for row in rows.values()] == [
        ("5.0", "table"), ("8.0", "photograph"), ("", ""),
    ]  # fmt: skip
    for name, scale in (("given", 5), ("dicom", 8)):
        lengths = [float(rows[name][f"skeleton_length_{unit}"]) for unit in ("um", "px")]
        assert lengths[0] == pytest.approx(scale * lengths[1])
    assert rows["plain"]["skeleton_length_um"] == ""
    assert segment("eye.dcm", "eye.png", "--out", "option", "--um-per-px", "7") == 0
    assert {(row["um_per_px"], row["scale_from"]) for row in table(tmp_path / "option/results.csv")} == {
        ("7.0", "option")
    }


def test_resuming_knows_the_scale_of_a_file(segment, tmp_path, network):
    (tmp_path / "eye.dcm").write_bytes(dicom(draw_fundus(1, (130, 140)).image, PixelSpacing=[0.008, 0.008]))
    for arguments, calls in (((), 1), ((), 1), (("--um-per-px", "7"), 2), ((), 3)):
        assert segment("eye.dcm", "--out", "out", "--resume", *arguments) == 0
        assert network.calls == calls, arguments
    assert table(tmp_path / "out/results.csv")[0]["um_per_px"] == "8.0"


@pytest.mark.parametrize(("width", "is_doubtful"), [(140, False), (160, False), (280, True)])
def test_one_scale_for_photographs_of_very_different_size_is_doubted(segment, tmp_path, capsys, width, is_doubtful):
    for name, size in (("small", (130, 140)), ("other", (130, width))):
        (tmp_path / f"{name}.png").write_bytes(png(draw_fundus(1, size).image))
    assert segment("small.png", "other.png", "--out", "out", "--um-per-px", "7.5") == 0
    said = capsys.readouterr().out
    assert ("note: photographs of 140 to 280 px share --um-per-px 7.5, which fits only" in said) == is_doubtful
    assert ("note:" in said) == is_doubtful
    (tmp_path / "list.csv").write_text("image,um_per_px\nsmall.png,8\nother.png,4\n")
    assert segment("list.csv", "--out", "own", "--um-per-px", "7.5") == 0
    assert "note:" not in capsys.readouterr().out


# Progress


def outcome(**row):
    return Outcome({"vessel_density": 0.1, "mask": "masks/a.png", "warnings": "", **row})


def test_progress_is_told_where_no_terminal_shows_a_bar(monkeypatch, capsys):
    clock = iter([0, 10, 31, 40, 70, *[3000] * 30])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    tell = lines.Teller("out", 1000)
    photograph = Photograph("eye", "eye", "eye.png")
    for number in range(4):
        tell(photograph, Outcome(error="It cannot be read.") if number == 2 else outcome())
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "2 of 1000 photographs, about 4.3 h left",
        "4 of 1000 photographs, 1 of them failed, about 4.8 h left",
    ]
    assert said.err == "resegnet: eye: It cannot be read.\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    tell(photograph, outcome())
    assert capsys.readouterr().out == ""


def test_few_photographs_are_told_one_by_one(capsys):
    tell = lines.Teller("out", 2)
    tell(Photograph("eye", "eye", "eye.png"), outcome(warnings="It is dark."))
    assert capsys.readouterr().out == (
        "eye.png: vessels in 10.0% of the field of view, out/masks/a.png\n  warning: It is dark.\n"
    )


def test_counts_of_sizes_take_the_longer_side():
    counts = Counts()
    for width, height in ((100, 80), (80, 120)):
        row = {"warning_codes": "", "scale_from": "option", "width": width, "height": height}
        row |= {"model": "bundled", "model_sha256": "", "engine": "onnx"}
        counts.add(Outcome(row), resumed=False)
    assert counts.sides_px == (100, 120)
    assert not counts.is_scale_doubtful
