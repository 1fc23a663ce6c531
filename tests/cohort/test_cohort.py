"""`python -m resegnet segment`: its inputs, its results, and the state after an interruption."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.stand_in import GreenTwice
from support.synthetic import draw_fundus

from resegnet import Config, Segmenter
from resegnet.__main__ import main
from resegnet.cohort import store
from resegnet.cohort.listing import list_photographs
from resegnet.cohort.run import make_folder
from resegnet.cohort.work import CohortOptions
from resegnet.io import png
from resegnet.results.measures import Measures

ROOT = Path(__file__).parents[2]


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_in_which_everything_failed_can_be_started_again(segment, drawings, tmp_path, capsys):
    (tmp_path / "eye.png").write_text("no photograph")
    assert segment("eye.png", "--out", "out") == 1
    (tmp_path / "eye.png").write_bytes(drawings[0])
    assert segment("eye.png", "--out", "out") == 0
    assert not (tmp_path / "out/failures.csv").exists()
    (tmp_path / "eye.png").unlink()
    assert segment("eye.png", "--out", "out", "--resume") == 1  # all failed, and the earlier result is still there
    capsys.readouterr()
    assert segment("eye.png", "--out", "out") == 1
    assert "already holds results" in capsys.readouterr().err


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
    assert {"few_vessels", "zone_outside_field"} & {*row["undefined"].split()}
    before = tree(tmp_path / "out")
    assert main(["segment", "eye.png", "--out", "out", "--resume"]) == 0
    assert tree(tmp_path / "out")["kinds/eye.png"] == before["kinds/eye.png"]
    assert main(["segment", "eye.png", "--out", "without", "--no-anatomy"]) == 0
    assert not (tmp_path / "without/kinds").exists()
    assert not {"eye", "avr", "undefined"} & table("without/results.csv")[0].keys()


def ids(*inputs):
    return [photograph.id for photograph in list_photographs(list(map(str, inputs)))]


# Photographs and their names


def test_a_folder_is_searched_and_names_say_where(folder):
    assert ids(folder) == ["a", "b", "p1_left", "p1_right", "p2_left", "p2_visit 2_left"]


def test_files_folders_and_globs_mix_and_count_once(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert ids("photos/b.png", "photos") == ["b", "a", "p1_left", "p1_right", "p2_left", "p2_visit 2_left"]
    assert ids("photos/*.png") == ["a", "b"]
    assert ids("photos/*/left.png") == ["p1_left", "p2_left"]
    assert ids("photos/**/left.png") == ["p1_left", "p2_left", "p2_visit 2_left"]
    assert ids("photos/p*") == ["p1_left", "p1_right", "p2_left", "p2_visit 2_left"]


def test_equal_names_are_numbered_also_where_case_or_accents_hide_it(tmp_path):
    names = ["Eye.png", "eye.jpg", "EYE_2.png", "caf\u00e9.png", "cafe\u0301.jpg", "a:b.png", "a*b.png", "eye.tif"]
    for number, name in enumerate(names):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / name).touch()
    got = ids(*(tmp_path / str(number) / name for number, name in enumerate(names)))
    assert got == ["Eye", "eye_2", "EYE_2_2", "caf\u00e9", "cafe\u0301_2", "a_b", "a_b_2", "eye_3"]


def test_long_names_keep_their_number(tmp_path):
    paths = [tmp_path / letter / ("\U0001f441" * 60 + ".png") for letter in "abc"]  # 240 bytes
    found = ids(*paths)
    assert len(set(found)) == 3
    assert found[1].endswith("_2") and found[2].endswith("_3")
    assert all(len(name.encode()) <= 150 for name in found)


def test_many_of_one_name_take_no_time(tmp_path):
    (tmp_path / "list.csv").write_text("image\n" + "".join(f"/{number}/eye.png\n" for number in range(20_000)))
    began = time.process_time()
    assert ids(tmp_path / "list.csv")[-1] == "eye_20000"
    assert time.process_time() - began < 10


def test_tracings_beside_photographs_and_earlier_results_are_no_photographs(folder, segment, drawings):
    for name in ("image", "mask"):
        (folder / "set/test" / name).mkdir(parents=True)
        (folder / "set/test" / name / "7.png").write_bytes(drawings[0])
    assert segment(folder, "--out", folder / "out") == 0
    assert len(ids(folder)) == 7
    assert "set_test_image_7" in ids(folder)
    assert ids(f"{folder}/**/*.png") == [name for name in ids(f"{folder}/**/*.png") if "overlays" not in name]
    assert not any("masks" in name for name in ids(f"{folder}/**/*.png"))


def test_a_table_names_scales_and_carries(folder, segment, tmp_path):
    (folder / "list.csv").write_text(
        "\ufeffimage;id;patient;eye;width\np1/left.png;A/1;007;left;x\np1/right.png;A/2;007;right;\n", encoding="utf-8"
    )
    assert segment(folder / "list.csv", "--out", "out") == 0
    rows = table(tmp_path / "out/results.csv")
    assert [row["id"] for row in rows] == ["A/1", "A/2"]
    assert [row["mask"] for row in rows] == ["masks/A_1.png", "masks/A_2.png"]
    assert [row["patient"] for row in rows] == ["007", "007"]  # text stays text
    assert [row["eye"] for row in rows] == ["left", "right"]
    assert [row["image"] for row in rows] == ["p1/left.png", "p1/right.png"]
    assert [row["width"] for row in rows] == ["140", "140"] and [row["width_given"] for row in rows] == ["x", ""]
    assert pq.read_table(tmp_path / "out/results.parquet").column("patient").to_pylist() == ["007", "007"]


def test_a_parquet_table_keeps_its_types(folder, segment, tmp_path):
    columns = {"image": ["a.png", "b.png"], "age": [61, None], "visits": [["x"], ["y", "z"]]}
    pq.write_table(pa.table(columns), folder / "list.parquet")
    assert segment(folder / "list.parquet", folder / "p1", "--out", "out") == 0
    done = pq.read_table(tmp_path / "out/results.parquet")
    assert done.column("id").to_pylist() == ["a", "b", "left", "right"]
    assert done.column("age").to_pylist() == [61, None, None, None]
    assert done.schema.field("age").type == pa.int64()
    assert done.column("visits").to_pylist() == [["x"], ["y", "z"], None, None]


def test_tables_as_other_programs_leave_them(folder, segment, capsys, tmp_path):
    (folder / "pandas.csv").write_text(",image,width,width_given\n0,a.png,1,2\n")
    assert segment(folder / "pandas.csv", "--out", "out") == 0
    (row,) = pq.read_table(tmp_path / "out/results.parquet").to_pylist()
    assert "" not in row
    assert [row["width_given"], row["width_given_given"], row["width"]] == ["2", "1", 140]
    (folder / "large.jsonl").write_text(json.dumps({"image": "a.png", "number": 2**70}) + "\n")
    assert segment(folder / "large.jsonl", "--out", "large") == 0
    (folder / "list.jsonl").write_text('["a.png"]\n')
    assert segment(folder / "list.jsonl", "--out", "list") == 1
    assert "no JSON object" in capsys.readouterr().err


def test_a_mistyped_folder_is_no_data_set_of_the_hub(folder, segment, capsys):
    assert segment("photos/p3", "--out", "out") == 1
    assert "There is no 'photos/p3'" in capsys.readouterr().err


def test_an_image_folder_and_pictures_inside_parquet(folder, segment, tmp_path, drawings):
    lines = [{"image_file_name": "a.png", "mask_file_name": "b.png", "image_id": "one", "patient": "7"}]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    cells = [{"bytes": content, "path": None} for content in drawings[:2]]
    pq.write_table(pa.table({"image": cells, "eye": ["left", "right"]}), tmp_path / "inside.parquet")
    assert segment(folder, "inside.parquet", "--out", "out") == 0
    rows = table(tmp_path / "out/results.csv")
    assert [row["id"] for row in rows] == ["one", "train_000000", "train_000001"]
    assert [row["patient"] for row in rows] == ["7", "", ""]
    assert [row["eye"] for row in rows] == ["", "left", "right"]
    # The first photograph is the same both times.
    assert (tmp_path / "out/masks/one.png").read_bytes() == (tmp_path / "out/masks/train_000000.png").read_bytes()


def test_a_data_set_by_splits(segment, tmp_path, drawings):
    from datasets import Dataset, DatasetDict, Image

    def part(contents):
        cells = [{"bytes": content, "path": f"{number}.png"} for number, content in enumerate(contents)]
        return Dataset.from_dict({"image": cells, "mask": cells, "age": range(len(cells))}).cast_column(
            "image", Image()
        )

    DatasetDict(train=part(drawings[:2]), test=part(drawings[2:3])).save_to_disk(tmp_path / "set")
    assert segment("set", "--out", "all") == 0
    rows = pq.read_table(tmp_path / "all/results.parquet").to_pylist()
    assert [(row["id"], row["source"], row["age"]) for row in rows] == [
        ("0", "set, train, row 0", 0), ("1", "set, train, row 1", 1), ("0_2", "set, test, row 0", 0),
    ]  # fmt: skip
    assert "mask_given" not in rows[0]
    assert [row["photograph_sha256"] for row in rows] == [hashlib.sha256(c).hexdigest() for c in drawings[:3]]
    assert segment("set", "--out", "one", "--split", "test") == 0
    assert len(table(tmp_path / "one/results.csv")) == 1
    assert segment("set", "--out", "none", "--split", "validation") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file\na.png\n", "no column 'image'; it has: file"),
        ("image,id\na.png,1\nb.png,1\n", "Two photographs have the id '1'"),
        ("image\n", "No photograph was found"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_sentence(folder, segment, capsys, tmp_path, text, words):
    (folder / "list.csv").write_text(text)
    assert segment(folder / "list.csv", "--out", "out") == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


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


# Interruptions and resuming


def test_results_are_not_mixed_without_being_asked(folder, segment, capsys, tmp_path):
    assert segment(folder / "a.png", "--out", "out") == 0
    before = tree(tmp_path / "out")
    assert segment(folder / "b.png", "--out", "out") == 1
    assert "--resume" in capsys.readouterr().err
    assert tree(tmp_path / "out") == before


def calls_of(network, run):
    before = network.calls
    assert run() == 0
    return network.calls - before


@pytest.mark.slow
def test_resume_does_what_is_missing_changed_or_damaged_and_nothing_else(folder, segment, network, tmp_path, drawings):
    out = tmp_path / "out"

    def go_on(*more):
        return calls_of(network, lambda: segment(folder, "--out", "out", "--resume", *more))

    assert go_on() == 6
    whole = tree(out)
    assert go_on() == 0
    assert tree(out) == whole

    mask = (out / "masks/a.png").read_bytes()
    (out / "masks/a.png").write_bytes(mask[:-10])  # cut
    (out / "overlays/b.jpg").unlink()
    (out / "records/p1_left.json").write_text('{"row": {')
    flipped = bytearray((out / "masks/p2_left.png").read_bytes())
    flipped[len(flipped) // 2] ^= 1  # as long as before
    (out / "masks/p2_left.png").write_bytes(flipped)
    assert go_on() == 4
    assert tree(out) == whole

    (folder / "a.png").write_bytes(drawings[9])  # another photograph under the name
    assert go_on() == 1
    assert (out / "masks/a.png").read_bytes() != mask
    assert go_on("--threshold", "0.7") == 6
    assert go_on() == 6
    assert go_on("--probability") == 6
    (folder / "c.png").write_bytes(drawings[10])
    assert go_on("--probability") == 1
    assert [row["id"] for row in table(out / "results.csv")][:3] == ["a", "b", "c"]


def test_another_model_is_another_result(folder, segment, network, monkeypatch, tmp_path):
    assert segment(folder, "--out", "out") == 0
    other = Segmenter(network, Config(input_size=96, threshold=0.5), "a/model@v2")
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda *_, **__: other)
    assert calls_of(network, lambda: segment(folder, "--out", "out", "--resume")) == 6
    assert {row["model"] for row in table(tmp_path / "out/results.csv")} == {"a/model@v2"}


def test_what_became_unreadable_leaves_no_stale_mask(folder, segment, tmp_path):
    assert segment(folder, "--out", "out") == 0
    (folder / "a.png").write_text("damaged")
    assert segment(folder, "--out", "out", "--resume") == 1
    assert not list((tmp_path / "out").rglob("a.*"))
    (folder / "a.png").unlink()
    assert segment(folder, "--out", "out", "--resume") == 0
    assert not (tmp_path / "out/failures.csv").exists()


def test_what_cannot_be_had_today_costs_no_results(folder, segment, tmp_path, network):
    (folder / "list.csv").write_text("image\na.png\nb.png\n")
    assert segment(folder / "list.csv", "--out", "out") == 0
    made = {path: content for path, content in tree(tmp_path / "out").items() if "/" in path}
    unplugged = folder.rename(tmp_path / "unplugged")
    folder.mkdir()
    (folder / "list.csv").write_text("image\na.png\nb.png\n")
    assert segment(folder / "list.csv", "--out", "out", "--resume") == 1
    assert len(table(tmp_path / "out/failures.csv")) == 2
    assert {path: content for path, content in tree(tmp_path / "out").items() if "/" in path} == made
    shutil.rmtree(folder)
    unplugged.rename(folder)
    assert calls_of(network, lambda: segment(folder / "list.csv", "--out", "out", "--resume")) == 0


def test_files_that_are_not_made_anew_do_not_stay(folder, segment, tmp_path):
    assert segment(folder, "--out", "out", "--probability") == 0
    assert segment(folder, "--out", "out", "--resume", "--threshold", "0.9", "--no-overlay") == 0
    assert {path.split("/")[0] for path in tree(tmp_path / "out") if "/" in path} == {"masks", "records"}


@pytest.mark.parametrize("name", ["masks/a.png", "results.csv", "results/thesis.xlsx"])
def test_resume_touches_nothing_that_is_not_its_own(folder, segment, capsys, tmp_path, name):
    (tmp_path / "study" / name).parent.mkdir(parents=True)
    (tmp_path / "study" / name).write_text("by hand")
    assert segment(folder, "--out", "study", "--resume") == 1
    assert "Name another folder" in capsys.readouterr().err
    assert tree(tmp_path / "study") == {name: b"by hand"}


def test_what_else_lies_in_the_folder_of_the_tables_stays(folder, segment, tmp_path):
    assert segment(folder / "a.png", "--out", "out") == 0
    (tmp_path / "out/results").mkdir()
    (tmp_path / "out/results/part-00000.parquet").write_bytes(b"of a run on a cluster")
    (tmp_path / "out/results/mine.xlsx").write_bytes(b"mine")
    assert segment(folder / "a.png", "--out", "out", "--resume") == 0
    assert [path.name for path in (tmp_path / "out/results").iterdir()] == ["mine.xlsx"]


def test_a_file_for_a_store_is_there_whole_or_not_at_all():
    import fsspec

    def stopped():
        with store.open_atomically("memory://cut/results.csv") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not fsspec.filesystem("memory").exists("/cut/results.csv")
    with store.open_atomically("memory://cut/results.csv") as file:
        file.write(b"all")
    assert store.read("memory://cut/results.csv") == b"all"


@pytest.mark.slow
def test_nobody_who_reads_on_is_no_fault_of_the_disk(many, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "resegnet", "segment", str(many), "--out", str(tmp_path / "out")],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.close()
    assert process.wait(120) == 1
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.slow
def test_a_file_name_of_any_bytes_reaches_any_terminal(folder, tmp_path):
    os.rename(os.fsencode(folder / "a.png"), os.fsencode(folder) + b"/sch\xf6n.png")
    done = subprocess.run(
        [sys.executable, "-m", "resegnet", "segment", str(folder), "--out", str(tmp_path / "out")],
        cwd=ROOT, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert rb"sch\udcf6n" in done.stdout


SLOW = """
import sys, time
import numpy as np
from resegnet import Config, Segmenter
from resegnet.__main__ import main

