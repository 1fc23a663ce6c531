"""The Batch tab: limits of uploads, fairness to other visitors, and the results."""

from __future__ import annotations

import csv
import io
import os
import stat
import struct
import threading
import time
import tracemalloc
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from gradio_client.utils import Status
from PIL import Image
from support import PATIENCE_S
from support.page import connect
from support.synthetic import draw_fundus

from resegnet import ImageError, Segmenter
from resegnet.__main__ import main
from resegnet.errors import DataError
from resegnet.io import png
from resegnet.web import uploads
from resegnet.web.files import sweep
from resegnet.web.uploads import list_uploads


@pytest.fixture(scope="module")
def drawings():
    return [png(draw_fundus(seed, (130, 140)).image) for seed in range(4)]


@pytest.fixture(scope="module")
def client(url, tmp_path_factory):
    with connect(url, tmp_path_factory.mktemp("got")) as connected:
        yield connected


@pytest.fixture
def sent(tmp_path, drawings):
    """A photograph by itself, and a ZIP with folders and with files that are not photographs."""
    (tmp_path / "eye.png").write_bytes(drawings[0])
    zipped(
        tmp_path / "visit.zip",
        {
            "p1/left.png": drawings[1],
            "p2/left.png": drawings[2],
            "__MACOSX/p1/._left.png": b"of a Mac",
            ".DS_Store": b"of a Mac",
            "notes.txt": b"no picture",
        },
    )
    return [tmp_path / "eye.png", tmp_path / "visit.zip"]


