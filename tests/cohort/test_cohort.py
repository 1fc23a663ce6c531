"""`python -m resegnet segment`: its results, wherever they are written."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.cohort import ROOT, SLOW, table
from support.files import tree
from support.stand_in import GreenTwice
from support.synthetic import draw_fundus

from resegnet import Config, Segmenter
from resegnet.__main__ import main
from resegnet.cohort import store
from resegnet.cohort.run import make_folder
from resegnet.cohort.work import CohortOptions
from resegnet.results.measures import Measures


def test_a_model_that_tells_kinds_writes_them_and_columns_of_the_eye(tmp_path, drawings, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config(
        encoder="two-looks",
        encoder_depth=2,
        decoder_channels=(16, 16),
        input_size=96,
        context_size=64,
        context_channels=(32, 16, 16),
    )

    def load(*_, anatomy=True, **__):
        return Segmenter(GreenTwice(), config, "a/model@v1", anatomy=anatomy)

    monkeypatch.setattr(Segmenter, "from_pretrained", load)
    (tmp_path / "eye.png").write_bytes(drawings[0])
    assert main(["segment", "eye.png", "--out", "out"]) == 0
    (row,) = table("out/results.csv")
    with Image.open(tmp_path / "out" / row["kinds"]) as kinds, Image.open(tmp_path / "out" / row["mask"]) as mask:
        assert set(np.unique(kinds)) <= {0, 1, 2, 3}
        assert np.array_equal(np.asarray(kinds) != 0, np.asarray(mask) > 0)
    assert {"eye", "disc_row", "disc_column", "disc_diameter_px", "fovea_row", "fovea_column"} <= row.keys()
    assert row["zone_b_artery_segments"].isdigit() and row["artery_vessel_area_px"].isdigit()
    assert row["avr"] == row["crae_px"] == ""  # nearly no vessel is found
    assert {"few_zone_b_vessels", "zone_outside_field"} & {*row["undefined"].split()}
    before = tree(tmp_path / "out")
    assert main(["segment", "eye.png", "--out", "out", "--resume"]) == 0
    assert tree(tmp_path / "out")["kinds/eye.png"] == before["kinds/eye.png"]
    assert main(["segment", "eye.png", "--out", "without", "--no-anatomy"]) == 0
    assert not (tmp_path / "without/kinds").exists()
    assert not {"eye", "avr", "undefined"} & table("without/results.csv")[0].keys()


# Results


def test_table_and_files_are_those_of_the_python_interface(folder, segment, tmp_path, network):
    assert (
        segment(
            folder / "a.png", folder / "b.png", "--out", "out", "--threshold", "0.6", "--probability", "--quadrants"
        )
        == 0
    )
    segmenter = Segmenter.from_pretrained()
    written = pq.read_table(tmp_path / "out/results.parquet").to_pylist()
    for row, text, name in zip(written, table(tmp_path / "out/results.csv"), "ab", strict=True):
        result = segmenter(folder / f"{name}.png").at(0.6)
        for key, value in result.measure().items():
            assert row[key] == value
            assert float(text[key]) == value
        assert (row["id"], row["width"], row["height"], row["threshold"]) == (name, 140, 130, 0.6)
        assert row["warnings"] == " ".join(result.warnings)
        assert row["model"] == "a/model@v1"
        assert row["photograph_sha256"] == hashlib.sha256((folder / f"{name}.png").read_bytes()).hexdigest()
        left, top = row["field_left"], row["field_top"]
        box = result.fov[top : top + row["field_height"], left : left + row["field_width"]]
        assert box.sum() == result.fov.sum()
        assert box[0].any() and box[-1].any() and box[:, 0].any() and box[:, -1].any()
        with Image.open(tmp_path / "out" / row["mask"]) as mask:
            np.testing.assert_array_equal(np.array(mask), result.mask * np.uint8(255))
        with Image.open(tmp_path / "out" / row["probability"]) as probability:
            assert np.abs(np.array(probability) / 65535 - result.probability).max() < 1e-5
        with Image.open(tmp_path / "out" / row["overlay"]) as overlay:
            assert np.abs(np.array(overlay).astype(int) - result.overlay()).mean() < 4  # JPEG


def test_an_undefined_number_is_empty(segment, tmp_path, monkeypatch, folder):
    monkeypatch.setattr(
        "resegnet.segmenter.Segmentation.measure", lambda *_: Measures({"vessel_density": float("nan"), "n": 1})
    )
    assert segment(folder / "a.png", "--out", "out") == 0
    assert table(tmp_path / "out/results.csv")[0]["vessel_density"] == ""
    assert pq.read_table(tmp_path / "out/results.parquet").column("vessel_density").to_pylist() == [None]


def test_a_scale_that_no_camera_has_fails_its_photograph_alone(segment, tmp_path, folder, capsys):
    (folder / "list.csv").write_text("image,um_per_px\na.png,1e153\nb.png,5\n")
    assert segment(folder / "list.csv", "--out", "out") == 1
    assert "expected 0.001 to 1000 micrometres" in table(tmp_path / "out/failures.csv")[0]["error"]
    assert [row["um_per_px"] for row in table(tmp_path / "out/results.csv")] == ["5.0"]
    assert segment(folder / "b.png", "--out", "other", "--um-per-px", "1e153") == 1
    assert "um_per_px is 1e+153, expected" in capsys.readouterr().err


def test_objects_without_a_key_become_text(segment, tmp_path, folder):
    (folder / "list.jsonl").write_text('{"image": "a.png", "x": {}, "y": [{}], "z": {"k": 1}}\n')
    assert segment(folder / "list.jsonl", "--out", "out") == 0
    (row,) = pq.read_table(tmp_path / "out/results.parquet").to_pylist()
    assert (row["x"], row["y"], row["z"]) == ("{}", "[{}]", {"k": 1})


def test_a_record_that_lacks_its_warnings_is_made_again(segment, tmp_path, folder):
    assert segment(folder / "a.png", "--out", "out") == 0
    path = tmp_path / "out/records/a.json"
    record = json.loads(path.read_text())
    del record["row"]["warning_codes"]
    path.write_text(json.dumps(record))
    assert segment(folder / "a.png", "--out", "out", "--resume") == 0
    path.write_text("[" * 100_000)
    assert segment(folder / "a.png", "--out", "out", "--resume") == 0
    assert "warning_codes" in json.loads(path.read_text())["row"]


def test_an_empty_name_is_refused(segment, capsys):
    assert segment("", "--out", "out") == 1
    assert "Got an empty name, expected photographs" in capsys.readouterr().err


def test_an_address_with_the_signs_of_a_glob_is_no_glob(tmp_path):
    for run in ("run1", "run[12]"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "part-00000.parquet").write_bytes(b"x")
    store.remove_matching(f"file://{tmp_path}/run[12]/part-*.parquet")
    assert [path.parent.name for path in tmp_path.rglob("*.parquet")] == ["run1"]


def test_the_scale_reaches_the_numbers(segment, tmp_path, monkeypatch, folder):
    def measure(_, um_per_px=None):
        return Measures({"vessel_density": 0.1, "taken": um_per_px or float("nan")})

    monkeypatch.setattr("resegnet.segmenter.Segmentation.measure", measure)
    (folder / "list.csv").write_text("image,um_per_px\na.png,4.5\nb.png,\np1/left.png,wide\n")
    assert segment(folder / "list.csv", "--out", "given", "--um-per-px", "7") == 1
    rows = table(tmp_path / "given/results.csv")
    assert [row["um_per_px"] for row in rows] == [row["taken"] for row in rows] == ["4.5", "7.0"]
    assert "'wide'" in table(tmp_path / "given/failures.csv")[0]["error"]
    assert segment(folder / "a.png", "--out", "pixels") == 0
    assert "um_per_px" not in table(tmp_path / "pixels/results.csv")[0]


def test_bytes_do_not_depend_on_the_number_of_workers(folder, segment, tmp_path):
    (folder / "p1/broken.png").write_text("no picture")
    for workers in (1, 3):
        assert segment(folder, "--out", f"out{workers}", "--workers", workers) == 1
    assert tree(tmp_path / "out1") == tree(tmp_path / "out3")
    assert len(tree(tmp_path / "out1")) == 6 * 3 + 4


def test_a_failure_is_a_line_and_no_more(folder, segment, tmp_path, capsys):
    (folder / "list.csv").write_text("image,patient\na.png,1\nnotes.txt,2\ngone.png,3\n,4\np1,5\nb.png,6\n")
    os.mkfifo(folder / "pipe.png")
    assert segment(folder / "list.csv", folder / "pipe.png", "--out", "out") == 1
    failures = table(tmp_path / "out/failures.csv")
    assert [row["id"] for row in failures] == ["notes", "gone", "row_4", "p1", "pipe"]
    assert "cannot be identified" in failures[0]["error"] and "does not exist" in failures[1]["error"]
    assert [row["patient"] for row in table(tmp_path / "out/results.csv")] == ["1", "6"]
    assert "2 of 7 done, 5 failed" in capsys.readouterr().out


def test_a_fault_of_the_network_costs_its_photograph_only(folder, segment, tmp_path, network, monkeypatch):
    network.go_on.set()
    answer = type(network).__call__

    def fail_once(self, rgb):
        if self.calls == 1:
            self.calls += 1
            raise RuntimeError("out of\nmemory")
        return answer(self, rgb)

    monkeypatch.setattr(type(network), "__call__", fail_once)
    assert segment(folder, "--out", "out", "--workers", "1") == 1
    assert [row["error"] for row in table(tmp_path / "out/failures.csv")] == ["RuntimeError: out of memory"]
    assert len(table(tmp_path / "out/results.csv")) == 5


# The command in a process of its own


@pytest.mark.slow
def test_a_file_name_of_any_bytes_reaches_any_terminal(folder, tmp_path):
    os.rename(os.fsencode(folder / "a.png"), os.fsencode(folder) + b"/sch\xf6n.png")
    done = subprocess.run(
        [sys.executable, "-m", "resegnet", "segment", str(folder), "--out", str(tmp_path / "out")],
        cwd=ROOT, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert rb"sch\udcf6n" in done.stdout


# Object stores


def test_photographs_and_results_may_lie_in_any_store(folder, segment, tmp_path):
    import fsspec

    store = fsspec.filesystem("memory")
    for path in folder.rglob("*.png"):
        store.pipe_file(f"/in/{path.relative_to(folder).as_posix()}", path.read_bytes())
    store.pipe_file("/in/list.csv", b"image,eye\np1/left.png,left\nnowhere.png,right\n")
    try:
        assert segment("memory://in/", "--out", "memory://out") == 0
        assert segment("memory://in/", "--out", "memory://out") == 1  # results are there
        assert segment("memory://in/", "--out", "memory://out", "--resume") == 0
        assert segment(folder, "--out", "out") == 0
        written = tree(tmp_path / "out")
        assert {path.removeprefix("/out/") for path in store.find("/out")} == set(written)
        for path, content in written.items():
            if path.startswith(("masks", "overlays")):
                assert store.cat_file(f"/out/{path}") == content
        # Cut off between a mask and its record, which is written last.
        make_folder(CohortOptions("memory://killed"))
        store.pipe_file("/killed/masks/a.png", b"of the run that was cut")
        assert segment("memory://in/", "--out", "memory://killed", "--resume") == 0
        assert {path.removeprefix("/killed/") for path in store.find("/killed")} == set(written)
        assert segment("memory://in/list.csv", "--out", "memory://out2") == 1
        assert b"nowhere" in store.cat_file("/out2/failures.csv")
        assert b",left," in store.cat_file("/out2/results.csv")
    finally:
        store.rm("/", recursive=True)


def test_a_store_that_fails_is_told_in_a_sentence_and_loses_nothing(folder, segment, capsys, monkeypatch):
    import fsspec

    class EndpointError(Exception):
        """As those of the packages behind the stores: no OSError."""

    def broken(*_, **__):
        raise EndpointError("the network is down")

    assert segment(folder, "--out", "unknown://bucket/out") == 1
    told = capsys.readouterr().err
    assert "unknown://bucket/out cannot be written to" in told and "Traceback" not in told
    memory = type(fsspec.filesystem("memory"))
    try:
        assert segment(folder / "a.png", "--out", "memory://blip") == 0
        before = {path: memory().cat_file(path) for path in memory().find("/blip")}
        with monkeypatch.context() as patch:
            patch.setattr(memory, "cat_file", broken)
            assert segment(folder / "a.png", "--out", "memory://blip", "--resume") == 0
        kept = {path: memory().cat_file(path) for path in memory().find("/blip")}
        assert set(kept) == set(before)
        with monkeypatch.context() as patch:
            patch.setattr(memory, "pipe_file", broken)
            assert segment(folder / "b.png", "--out", "memory://full") == 1
        told = capsys.readouterr().err
        assert "memory://full cannot be written to (the network is down)" in told and "Traceback" not in told
    finally:
        memory().rm("/", recursive=True)


# The bundled model


@pytest.mark.slow
def test_the_bundled_model_by_one_worker_and_by_two(tmp_path, monkeypatch):
    for seed, size in ((1, (200, 220)), (2, (150, 150))):
        Image.fromarray(draw_fundus(seed, size).image).save(tmp_path / f"eye {seed}.png")
    monkeypatch.chdir(tmp_path)
    for workers in ("1", "2"):
        assert main(["segment", "eye*.png", "--out", f"out{workers}", "--workers", workers, "--probability"]) == 0
    assert tree(tmp_path / "out1") == tree(tmp_path / "out2")
    row = table(tmp_path / "out1/results.csv")[0]
    assert (row["model"], row["engine"]) == ("bundled", "onnx")
    release = ROOT / "resegnet/releases/bundled"
    content = (release / "config.json").read_bytes() + (release / "model.onnx").read_bytes()
    assert row["model_sha256"] == hashlib.sha256(content).hexdigest()
    assert 0.02 < float(row["vessel_density"]) < 0.4


@pytest.mark.slow
def test_the_command_starts_without_what_it_does_not_need(tmp_path, drawings):
    (tmp_path / "eye.png").write_bytes(drawings[0])
    loaded = "[m for m in ('torch', 'datasets', 'ray', 'gradio') if m in sys.modules]"
    code = SLOW.replace("sys.exit(main())", f"print(main(), {loaded})")
    line = [sys.executable, "-c", code, str(tmp_path / "eye.png"), "--out", str(tmp_path / "out")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
