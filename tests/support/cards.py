"""Records of a release as model cards show them, and the parts of a card."""

from __future__ import annotations

import copy
import re

from support.stand_in import stored_records

RECORDS = stored_records()
HRF = RECORDS["metrics"]["hrf"]
TITLES = {"drive": "DRIVE", "chase_db1": r"CHASE\_DB1", "hrf": "HRF", "les_av": "LES-AV"}
HOSTILE = (
    'a|b\n---\n# <script>alert("x")</script> [l](http://x) `c` **d** $e$ \\(f\\) & {{g}}: - !!h\r\u2028\u202e\ud800 '
)

PICTURE = HOSTILE.replace("\ud800", "") + ".jpg"  # a path in the repository, which is UTF-8


def changed(record: str, *path: str | int, to: object) -> dict:
    """Copy a bundled record, with one value replaced."""
    values = copy.deepcopy(RECORDS[record])
    place = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return {record: values}


def rows(text: str, header: str) -> list[list[str]]:
    """Return the cells of the table whose header begins with `header`, header first. Escaped bars divide no cells."""
    start = text.index(f"\n| {header}") + 1
    table = text[start : text.index("\n\n", start)].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table if "| ---" not in line]


def code(text: str, language: str, part: str) -> str:
    (block,) = [x for x in re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if part in x]
    return block
