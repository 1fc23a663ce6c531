"""A folder as researchers have it: DICOM without a suffix, pictures of phones, archives, empty files, notes."""

from __future__ import annotations

import os

from support.cohort import table
from support.dicom import dicom
from support.pictures import PHOTO


def test_every_file_of_a_mixed_folder_is_segmented_or_named(folder, segment, tmp_path, caplog):
    files = {
        "p1/IM0001": dicom(PHOTO),
        "p1/1.2.840.7": dicom(PHOTO),
        "p1/.IM0002": dicom(PHOTO),
        "DICOMDIR": dicom(PHOTO),
        "LICENSE": b"text",
        "more.zip": b"PK\x03\x04",
        "p2/phone.HEIC": b"\0\0\0\x18ftypheic",
        "empty.jpg": b"",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe")
    assert segment("photos", "--out", "out") == 1
    photographs = {"a", "b", "p1_left", "p1_right", "p2_left", "p2_visit 2_left"}
    assert {row["id"] for row in table(tmp_path / "out/results.csv")} == photographs | {"p1_IM0001", "p1_1.2.840"}
    failures = {row["id"]: row["error"] for row in table(tmp_path / "out/failures.csv")}
    assert failures.keys() == {"p2_phone", "empty"}
    assert "save it as JPEG" in failures["p2_phone"] and "is empty; expected a JPEG" in failures["empty"]
    assert caplog.messages == ["photos/more.zip is an archive and is left out: unpack it to segment what is in it."]


def test_an_archive_that_is_given_as_photograph_is_told_to_be_unpacked(folder, segment, capsys):
    (folder / "more.zip").write_bytes(b"PK\x03\x04")
    assert segment("photos/more.zip", "--out", "out") == 1
    assert "more.zip' is a ZIP archive; expected a JPEG" in capsys.readouterr().err
