"""Plot numbers of vessels found against traced.

Run `python tests/benchmarks/plot_agreement.py DRIVE.csv HRF.csv --out FILE`.

The files are those of `python -m resegnet evaluate --numbers`, one for each data set.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import matplotlib.pyplot as plt  # comes with pvbm

# Okabe and Ito's colours, which colour-blind eyes tell apart.
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
NAMES = {"drive": "DRIVE", "chase_db1": "CHASE_DB1", "hrf": "HRF", "les_av": "LES-AV"}
SHOWN = {"vessel_density": "vessel density", "tortuosity": "tortuosity (arc over chord)"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="CSV")
    parser.add_argument("--out", required=True, type=Path, metavar="PNG")
    arguments = parser.parse_args()
    figure, panels = plt.subplots(1, len(SHOWN), figsize=(9, 4.4), layout="constrained")
    for path, color in zip(arguments.files, COLORS, strict=False):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for panel, key in zip(panels, SHOWN, strict=True):
            found, traced = ([float(row[key] or "nan") for row in rows[k::2]] for k in (0, 1))
            name = rows[0]["dataset"]
            panel.plot(traced, found, "o", color=color, markersize=5, alpha=0.8, label=NAMES.get(name, name))
    for panel, (key, title) in zip(panels, SHOWN.items(), strict=True):
        low, high = panel.dataLim.min.min(), panel.dataLim.max.max()
        margin = 0.04 * (high - low)
        panel.axline((low, low), slope=1, color="grey", linewidth=1, zorder=0)
        panel.set(title=title, xlabel="traced by a person", ylabel="found by ReSegNet", aspect="equal")
        panel.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
        if key == "vessel_density":
            panel.legend()
    figure.savefig(arguments.out, dpi=110, bbox_inches="tight")  # else titles are cut
    return 0


if __name__ == "__main__":
    sys.exit(main())
