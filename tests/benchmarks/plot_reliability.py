"""Plot a release's reliability on validation eyes.

Run `python tests/benchmarks/plot_reliability.py --out FILE [--model FOLDER]`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt  # comes with pvbm

from resegnet.hub import BUNDLED_RELEASES, TRAINING_NAME
from resegnet.releases.records import training_runs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, default=BUNDLED_RELEASES["bundled"], metavar="FOLDER")
    parser.add_argument("--out", required=True, type=Path, metavar="PNG")
    arguments = parser.parse_args()
    training = json.loads((arguments.model / TRAINING_NAME).read_text(encoding="utf-8"))
    # A release whose last epochs trained on every eye is calibrated as the one before it.
    record = next(run["validation_reliability"] for run in training_runs(training) if "validation_reliability" in run)
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(4.6, 5.4), height_ratios=(3, 1), sharex=True, layout="constrained"
    )
    upper.axline((0, 0), slope=1, color="grey", linewidth=1)
    upper.plot(record["probability"], record["vessels"], "o-", color="#0072b2", markersize=5)
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is vessel", aspect="equal")
    upper.set_title(f"expected calibration error {record['expected_calibration_error']:.3f}", fontsize=10)
    width = 1 / len(record["pixels"])
    places = [width * (number + 0.5) for number in range(len(record["pixels"]))]
    lower.bar(places, record["pixels"], width=0.9 * width, color="#0072b2")
    lower.set(yscale="log", xlabel="probability", ylabel="share of pixels")
    figure.savefig(arguments.out, dpi=90)
    return 0


if __name__ == "__main__":
    sys.exit(main())
