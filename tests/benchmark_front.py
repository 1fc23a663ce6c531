"""Accuracy against time: `python tests/benchmark_front.py --dataset DIR ... --model RELEASE ... --size PX ...`.

For every release at every input size: mean F1 over the sets' validation eyes (those of the release, at original size,
at the one threshold that suits them best), and the time of its 8-bit network over that of a U-Net/ResNet34 at
512 x 512 in eager float32, in one run, interleaved. Prints a table and, with --plot, draws it.
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
from resegnet.learning.crops import WorkingSample
from resegnet.learning.data import Sample, load_vessels, read_sample
from resegnet.learning.metrics import fit_threshold, probability_histograms
from resegnet.learning.quantise import write_onnx
from resegnet.model import ReSegNet


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", nargs="+", required=True, metavar="SOURCE")
    parser.add_argument("--model", nargs="+", required=True, metavar="RELEASE")
    parser.add_argument("--size", nargs="+", type=int, required=True, metavar="PX")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()

    rows, points = load_vessels(arguments.dataset, "train"), {}
    with tempfile.TemporaryDirectory() as folder:
        networks = {}
        for release in arguments.model:
            model = ReSegNet.from_pretrained(release)
            held = set(json.loads((Path(release) / "training.json").read_text())["validation_ids"])
            eyes = [read_sample(row) for row in rows.filter(held.__contains__, input_columns="image_id")]
            for size in arguments.size:
                name = Path(release).name, size
                model.config = dataclasses.replace(model.config, input_size=size)
                points[name] = validation_f1(Segmenter(TorchNetwork(model), model.config), eyes)
                path = Path(folder) / f"{len(networks)}.onnx"
                write_onnx(model, [WorkingSample.of(eye, size).pixels for eye in eyes[::4]], path)
                networks[name] = OnnxNetwork(path, size)
        times = time_networks(networks, arguments.repeats)
    print("| model | input px | time / baseline's | mean validation F1 |\n|---|---|---|---|")
    for (release, size), f1 in points.items():
        print(f"| {release} | {size} | {times[release, size]:.2f} | {f1:.4f} |")
    if arguments.plot is not None:
        plot(points, times, arguments.plot)
    return 0


def validation_f1(segmenter: Segmenter, eyes: list[Sample]) -> float:
    """Mean over the sets of the pooled F1, at the threshold where that is highest."""
    histograms = []
    for eye in eyes:
        result = segmenter(eye.image)
        field = result.fov if eye.fov is None else eye.fov
        histograms.append(probability_histograms(result.probability * result.fov, eye.vessels, field))
    return fit_threshold(histograms, [eye.dataset for eye in eyes])[1]


def time_networks(networks: dict[tuple[str, int], OnnxNetwork], repeats: int) -> dict[tuple[str, int], float]:
    """Median ratio of each network's time to that of the baseline."""
    baseline, small = Baseline().model, torch.rand(1, 3, 512, 512)
    pictures = {size: np.random.default_rng(0).random((1, 3, size, size), np.float32) for _, size in networks}

    def plain() -> None:
        with torch.inference_mode():
            baseline(small)

    runs = {"baseline": plain}
    runs |= {name: lambda name=name: networks[name](pictures[name[1]]) for name in networks}
    times = interleaved(runs, repeats)
    return {
        name: statistics.median(a / b for a, b in zip(times[name], times["baseline"], strict=True)) for name in networks
    }


def plot(points: dict[tuple[str, int], float], times: dict[tuple[str, int], float], path: Path) -> None:
    """A line for each release through its sizes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), dpi=110, layout="constrained")
    axes = figure.subplots()
    for release in dict.fromkeys(release for release, _ in points):
        sizes = [size for name, size in points if name == release]
        x, y = [times[release, size] for size in sizes], [points[release, size] for size in sizes]
        axes.plot(x, y, "o-", label=release)
        for size, *place in zip(sizes, x, y, strict=True):
            axes.annotate(f"{size} px", place, xytext=(5, -10), textcoords="offset points", fontsize=8)
    axes.set_xlabel("time of the network / time of U-Net-ResNet34 at 512 px in eager float32")
    axes.set_ylabel("mean F1 on validation eyes")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
