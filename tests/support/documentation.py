"""README and docs/ as text: their tables and code blocks."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Data sets as folders and as pages name them.
NAMES = {
    "drive": "DRIVE",
    "chase_db1": "CHASE_DB1",
    "hrf": "HRF",
    "dr_hagis": "DR-HAGIS",
    "aria": "ARIA",
    "orvs": "ORVS",
    "les_av": "LES-AV",
}


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def code_blocks(page: str, language: str) -> list[str]:
    """Code blocks of a language, without those that a comment above marks as not run."""
    found = re.findall(
        rf"^( *)(<!-- not run: .* -->\n *)?```{language}\n(.*?)^ *```", text(page), re.MULTILINE | re.DOTALL
    )
    return [code for _, skipped, code in found if not skipped]


def table_rows(page: str, heading: str) -> dict[str, list[str]]:
    """Rows of the first table below a heading: first cell to the others."""
    section = text(page).partition(f"\n{heading}\n")[2]
    table = re.search(r"^\|.*?(?=\n\n|\Z)", section, re.MULTILINE | re.DOTALL)
    assert table, f"{page} has no table below {heading}"
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table[0].splitlines()[2:]]
    return {first: rest for first, *rest in rows}
