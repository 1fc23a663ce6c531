"""Compare accuracy with time: `python tests/benchmarks/front.py --dataset DIR ... --model RELEASE ... --size PX ...`.

For every release at every input size, or range of sizes: mean F1 over the sets' validation eyes (those of the release,
at original size, at the one threshold that suits them best), and the time of its 8-bit network, mean over a photograph
of each set, over that of a U-Net/ResNet34 at 512 x 512 in eager float32, in one run, interleaved. Prints a table and,
with --plot, draws it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from resegnet import Segmenter
from resegnet.benchmark import Baseline, interleaved
from resegnet.engine import OnnxNetwork, TorchNetwork
from resegnet.geometry import as_network_input
from resegnet.learning.crops import WorkingSample
from resegnet.learning.data import Sample, load_vessels, read_sample
from resegnet.model import ReSegNet
from resegnet.releases.quantise import write_onnx
from resegnet.results.calibration import fit_threshold
from resegnet.results.metrics import probability_histograms


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", nargs="+", required=True, metavar="SOURCE")
    parser.add_argument("--model", nargs="+", required=True, metavar="RELEASE")
    parser.add_argument("--size", nargs="+", required=True, metavar="PX", help="as 896, or 640-1152")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()

    rows, points = load_vessels(arguments.dataset, "train"), {}
    with tempfile.TemporaryDirectory() as folder:
        networks, pictures = {}, {}
        for release in arguments.model:
            model = ReSegNet.from_pretrained(release)
            held = set(json.loads((Path(release) / "training.json").read_text())["validation_ids"])
            if not held:
                parser.error(f"{release} was trained on every eye. Give the release that it went on from.")
            eyes = [read_sample(row) for row in rows.filter(held.__contains__, input_columns="image_id")]
            for size in arguments.size:
                name = Path(release).name, size
                *smallest, largest = map(int, size.split("-"))
                model.config = dataclasses.replace(
                    model.config, input_size=largest, smallest_input_size=min(smallest, default=None)
                )
                points[name] = validation_f1(Segmenter(TorchNetwork(model), model.config), eyes)
                squares = [WorkingSample.of(eye, model.config).pixels for eye in eyes]
                path = Path(folder) / f"{len(networks)}.onnx"
                write_onnx(model, squares[::2], path)
                networks[name] = OnnxNetwork(path, None if smallest else largest)
                of_each_set = {eye.dataset: square for eye, square in zip(eyes, squares, strict=True)}
                pictures[name] = [as_network_input(square)[None] for square in of_each_set.values()]
        times = time_networks(networks, pictures, arguments.repeats)
    print("| model | input px | time / baseline's | mean validation F1 |\n|---|---|---|---|")
    for (release, size), f1 in points.items():
        print(f"| {release} | {size} | {times[release, size]:.2f} | {f1:.4f} |")
    if arguments.plot is not None:
        plot(points, times, arguments.plot)
    return 0


def validation_f1(segmenter: Segmenter, eyes: list[Sample]) -> float:
    """Return the mean over the sets of the pooled F1, at the threshold where it is highest."""
    histograms = []
    for eye in eyes:
        result = segmenter(eye.image)
        field = result.fov if eye.fov is None else eye.fov
        histograms.append(probability_histograms(result.probability * result.fov, eye.vessels, field))
    return fit_threshold(histograms, [eye.dataset for eye in eyes])[1]


def time_networks(
    networks: dict[tuple[str, str], OnnxNetwork], pictures: dict[tuple[str, str], list[np.ndarray]], repeats: int
) -> dict[tuple[str, str], float]:
    """Return the median ratio of each network's mean time for its pictures to that of the baseline."""
    baseline, small = Baseline().model, torch.rand(1, 3, 512, 512)

    def plain() -> None:
        with torch.inference_mode():
            baseline(small)

    runs = {"baseline": plain}
    runs |= {name: lambda name=name: [networks[name](picture) for picture in pictures[name]] for name in networks}
    times = interleaved(runs, repeats)
    return {
        name: statistics.median(a / b for a, b in zip(times[name], times["baseline"], strict=True))
        / len(pictures[name])
        for name in networks
    }


def plot(points: dict[tuple[str, str], float], times: dict[tuple[str, str], float], path: Path) -> None:
    """Draw a line for each release through its sizes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), dpi=110, layout="constrained")
    axes = figure.subplots()
    for release in dict.fromkeys(release for release, _ in points):
        for form, is_range in (("every field at that size", False), ("fields between not scaled", True)):
            sizes = [size for name, size in points if name == release and ("-" in size) == is_range]
            x, y = [times[release, size] for size in sizes], [points[release, size] for size in sizes]
            axes.plot(x, y, "s-" if is_range else "o-", label=f"{release}, {form}")
            for size, *place in zip(sizes, x, y, strict=True):
                axes.annotate(f"{size} px", place, xytext=(5, -10), textcoords="offset points", fontsize=8)
    axes.set_xlabel("time of the network / time of U-Net-ResNet34 at 512 px in eager float32")
    axes.set_ylabel("mean F1 on validation eyes")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
