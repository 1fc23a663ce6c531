"""The files that the page offers of the photograph on it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from resegnet.cohort.entries import SCALE_COLUMN
from resegnet.cohort.work import describe, made_by
from resegnet.hub import sha256
from resegnet.io import json_bytes, png, safe_name, without_nan
from resegnet.results import export
from resegnet.results.compare import Comparison
from resegnet.results.segmentation import Segmentation
from resegnet.segmenter import Segmenter
from resegnet.web.report import Report, compose_report, report_pdf, report_png


@dataclass(frozen=True)
class OnPage:
    """The state of the page that files are made of.

    Attributes
    ----------
    result
        At the threshold on the page.
    comparison
        None if the page shows no reference.
    path
        File of the photograph.
    segmenter
        The model that made the result.
    color, opacity
        Look of the overlay, see `resegnet.results.render.overlay`.
    um_per_px
        Micrometres on the retina for a pixel, None if unknown. That of `result` is the same or None.
    safe_kinds
        Whether arteries and veins have colours that colour-blind people tell apart.
    """

    result: Segmentation
    comparison: Comparison | None
    path: str
    segmenter: Segmenter
    color: tuple[int, int, int]
    opacity: float
    um_per_px: float | None
    safe_kinds: bool = False

    @property
    def name(self) -> str:
        """Start of the names of the files."""
        return safe_name(Path(self.path).stem)


def download(kind: str | None, page: OnPage) -> tuple[str, bytes] | None:
    """Return name and content of a file of a kind that `viewer.js` offers; None for any other kind.

    Raises
    ------
    OSError
        If the photograph is gone.
    """
    at = f"_{page.result.threshold:.4g}"
    if kind == "all":
        return f"{page.name}_resegnet{at}.zip", export.archive(_all_files(page))
    if (kind == "errors" and page.comparison is None) or (kind == "kinds" and page.result.anatomy is None):
        return None
    match kind:
        case "mask":
            return f"{page.name}_mask{at}.png", export.mask_png(page.result)
        case "probability":
            return f"{page.name}_probability.png", export.probability_png(page.result)
        case "overlay":
            return f"{page.name}_overlay{at}.png", _overlay(page)
        case "errors":
            return f"{page.name}_errors{at}.png", _error_map(page)
        case "kinds":
            return f"{page.name}_arteries_veins{at}.png", export.kinds_map_png(page.result, page.safe_kinds) or b""
        case "numbers":
            return f"{page.name}_numbers{at}.json", json_bytes(_numbers(page))
        case "table":
            return f"{page.name}_table{at}.csv", _table(page)
        case "report-pdf":
            return f"{page.name}_report{at}.pdf", report_pdf(_report(page))
        case "report-png":
            return f"{page.name}_report{at}.png", report_png(_report(page))
    return None


def export_numbers(
    result: Segmentation, comparison: Comparison | None, um_per_px: float | None = None
) -> dict[str, object]:
    """Return the summary of a result, with the scores of a comparison if there is one."""
    numbers = dict(export.summary(result, um_per_px))
    if comparison is not None:
        numbers["comparison"] = without_nan(comparison.scores()) | {"notes": list(comparison.notes)}
    return numbers


def _all_files(page: OnPage) -> list[tuple[str, bytes]]:
    files = export.contents(page.result, page.name, page.color, page.opacity, page.safe_kinds)
    files["summary"] = (f"{page.name}_numbers.json", json_bytes(_numbers(page)))
    files["table"] = (f"{page.name}_table.csv", _table(page))
    files["report"] = (f"{page.name}_report.pdf", report_pdf(_report(page)))
    if page.comparison is not None:
        files["errors"] = (f"{page.name}_errors.png", _error_map(page))
    return list(files.values())


def _overlay(page: OnPage) -> bytes:
    return export.overlay_png(page.result, color=page.color, opacity=page.opacity)


def _error_map(page: OnPage) -> bytes:
    assert page.comparison is not None
    return png(page.comparison.error_map())


def _origin(page: OnPage) -> dict[str, str]:
    """Return the columns that say which photograph it is, named as in the table of a batch."""
    path = Path(page.path)
    return {"source": path.name, "photograph_sha256": sha256(path)}


def _scale(page: OnPage) -> dict[str, float]:
    return {} if page.um_per_px is None else {SCALE_COLUMN: page.um_per_px}


def _model_sha256(page: OnPage) -> str:
    return str(made_by(page.segmenter, page.result.threshold)["model_sha256"])


def _numbers(page: OnPage) -> Mapping[str, object]:
    """Return the content of the JSON file."""
    numbers = export_numbers(page.result, page.comparison, page.um_per_px)
    return _origin(page) | {"date": _now(), "model_sha256": _model_sha256(page)} | _scale(page) | numbers


def _table(page: OnPage) -> bytes:
    """Return a CSV of one row, with the columns of a batch."""
    origin = _origin(page)
    given = None if page.um_per_px == page.result.um_per_px else page.um_per_px
    row = {"id": page.name, "source": origin["source"]} | describe(page.result, given)
    row |= made_by(page.segmenter, page.result.threshold) | origin
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(row), lineterminator="\n")
    writer.writeheader()
    writer.writerow(row)
    return text.getvalue().encode()


def _report(page: OnPage) -> Report:
    origin = _origin(page)
    return compose_report(
        page.result,
        page.comparison,
        fitted=page.segmenter.config.threshold,
        look=(page.color, page.opacity),
        um_per_px=page.um_per_px,
        safe_kinds=page.safe_kinds,
        facts={
            "Photograph": origin["source"],
            "SHA-256 of the photograph": origin["photograph_sha256"],
            "SHA-256 of the model": _model_sha256(page),
            "Date": _now(),
        },
    )


def _now() -> str:
    """Return the time in UTC as ISO 8601 writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
