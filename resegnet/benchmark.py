"""How fast the line is, against a plain script, in one run: seconds alone mean nothing on a machine that others share.

The baseline is what a public notebook does: U-Net/ResNet34 of `segmentation_models_pytorch` in float32, the photograph
squashed to 512 x 512 and the mask scaled back, files written by Pillow's defaults. Rounds are interleaved, so that
a slow minute of the machine meets both.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from resegnet.cohort.threads import segment_many
from resegnet.engine import TorchNetwork, processors
from resegnet.fov import find_field_of_view
from resegnet.geometry import Geometry, as_network_input
from resegnet.image import read_image
from resegnet.model import ReSegNet
from resegnet.quality import find_warnings
from resegnet.results.export import mask_png, overlay_png
from resegnet.results.render import overlay
from resegnet.results.segmentation import Segmentation
from resegnet.segmenter import Segmenter
from resegnet.synthetic import draw_fundus

SIZES = ((584, 565), (2336, 3504))  # (H, W) of DRIVE's and HRF's cameras
_BASELINE_PX = 512
_GEMM = 2048

# Peak memory is that of a process of its own, which does nothing else. Asked of Linux itself: `getrusage` would give
# the peak of the process that started it, if that was larger.
_ONE_PHOTOGRAPH = """
from pathlib import Path
from resegnet.segmenter import Segmenter
Segmenter.from_pretrained({model!r})({path!r}).save({out!r})
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""

# Resident memory after a tenth of the photographs, when all that is loaded once is there, and after all of them.
_MANY_PHOTOGRAPHS = """
from pathlib import Path
from resegnet.segmenter import Segmenter
segmenter, paths, count = Segmenter.from_pretrained({model!r}), {paths!r}, {count}
for done in range(1, count + 1):
    segmenter(paths[done % len(paths)])
    if done in (count // 10, count):
        print(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])
"""


