"""`python -m resegnet segment OWNER/NAME`: a data set of the Hub, by the real client over HTTP."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest
from support.cohort import ROOT, SLOW, table
from support.files import tree

# Publishes the photographs argv[1:], as a person does with `datasets`.
PUBLISH = """
import sys
from datasets import Dataset, Features, Image, Value
columns = {"image": sys.argv[1:], "patient": [f"00{number}" for number in range(len(sys.argv) - 1)]}
eyes = Dataset.from_dict(columns, Features({"image": Image(), "patient": Value("string")}))
eyes.push_to_hub("someone/eyes", split="train", private=True)
"""


def segment(environment, *arguments):
    line = [sys.executable, "-c", SLOW, *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_data_set_of_the_hub_is_segmented_as_its_files_are(hub, drawings, tmp_path):
    folder = tmp_path / "eyes"
    folder.mkdir()
    for number, content in enumerate(drawings[:3]):
        (folder / f"eye {number}.png").write_bytes(content)
    hub.run(PUBLISH, *sorted(folder.iterdir()), home=tmp_path / "publisher")

    reader = hub.environment(tmp_path / "reader") | {"PYTHONPATH": str(ROOT)}
    done = segment(reader, "someone/eyes", "--out", tmp_path / "hub")
    assert done.returncode == 0, done.stderr
    assert hub.unknown == []
    local = segment(os.environ | {"PYTHONPATH": str(ROOT)}, folder, "--out", tmp_path / "local")
    assert local.returncode == 0, local.stderr
    assert tree(tmp_path / "hub/masks") == tree(tmp_path / "local/masks")
    rows = table(tmp_path / "hub/results.csv")
    assert [(row["id"], row["patient"]) for row in rows] == [(f"eye {number}", f"00{number}") for number in range(3)]
    assert [row["photograph_sha256"] for row in rows] == [hashlib.sha256(c).hexdigest() for c in drawings[:3]]

    stranger = hub.environment(tmp_path / "stranger", None) | {"PYTHONPATH": str(ROOT)}
    refused = segment(stranger, "someone/eyes", "--out", tmp_path / "refused")
    assert refused.returncode == 1
    assert "resegnet: someone/eyes cannot be loaded (" in refused.stderr and "Traceback" not in refused.stderr
    assert "Check its name, your access to it, and the network." in refused.stderr
    assert not (tmp_path / "refused").exists()
