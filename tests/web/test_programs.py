"""The text of the API tab tells what the endpoints take and return, and of MCP only where it is on."""

from __future__ import annotations

import inspect

import pytest

from resegnet.web.endpoints import Endpoints
from resegnet.web.programs import programs


@pytest.mark.parametrize("function", [Endpoints.segment, Endpoints.compare])
def test_each_argument_is_explained(function):
    text = programs(mcp=False)
    assert f"#### `/{function.__name__}`" in text
    for name in list(inspect.signature(function).parameters)[1:]:
        assert f"| `{name}` | " in text
    assert (inspect.getdoc(function) or "").splitlines()[0] in text


def test_all_results_are_explained_to_their_end():
    text = programs(mcp=False)
    for name in ("overlay", "mask", "probability", "numbers", "error_map"):
        assert f"| `{name}` | " in text
    assert "auroc, mcc, cldice; and how the reference was read. |" in text


def test_mcp_is_named_where_it_is_on():
    assert "/gradio_api/mcp/" in programs(mcp=True)
    assert "MCP" not in programs(mcp=False)