def zipped(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def files_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rows_of(content):
    return list(csv.DictReader(io.StringIO(content.decode())))


# Uploads


def test_files_in_a_zip_get_harmless_names(tmp_path, drawings):
    names = ["../../etc/left.png", "/root/left.png", "C:\\eyes\\left.png", "a/./left.png", "..", "LEFT.png", "left.png"]
    photographs = list_uploads([str(zipped(tmp_path / "slip.zip", dict.fromkeys(names, drawings[0])))])
    files = [photograph.file for photograph in photographs]
    assert files == ["etc_left", "root_left", "C__eyes_left", "a_left", "photograph", "LEFT", "left_2"]
    assert {photograph.read() for photograph in photographs} == {drawings[0]}


@pytest.mark.slow
def test_a_zip_bomb_is_stopped_by_its_output_whatever_it_claims(tmp_path, drawings):
    path = zipped(tmp_path / "bomb.zip", {"bomb.bmp": bytes(300_000_000), "eye.png": drawings[0]})
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\1\2", 24), (b"PK\3\4", 22)):  # it says that it unpacks to 1000 bytes
        place = content.index(signature) + offset
        content[place : place + 4] = struct.pack("<I", 1000)
    lying = tmp_path / "lying.zip"
    lying.write_bytes(content)
    for sent in (path, lying):
        tracemalloc.start()
        bomb, eye = list_uploads([str(sent)])
        with pytest.raises(ImageError):
            bomb.read()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 60_000_000
        assert eye.read() == drawings[0]


def test_many_small_bombs_are_stopped_together(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads._Allowance.__init__, "__defaults__", (3_000_000,))
    path = zipped(tmp_path / "bombs.zip", {f"{number}.bmp": bytes(1_000_000) for number in range(8)})
    photographs = list_uploads([str(path)])
    assert [len(photograph.read()) for photograph in photographs[:3]] == [1_000_000] * 3
    for photograph in photographs[3:]:
        with pytest.raises(ImageError, match="unpacks to more"):
            photograph.read()


def test_a_list_that_is_too_long_is_not_read(tmp_path):
    """The ZIP has small files and a directory of 40 MB at its end."""
    with zipfile.ZipFile(tmp_path / "list.zip", "w") as archive:
        for number in range(700):
            info = zipfile.ZipInfo(f"{number}.png")
            info.comment = b"x" * 60_000
            archive.writestr(info, b"")
    assert (tmp_path / "list.zip").stat().st_size > 40_000_000
    (photograph,) = list_uploads([str(tmp_path / "list.zip")])
    with pytest.raises(ImageError, match="far too many files"):
        photograph.read()


def test_too_many_photographs_are_rejected(tmp_path):
    path = zipped(tmp_path / "many.zip", {f"{number}.png": b"" for number in range(201)})
    with pytest.raises(DataError, match="More than 200 photographs"):
        list_uploads([str(path)])


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_rare_compression_method_is_rejected(tmp_path, method):
    (photograph,) = list_uploads([str(zipped(tmp_path / "rare.zip", {"a.png": b"x" * 1000}, method))])
    with pytest.raises(ImageError, match="packed by a rare method"):
        photograph.read()


def test_links_passwords_and_damage_cost_their_line_only(tmp_path, drawings):
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = tmp_path / "odd.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
        for name in ("locked.png", "damaged.png", "eye.png"):
            archive.writestr(name, drawings[0])
    content = bytearray(path.read_bytes())
    content[content.rindex(b"locked.png") - 38] |= 1  # the flag of a password, in the list
    content[content.index(b"locked.png") - 24] |= 1
    content[content.index(b"damaged.png") + 500] ^= 255
    path.write_bytes(content)
    (tmp_path / "cut.zip").write_bytes(content[:2000])
    link, locked, damaged, eye, cut = list_uploads([str(path), str(tmp_path / "cut.zip")])
    assert link.read() == b"/etc/passwd"  # the text of the link, which is no picture
    for broken in (locked, damaged, cut):
        with pytest.raises(ImageError):
            broken.read()
    assert eye.read() == drawings[0]


def test_the_same_file_alone_and_in_a_zip_is_told_apart(tmp_path, drawings):
    (tmp_path / "eye.png").write_bytes(drawings[0])
    zipped(tmp_path / "visit.zip", {"eye.png": drawings[0]})
    alone, inside = list_uploads([str(tmp_path / "eye.png"), str(tmp_path / "visit.zip")])
    assert (alone.source, inside.source) == ("eye.png", "visit.zip/eye.png")
    assert (alone.file, inside.file) == ("eye", "eye_2")


# The tab


@pytest.mark.slow
def test_the_results_are_those_of_the_command(client, segmenter, sent, drawings, tmp_path, monkeypatch):
    job = client.submit([handle_file(path) for path in sent], 0.55, True, "", api_name="/batch")
    job.result()
    shown = job.outputs()
    assert len(shown) == 1 + 4
    lines, progress = shown[-1][:2]
    assert lines.count("<img") == 3 and "notes.txt" in lines
    assert "4 of 4 photographs done, 1 of them could not be read." in progress
    for before, after in pairwise(shown):
        assert after[0].startswith(before[0])  # what is sent again and again would grow with the square
    got = files_of(client.predict(api_name="/batch_zip"))

    folder = tmp_path / "photos"
    for name, content in zip(("eye", "p1/left", "p2/left"), drawings, strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(content)
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda *_, **__: segmenter)
    out = tmp_path / "out"
    assert main(["segment", str(folder), "--out", str(out), "--threshold", "0.55", "--probability"]) == 0
    assert set(got) == {
        "results.csv", "results.parquet", "failures.csv",
        *(f"{kind}/{name}.{'jpg' if kind == 'overlays' else 'png'}"
          for kind in ("masks", "overlays", "probabilities") for name in ("eye", "p1_left", "p2_left")),
    }  # fmt: skip
    for name in got:
        if "/" in name:
            assert got[name] == (out / name).read_bytes()
    expected, rows = rows_of((out / "results.csv").read_bytes()), rows_of(got["results.csv"])
    assert [row.pop("source") for row in rows] == ["eye.png", "visit.zip/p1/left.png", "visit.zip/p2/left.png"]
    for row in expected:
        del row["source"]
    assert rows == expected
    assert [row["source"] for row in rows_of(got["failures.csv"])] == ["visit.zip/notes.txt"]


@pytest.mark.slow
def test_no_photographs_and_no_results_give_a_sentence(url, tmp_path):
    with connect(url, tmp_path) as newcomer:
        with pytest.raises(AppError, match="No photographs were received"):
            newcomer.predict(None, 0.5, False, "", api_name="/batch")
        with pytest.raises(AppError, match="no results to save yet"):
            newcomer.predict(api_name="/batch_zip")


@pytest.mark.slow
def test_names_are_shown_as_text(client, tmp_path, drawings):
    path = zipped(tmp_path / "a.zip", {"<img src=x onerror=alert(1)>.png": drawings[0], "<b>.txt": b""})
    lines = client.predict([handle_file(path)], 0.5, False, "", api_name="/batch")[0]
    assert "&lt;img src=x" in lines and "&lt;b&gt;" in lines
    assert "<img src=x" not in lines and "<b>" not in lines


@pytest.mark.slow
def test_others_are_served_between_the_photographs_of_a_batch(client, url, network, tmp_path, drawings, monkeypatch):
    path = zipped(tmp_path / "a.zip", {f"{number}.png": drawings[0] for number in range(20)})
    Image.open(io.BytesIO(drawings[3])).save(tmp_path / "other.png")
    other = Client(url, verbose=False, analytics_enabled=False, download_files=str(tmp_path))
    calls = network.calls
    network.go_on.clear()
    try:
        running = client.submit([handle_file(path)], 0.5, False, "", api_name="/batch")
        while network.calls == calls:
            time.sleep(0.02)
        asked = other.submit(handle_file(tmp_path / "other.png"), api_name="/segment")
        while asked.status().code not in (Status.IN_QUEUE, Status.PROCESSING):
            time.sleep(0.02)
        hurry = threading.Event()
        monkeypatch.setattr(network.go_on, "wait", lambda seconds: hurry.wait(0.5))  # for each photograph
        network.go_on.set()
        asked.result(PATIENCE_S)
        assert not running.done()
        hurry.set()
        running.result(PATIENCE_S)
    finally:
        network.go_on.set()
        other.close()


@pytest.mark.slow
def test_all_of_a_batch_is_deleted_after_an_hour(client, sent):
    client.predict([handle_file(path) for path in sent], 0.5, False, "", api_name="/batch")
    client.predict(api_name="/batch_zip")
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    assert list(folder.rglob("batch-*/masks/*.png")) and list(folder.rglob("resegnet_batch.zip"))
    sweep(folder, time.time() + 1)
    assert not [path for path in folder.rglob("*") if path.is_file()]
    with pytest.raises(AppError, match="deleted after an hour"):
        client.predict(api_name="/batch_zip")
