"""The notebook runs from top to bottom, and what it carries is small."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "walkthrough.ipynb"


@pytest.mark.slow
def test_the_walkthrough_trains_a_network_that_finds_vessels():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOK.parents[1])}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    pooled_f1 = float(re.search(r"^pooled\s+([\d.]+)", text, re.MULTILINE)[1])
    assert pooled_f1 > 0.5  # calling every pixel of the field a vessel scores about 0.2


def test_the_walkthrough_carries_its_outputs_and_stays_small():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count is not None for cell in code)
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    assert NOTEBOOK.stat().st_size < 500_000
