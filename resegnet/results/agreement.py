"""Agreement of the numbers measured on vessel masks with those measured on references."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

# Numbers of the whole field that are compared. Those of its quadrants are in the CSV only.
COMPARED = (
    "vessel_density",
    "skeleton_length_px",
    "branch_points",
    "end_points",
    "segments",
    "calibre_mean_px",
    "calibre_median_px",
    "calibre_sd_px",
    "tortuosity",
    "curvature_per_px",
    "fractal_d0",
    "fractal_d1",
    "fractal_d2",
)


# Numbers of arteries and of veins that are compared, see `resegnet.results.measure.measure_anatomy`.
COMPARED_KINDS = (
    "crae_px",
    "crve_px",
    "avr",
    *(
        f"{part}_{number}"
        for number in ("vessel_density", "calibre_mean_px", "tortuosity")
        for part in ("artery", "vein", "zone_b_artery", "zone_b_vein", "zone_c_artery", "zone_c_vein")
    ),
    *(f"{kind}_{number}" for number in ("skeleton_length_px", "fractal_d0") for kind in ("artery", "vein")),
    "artery_arcade_angle_deg",
    "vein_arcade_angle_deg",
)


class Agreement(TypedDict):
    """Agreement of two measurements; see `agreement`."""

    count: int
    mean: float
    bias: float
    lower: float
    upper: float
    icc: float


def agreement(found: Sequence[float], traced: Sequence[float]) -> Agreement:
    """Compare two measurements of the same pictures; pairs with a nan are left out.

    Parameters
    ----------
    found
        A number of the vessel mask of each picture.
    traced
        The same number of the reference of each picture.

    Returns
    -------
    dict
        * `count`: number of pairs.
        * `mean`: mean of `traced`.
        * `bias`: mean of found minus traced.
        * `lower`, `upper`: 95 % limits of agreement, bias -+ 1.96 SD of the differences (Bland and Altman 1986,
          10.1016/S0140-6736(86)90837-8).
        * `icc`: intraclass correlation ICC(A,1) for absolute agreement of single measurements, at most 1:
          (R - E) / (R + E + 2 (C - E) / n), with the mean squares R between pictures, C between the two measurements
          and E of the residual (McGraw and Wong 1996, 10.1037/1082-989X.1.1.30; ICC(2,1) of Shrout and Fleiss 1979,
          10.1037/0033-2909.86.2.420).

        All but `count` are nan for fewer than two pairs, and `icc` also if all values are the same.
    """
    pairs = np.stack([found, traced], axis=1).astype(float)
    pairs = pairs[~np.isnan(pairs).any(axis=1)]
    count = len(pairs)
    if count < 2:
        nan = math.nan
        return {"count": count, "mean": nan, "bias": nan, "lower": nan, "upper": nan, "icc": nan}
    differences = pairs[:, 0] - pairs[:, 1]
    bias, spread = differences.mean(), 1.96 * differences.std(ddof=1)
    rows, columns = pairs.mean(axis=1), pairs.mean(axis=0)
    between_pictures = 2 * rows.var(ddof=1)
    between_measurements = count * columns.var(ddof=1)
    residual = ((pairs - rows[:, None] - columns + pairs.mean()) ** 2).sum() / (count - 1)
    total = between_pictures + residual + 2 * (between_measurements - residual) / count
    differ = np.ptp(pairs) > 0  # the sums above round, and are not 0 where all values are the same
    return {
        "count": count,
        "mean": float(columns[1]),
        "bias": float(bias),
        "lower": float(bias - spread),
        "upper": float(bias + spread),
        "icc": float((between_pictures - residual) / total) if differ and total > 0 else math.nan,
    }


def compare_numbers(
    found: Sequence[Mapping[str, float]], traced: Sequence[Mapping[str, float]], names: Sequence[str] = COMPARED
) -> dict[str, Agreement]:
    """Return the `agreement` of each named number, over pictures measured by `resegnet.results.measure`."""
    return {key: agreement([row[key] for row in found], [row[key] for row in traced]) for key in names}


def format_agreement(report: Mapping[str, Any]) -> str:
    """Format the agreement in a report of `evaluate_dataset` as plain text for a terminal."""
    what = "Numbers of the vessel masks against those of the references, inside the same field of view"
    return format_rows(what, report["numbers"]["agreement"])


def format_rows(what: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Format agreements by name as plain text, a line each, below a line that says what is compared."""
    columns = ("count", "mean", "bias", "lower", "upper", "icc")
    width = max(map(len, rows))
    lines = [
        f"{what}: number of photographs, mean of the references, bias, 95 % limits of agreement, ICC(A,1)",
        " ".join([" " * width, *(f"{name:>10}" for name in columns)]),
    ]
    for key, row in rows.items():
        values = ("-" if row[name] is None or math.isnan(row[name]) else f"{row[name]:.4g}" for name in columns)
        lines.append(" ".join([f"{key:<{width}}", *(f"{value:>10}" for value in values)]))
    return "\n".join(lines)


def numbers_csv(report: Mapping[str, Any]) -> bytes:
    """Write the numbers in a report of `evaluate_dataset` as CSV: rows `found` and `traced` for each picture.

    A number that is undefined is an empty cell.
    """
    numbers = report["numbers"]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image_id", "patient", "dataset", "vessels", *numbers["found"][0]])
    for picture, *measured in zip(report["pictures"], numbers["found"], numbers["traced"], strict=True):
        for vessels, row in zip(("found", "traced"), measured, strict=True):
            writer.writerow([picture["image_id"], picture["patient"], picture["dataset"], vessels, *row.values()])
    return text.getvalue().encode()