def network(rgb):
    time.sleep(0.05)
    return np.ascontiguousarray(1 - rgb[:, 1])

segmenter = Segmenter(network, Config(input_size=96, threshold=0.7), "slow")
Segmenter.from_pretrained = lambda *_, **__: segmenter
sys.exit(main(["segment", *sys.argv[1:]]))
"""


@pytest.fixture
def many(tmp_path, drawings):
    for number, content in enumerate(drawings):
        (tmp_path / "many" / f"eye {number % 7}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "many" / f"eye {number % 7}/{number}.png").write_bytes(content)
    return tmp_path / "many"


def start(*arguments, **options):
    line = [sys.executable, "-c", SLOW, *map(str, arguments)]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options)


def finish(process):
    _, said = process.communicate()
    return process.returncode, said


def wait_for_records(out, count, process):
    while len(list(out.glob("records/*.json"))) < count:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_at_any_time_and_resumed_the_result_is_the_same_to_the_byte(many, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    for count in (2, 7):
        process = start(many, "--out", out, "--resume", "--workers", 2)
        wait_for_records(out, count, process)
        process.kill()
        process.communicate()
        assert not (out / "results.csv").exists()
    (out / "masks/.0123.tmp").write_bytes(b"half a m")  # as a kill can leave it
    assert finish(start(many, "--out", out, "--resume", "--workers", 3)) == (0, "")
    assert finish(start(many, "--out", whole, "--workers", 1)) == (0, "")
    assert tree(out) == tree(whole)
    assert len(table(out / "results.csv")) == 12


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(many, tmp_path):
    # As from a terminal: what a shell starts in the background ignores the signal, and its children do.
    listen = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    process = start(many, "--out", tmp_path / "out", "--workers", 1, preexec_fn=listen)
    wait_for_records(tmp_path / "out", 2, process)
    process.send_signal(signal.SIGINT)
    status, said = finish(process)
    assert status == 130
    assert said == "resegnet: stopped; to continue, run the same command with --resume.\n"
    for record in (tmp_path / "out/records").iterdir():
        for name, digest in json.loads(record.read_text())["files"].items():
            assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_what_was_done_stays(many, tmp_path, drawings):
    """The system refuses files beyond a size, which one overlay needs and no other."""
    big = many / "z/z.png"
    big.parent.mkdir()
    big.write_bytes(png(draw_fundus(5, (1000, 1000)).image))
    limit = 60_000
    process = start(
        many, "--out", tmp_path / "out", "--workers", 1,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    status, said = finish(process)
    assert status == 1
    assert said.startswith(
        f"resegnet: {tmp_path / 'out'} cannot be written to (File too large). The results written so far"
    )
    assert said.count("\n") == 1
    assert len(list((tmp_path / "out/records").glob("*.json"))) == 12
    assert not list(tmp_path.rglob("*.tmp"))
    assert finish(start(many, "--out", tmp_path / "out", "--resume")) == (0, "")
    assert len(table(tmp_path / "out/results.csv")) == 13


def test_a_folder_that_cannot_be_made_is_one_sentence(folder, segment, capsys):
    assert segment(folder, "--out", folder / "notes.txt/out") == 1
    error = capsys.readouterr().err
    assert "cannot be written to (Not a directory)" in error and error.count("\n") == 1


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
    code = SLOW.replace("sys.exit(main(", "print(main(").replace(
        "*sys.argv[1:]]))", "*sys.argv[1:]]), [m for m in ('torch', 'datasets', 'ray', 'gradio') if m in sys.modules])"
    )
    line = [sys.executable, "-c", code, str(tmp_path / "eye.png"), "--out", str(tmp_path / "out")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
