"""The tutorial notebook runs from top to bottom, is stored with its pictures, and gives commands that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from support import PATIENCE_S

import train
from resegnet.__main__ import build_parser

NOTEBOOK = Path(__file__).parents[2] / "examples" / "walkthrough.ipynb"


@pytest.fixture(scope="module")
def notebook():
    """The notebook as it is stored; only to be read."""
    return nbformat.read(NOTEBOOK, as_version=4)


def printed(cell) -> str:
    return "".join(output.text for output in cell.get("outputs", []) if output.output_type == "stream")


@pytest.mark.slow
def test_the_tutorial_trains_a_network_that_finds_vessels(notebook):
    nbformat.validate(notebook)
    run = nbformat.from_dict(notebook)
    NotebookClient(run, timeout=6 * PATIENCE_S, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    text = "".join(printed(cell) for cell in run.cells)
    pooled_f1 = float(re.search(r"^pooled\s+([\d.]+)", text, re.MULTILINE)[1])
    assert pooled_f1 > 0.6  # calling every pixel of the field of view a vessel scores about 0.2


def test_it_is_stored_with_its_outputs_and_stays_small(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) >= 8
    assert NOTEBOOK.stat().st_size < 1_500_000


def test_its_links_lead_somewhere_and_its_commands_exist(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links
    for target in links:
        assert (NOTEBOOK.parent / target).exists(), target
    commands = re.findall(r"^(?:v/bin/)?python (?:-m (resegnet)|(train\.py)) (.+)$", text, re.MULTILINE)
    assert len(commands) >= 4
    for _, script, arguments in commands:
        parser = train.build_parser() if script else build_parser()
        parser.parse_args(shlex.split(arguments))
