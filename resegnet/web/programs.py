"""The text of the API tab: how programs and assistants call the page."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

from resegnet.releases.records import escape_markdown, markdown_table
from resegnet.web.endpoints import Endpoints

ADDRESS = "http://127.0.0.1:7860"  # the browser puts the page's own address in its place

PYTHON = f"""from gradio_client import Client, handle_file

client = Client("{ADDRESS}")
overlay, mask, probability, numbers = client.predict(
    photograph=handle_file("photograph.jpg"),
    threshold=0.4,
    api_name="/segment",
)
print(mask, numbers["measures"]["vessel_density"])
error_map, numbers = client.predict(
    photograph=handle_file("photograph.jpg"),
    reference=handle_file("manual_segmentation.png"),
    api_name="/compare",
)
print(error_map, numbers["comparison"]["f1"])"""

CURL = f"""page={ADDRESS}/gradio_api
path=$(curl -s -F "files=@photograph.jpg" $page/upload | tr -d '[]"')
event=$(curl -s $page/call/segment -H "Content-Type: application/json" \\
    -d '{{"data": [{{"path": "'"$path"'", "meta": {{"_type": "gradio.FileData"}}}}, 0.4]}}' | cut -d '"' -f 4)
curl -s $page/call/segment/$event"""


def programs(mcp: bool) -> str:
    """Return the text, Markdown. Its addresses are `ADDRESS`.

    Parameters
    ----------
    mcp
        Whether the page is an MCP server too.
    """
    parts = [
        "### Call the page from a program",
        "The page has two endpoints. They share the queue with its visitors and delete files after about an hour, too.",
        *_endpoint("/segment", Endpoints.segment),
        *_endpoint("/compare", Endpoints.compare),
        "### Python",
        f"After `pip install gradio_client`:\n\n```\n{PYTHON}\n```",
        "### curl",
        f"The last line prints the addresses of overlay, mask and probability, and the numbers:\n\n```\n{CURL}\n```",
    ]
    if mcp:
        parts += [
            "### Assistants",
            f"`{ADDRESS}/gradio_api/mcp/` is an MCP server (streamable HTTP) with the same two endpoints as tools.",
        ]
    return "\n\n".join(parts)


def _endpoint(name: str, function: Callable[..., object]) -> list[str]:
    """Return heading, first sentence and tables of an endpoint, from its docstring."""
    sentence, arguments, returns = re.split(r"\n\n(?:Args|Returns):\n", inspect.getdoc(function) or "")
    tables = [
        markdown_table([title, "what it is"], [[f"`{key}`", escape_markdown(text)] for key, text in _entries(section)])
        for title, section in (("takes", arguments), ("returns", returns))
    ]
    return [f"#### `{name}`", sentence, *tables]


def _entries(section: str) -> list[tuple[str, str]]:
    """Return names and texts of a docstring's section, whose further lines are indented more."""
    found = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    return [(name, " ".join(text.split())) for name, text in found]
