"""The photographs that `python -m resegnet segment` finds in folders, globs, tables and data sets, and their names."""

from __future__ import annotations

import errno
import functools
import hashlib
import http.server
import json
import os
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.cohort import table

from resegnet.cohort.listing import list_photographs


def ids(*inputs):
    return [photograph.id for photograph in list_photographs(list(map(str, inputs)))]


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
    before = ids(folder)
    assert "set_test_image_7" in before and "set_test_mask_7" not in before
    assert segment(folder, "--out", folder / "out", "--probability") == 0
    assert {path.parent.name for path in folder.glob("out/*/*")} == {"masks", "overlays", "probabilities", "records"}
    assert ids(folder) == before
    globbed = ids(f"{folder}/**/*.png", f"{folder}/**/*.jpg")
    assert sorted(globbed) == sorted([*before, "set_test_mask_7"])  # a glob names what it means


def test_folders_are_results_only_where_masks_and_records_lie_side_by_side(folder, drawings):
    (folder / "records").mkdir()
    (folder / "records/p7.png").write_bytes(drawings[7])
    for pattern in (folder, f"{folder}/*/*.png", f"{folder}/**/*.png", f"file://{folder}", f"file://{folder}/**/*.png"):
        assert "records_p7" in ids(pattern), pattern
    for name in ("masks", "records"):
        (folder / "p1" / name).mkdir()
        (folder / "p1" / name / "left.png").write_bytes(drawings[8])
    for pattern in (folder, f"{folder}/**/*.png", f"file://{folder}", f"file://{folder}/**/*.png"):
        found = ids(pattern)
        assert "records_p7" in found and not any("masks" in name or "p1_records" in name for name in found), pattern


def test_cells_that_cannot_be_written_or_name_nothing_fail_alone(folder, segment, tmp_path):
    lines = [{"image": "a.png", "note": "cut \ud83d"}, {"image": ".", "note": "a folder"}]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert segment(folder / "list.jsonl", "--out", "out") == 1
    (row,) = table(tmp_path / "out/results.csv")
    assert row["note"] == "cut \ufffd"
    assert pq.read_table(tmp_path / "out/results.parquet").column("note").to_pylist() == ["cut \ufffd"]
    assert len(table(tmp_path / "out/failures.csv")) == 1


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


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Print nothing."""


def test_the_folder_of_a_web_server_is_searched(folder):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        photographs = list_photographs([f"http://127.0.0.1:{server.server_port}/p1/"])
        assert [photograph.id for photograph in photographs] == ["left", "right"]
        assert [photograph.read() for photograph in photographs] == [
            (folder / "p1" / f"{side}.png").read_bytes() for side in ("left", "right")
        ]
        server.shutdown()


def test_names_in_json_lines_may_hold_any_character(tmp_path):
    rows = [{"image": "a.png", "id": "a\u2028b"}, {"image": "c.png", "id": "c\u0085d"}]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "list.jsonl").write_text(lines, encoding="utf-8")
    assert ids(tmp_path / "list.jsonl") == ["a\u2028b", "c\u0085d"]


def test_a_folder_that_cannot_be_read_is_named(folder, monkeypatch, caplog):
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("p1"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert ids(folder) == ["a", "b", "p2_left", "p2_visit 2_left"]
    assert f"{folder / 'p1'} is left out, as it cannot be read (Permission denied)" in caplog.text