class Baseline:
    """The plain script. Its weights are random: time does not depend on them."""

    def __init__(self) -> None:
        self.model = smp.Unet("resnet34", encoder_weights=None).eval()

    def mask(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 to (H, W) bool."""
        small = Image.fromarray(image).resize((_BASELINE_PX, _BASELINE_PX), Image.Resampling.BILINEAR)
        with torch.inference_mode():
            batch = torch.from_numpy(as_network_input(np.asarray(small)))[None]
            found = torch.sigmoid(self.model(batch))[0, 0].numpy() >= 0.5
        return np.asarray(Image.fromarray(found).resize(image.shape[1::-1], Image.Resampling.NEAREST))

    def files(self, source: Path, out: Path) -> None:
        """Photograph to mask and overlay on disk."""
        image = np.asarray(Image.open(source).convert("RGB"))
        mask = self.mask(image)
        Image.fromarray(mask.astype(np.uint8) * 255).save(out / "mask.png")
        Image.fromarray(overlay(image, mask)).save(out / "overlay.png")


def benchmark(photographs: Sequence[Path], model: str | None, repeats: int = 5, files: int = 100) -> Iterator[str]:
    """Time the segmenter and the baseline, and give the lines of the report as they come.

    Parameters
    ----------
    photographs
        To time; without any, two drawn ones of `SIZES` as JPEG.
    model
        Release, as in `Segmenter.from_pretrained`.
    repeats
        Rounds; the report gives medians.
    files
        Photographs in the folder that is segmented as a whole, copies of those given in turn; 0 leaves this out.
    """
    segmenter, baseline = Segmenter.from_pretrained(model), Baseline()
    engine = type(segmenter.network).__name__
    yield f"Release {segmenter.model}, {segmenter.config.network} at {segmenter.config.input_sides} px, {engine}"
    yield f"Baseline: U-Net/ResNet34 at {_BASELINE_PX} px, eager float32; {processors()} processors, {repeats} rounds"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = [Path(path) for path in photographs] or [_draw(size, folder) for size in SIZES]
        for path in paths:
            yield ""
            yield from _single(segmenter, baseline, path, folder, repeats)
        yield ""
        yield from _network(segmenter, baseline, repeats)
        for path in paths:
            code = _ONE_PHOTOGRAPH.format(model=model, path=str(path), out=str(folder / "memory"))
            peak_kb = int(
                subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
            )
            yield f"peak memory, {path.name}: {peak_kb / 1e6:.2f} GB for the process"
        yield from _sizes(segmenter, repeats)
        if files >= 10:
            code = _MANY_PHOTOGRAPHS.format(model=model, paths=[str(path) for path in paths], count=2 * files)
            early_kb, late_kb = map(int, subprocess.check_output([sys.executable, "-c", code], text=True).split())
            yield (
                f"memory in use after {files // 5} photographs in a row: {early_kb / 1e6:.2f} GB, after {2 * files}: "
                f"{late_kb / 1e6:.2f} GB"
            )
        code = "import time; t = time.perf_counter(); import resegnet; print(time.perf_counter() - t)"
        imports = [float(subprocess.check_output([sys.executable, "-c", code], text=True)) for _ in range(repeats)]
        yield f"import resegnet: {statistics.median(imports):.2f} s"
        if files:
            yield ""
            yield from _folder(segmenter, model, [paths[i % len(paths)] for i in range(files)], folder)


def _single(segmenter: Segmenter, baseline: Baseline, path: Path, folder: Path, repeats: int) -> Iterator[str]:
    image = read_image(path)

    def write() -> None:
        result = segmenter(path)
        (folder / "ours_mask.png").write_bytes(mask_png(result))
        (folder / "ours_overlay.png").write_bytes(overlay_png(result))

    times = interleaved(
        {
            "baseline": lambda: baseline.mask(image),
            "ours": lambda: segmenter(image),
            "baseline, files": lambda: baseline.files(path, folder),
            "ours, files": write,
        },
        repeats,
    )
    height, width = image.shape[:2]
    yield f"{path.name}, {width} x {height} px"
    for label, ours, theirs in (
        ("picture to mask", "ours", "baseline"),
        ("file to mask and overlay files", "ours, files", "baseline, files"),
    ):
        ratio = statistics.median(a / b for a, b in zip(times[ours], times[theirs], strict=True))
        seconds = (statistics.median(times[name]) for name in (ours, theirs))
        yield f"  {label}: {next(seconds):.3f} s, baseline {next(seconds):.3f} s, ratio {ratio:.2f}"
    stages = _stages(segmenter, path, repeats)
    total = sum(stages.values())
    yield "  shares: " + ", ".join(f"{name} {value / total:.0%}" for name, value in stages.items())


def _stages(segmenter: Segmenter, path: Path, repeats: int) -> dict[str, float]:
    """Median seconds of each step of `Segmenter.__call__`, and of writing mask and overlay."""
    times: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        started = time.perf_counter()
        value = call(*arguments)
        times.setdefault(name, []).append(time.perf_counter() - started)
        return value

    for _ in range(repeats):
        image = timed("decode", read_image, path)
        fov = timed("field", find_field_of_view, image)
        geometry = Geometry.around(fov.mask, segmenter.config.input_size, segmenter.config.smallest_input_size)
        tensor = timed("resize", lambda: as_network_input(geometry.to_input(image))[None])  # noqa: B023, called at once
        output = timed("network", segmenter.network, tensor)
        probability = timed("resize back", geometry.to_original, output[0])
        warnings = timed("warnings", find_warnings, image, fov)
        result = Segmentation(image, probability, fov.mask, segmenter.config.threshold, tuple(warnings))
        timed("encode", lambda: (mask_png(result), overlay_png(result)))  # noqa: B023, likewise
    return {name: statistics.median(values) for name, values in times.items()}


def _sizes(segmenter: Segmenter, repeats: int) -> Iterator[str]:
    """One photograph at 1 to 8 megapixels, beside the network alone at its largest input."""
    largest = Image.fromarray(draw_fundus(1, SIZES[-1]).image)
    images = {f"{count} MP": largest.copy() for count in (1, 2, 4, 8)}
    for count, image in zip((1, 2, 4, 8), images.values(), strict=True):
        image.thumbnail([round(side * (count / 8) ** 0.5) for side in largest.size])
    pictures = {name: np.asarray(image) for name, image in images.items()}
    size = segmenter.config.input_size
    blank = np.zeros((1, 3, size, size), np.float32)
    runs: dict[str, Callable[[], Any]] = {name: lambda name=name: segmenter(pictures[name]) for name in pictures}
    times = interleaved(runs | {"network": lambda: segmenter.network(blank)}, repeats)
    network = statistics.median(times.pop("network"))
    told = ", ".join(f"{name} {statistics.median(values):.3f} s" for name, values in times.items())
    yield f"picture to mask by size: {told}; the network at its largest input {network:.3f} s"


def _network(segmenter: Segmenter, baseline: Baseline, repeats: int) -> Iterator[str]:
    """Time of the networks alone, and how much of the processor's float32 peak they reach."""
    model = ReSegNet.from_pretrained(segmenter.folder)
    size = segmenter.config.input_size
    rgb = np.random.default_rng(0).random((1, 3, size, size), np.float32)
    small = torch.rand(1, 3, _BASELINE_PX, _BASELINE_PX)
    one, other = torch.rand(2, _GEMM, _GEMM)

    def plain() -> None:
        with torch.inference_mode():
            baseline.model(small)

    torch_network = TorchNetwork(model)
    runs = {
        "baseline": plain,
        "float32 torch": lambda: torch_network(rgb),
        type(segmenter.network).__name__: lambda: segmenter.network(rgb),
        "peak": lambda: one @ other,
    }
    times = {name: statistics.median(values) for name, values in interleaved(runs, repeats).items()}
    peak = 2 * _GEMM**3 / times.pop("peak")
    operations = {"baseline": _operations(baseline.model, small)}
    yield f"network alone (the processors' peak, a float32 matrix product: {peak / 1e9:.0f} GFLOP/s)"
    for name, seconds in times.items():
        count = operations.get(name) or _operations(model, torch.from_numpy(rgb))
        yield (
            f"  {name}: {seconds:.3f} s, ratio {seconds / times['baseline']:.2f}, {count / 1e9:.0f} G operations, "
            f"{count / seconds / peak:.0%} of that peak"
        )


def _folder(segmenter: Segmenter, model: str | None, paths: list[Path], folder: Path) -> Iterator[str]:
    """The whole folder at once against one call after the other."""
    out = folder / "many"

    def save(path: Path, result: Segmentation) -> None:
        result.save(out, path.stem)

    single = Segmenter.from_pretrained(model, threads=1)
    # In slices, in turn, for the same reason as everywhere here.
    totals = {"single": 0.0, "batch": 0.0}
    for start in range(0, len(paths), 10):
        part = paths[start : start + 10]
        started = time.perf_counter()
        for path in part:
            save(path, segmenter(path))
        middle = time.perf_counter()
        for _ in segment_many(single, part, save):
            pass
        totals["single"] += middle - started
        totals["batch"] += time.perf_counter() - middle
    yield (
        f"{len(paths)} photographs, all files written: {totals['batch'] / len(paths):.3f} s each, one call after the "
        f"other {totals['single'] / len(paths):.3f} s, ratio {totals['batch'] / totals['single']:.2f}"
    )


def interleaved(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each, `repeats` rounds in turn after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if turn:
                times[name].append(time.perf_counter() - started)
    return times


def _operations(model: torch.nn.Module, batch: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(batch)
    return counter.get_total_flops()


def _draw(size: tuple[int, int], folder: Path) -> Path:
    path = folder / f"drawn_{size[1]}x{size[0]}.jpg"
    Image.fromarray(draw_fundus(1, size).image).save(path, quality=95)
    return path
