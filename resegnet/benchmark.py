"""Time the segmenter against a plain script, in one run.

Seconds alone mean little on a machine that is shared, so the report gives ratios too. The baseline does what a public
notebook does: U-Net/ResNet34 of `segmentation_models_pytorch` in float32, the photograph squashed to 512 x 512, the
mask scaled back, files written with Pillow's defaults. Rounds are interleaved, so that a slow minute affects both
alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from resegnet.cohort.threads import segment_many
from resegnet.config import Config
from resegnet.engine import TorchNetwork, processors
from resegnet.fov import find_field_of_view
from resegnet.geometry import Geometry, as_network_input
from resegnet.image import read_image
from resegnet.model import ReSegNet
from resegnet.quality import find_warnings
from resegnet.results.export import mask_png, overlay_png
from resegnet.results.render import overlay
from resegnet.results.segmentation import Segmentation
from resegnet.segmenter import Segmenter, predict, prepare_context, second_size
from resegnet.softness import measure_edges
from resegnet.synthetic import draw_fundus

SIZES = ((584, 565), (2336, 3504))  # (H, W) of DRIVE's and HRF's cameras
_MEGAPIXELS = (1, 2, 4, 8)  # sizes at which one photograph is timed
_BASELINE_PX = 512
_MATRIX_SIDE = 2048  # of the product that measures the peak of the processors
_SLICE = 10  # photographs that the two ways through a folder take in turn

# Peak memory is measured in a process that does nothing else. It comes from Linux itself: `getrusage` gives the peak of
# the parent process if that was larger.
_ONE_PHOTOGRAPH = """
from pathlib import Path
from resegnet.segmenter import Segmenter
Segmenter.from_pretrained({model!r})({path!r}).save({out!r})
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""

# Prints the resident memory after a tenth of the photographs, when everything that is loaded once is there, and after
# all of them.
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
    """The plain script. Its weights are random, since its time does not depend on them."""

    def __init__(self) -> None:
        self.model = smp.Unet("resnet34", encoder_weights=None).eval()

    def mask(self, image: np.ndarray) -> np.ndarray:
        """Segment a photograph, (H, W, 3) uint8, to a vessel mask, (H, W) bool."""
        small = Image.fromarray(image).resize((_BASELINE_PX, _BASELINE_PX), Image.Resampling.BILINEAR)
        with torch.inference_mode():
            batch = torch.from_numpy(as_network_input(np.asarray(small)))[None]
            found = torch.sigmoid(self.model(batch))[0, 0].numpy() >= 0.5
        return np.asarray(Image.fromarray(found).resize(image.shape[1::-1], Image.Resampling.NEAREST))

    def files(self, source: Path, out: Path) -> None:
        """Segment a photograph file to the files of mask and overlay."""
        image = np.asarray(Image.open(source).convert("RGB"))
        mask = self.mask(image)
        Image.fromarray(mask.astype(np.uint8) * 255).save(out / "mask.png")
        Image.fromarray(overlay(image, mask)).save(out / "overlay.png")


def benchmark(photographs: Sequence[Path], model: str | None, repeats: int = 5, files: int = 100) -> Iterator[str]:
    """Time the segmenter and the baseline; yield the lines of the report as they are measured.

    Parameters
    ----------
    photographs
        Photographs to time; without any, two synthetic ones of `SIZES` as JPEG.
    model
        Release, as in `Segmenter.from_pretrained`.
    repeats
        Number of rounds; the report gives medians.
    files
        Number of photographs in the folder that is segmented as a whole, copies of those given in turn; 0 leaves the
        folder out.
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
        yield from _peak_memory(model, paths, folder)
        yield _sizes(segmenter, repeats)
        yield from _memory_over_time(model, paths, files)
        yield _import_time(repeats)
        if files:
            yield ""
            yield _folder(segmenter, model, [paths[i % len(paths)] for i in range(files)], folder)


def _single(segmenter: Segmenter, baseline: Baseline, path: Path, folder: Path, repeats: int) -> Iterator[str]:
    """Time one photograph, with and without files, and give the share of each step."""
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
    yield from _anatomy(segmenter, image, repeats)
    stages = _stages(segmenter, path, repeats)
    total = sum(stages.values())
    yield "  shares: " + ", ".join(f"{name} {value / total:.0%}" for name, value in stages.items())


def _anatomy(segmenter: Segmenter, image: np.ndarray, repeats: int) -> Iterator[str]:
    """Time what arteries, veins, disc, fovea and eye take beside the vessels; nothing for a model that tells none."""
    if segmenter.config.context_size is None:
        return

    def vessels() -> None:
        found.append(segmenter(image))
        np.count_nonzero(found[-1].mask)

    def anatomy() -> None:
        result = found[-1]
        _ = result.arteries, result.veins, result.disc, result.fovea, result.eye

    found: list[Segmentation] = []
    times = interleaved({"vessels": vessels, "anatomy": anatomy}, repeats)
    whole, more = (statistics.median(times[name]) for name in ("vessels", "anatomy"))
    yield f"  arteries, veins, disc, fovea and eye: {more:.3f} s more, {1 + more / whole:.2f} times vessels alone"


def _stages(segmenter: Segmenter, path: Path, repeats: int) -> dict[str, float]:
    """Return the median seconds of each step of `Segmenter.__call__`, and of encoding mask and overlay."""
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
        pixels = timed("resize", geometry.to_input, image)
        context = timed("resize the context", prepare_context, image, geometry, segmenter.config)
        output, _ = timed("network", predict, segmenter.network, pixels, context)
        probability = timed("resize back", geometry.to_original, output)
        vessels = (probability >= segmenter.config.threshold) & fov.mask
        edges = timed("softness", measure_edges, image[..., 1], vessels, fov.diameter)
        side = second_size(segmenter.config, edges, geometry)
        if side is not None:
            timed("second size", _segment_at, segmenter, image, geometry.with_input_size(side), context)
        warnings = timed("warnings", find_warnings, image, fov, vessels, edges)
        result = Segmentation(image, probability, fov.mask, segmenter.config.threshold, tuple(warnings))
        timed("encode", lambda: (mask_png(result), overlay_png(result)))  # noqa: B023 (called at once)
    return {name: statistics.median(values) for name, values in times.items()}


def _segment_at(segmenter: Segmenter, image: np.ndarray, geometry: Geometry, context: np.ndarray | None) -> np.ndarray:
    return geometry.to_original(predict(segmenter.network, geometry.to_input(image), context)[0])


def _sizes(segmenter: Segmenter, repeats: int) -> str:
    """Time one photograph at 1 to 8 megapixels, and the network alone at its largest input."""
    largest = Image.fromarray(draw_fundus(1, SIZES[-1]).image)
    runs: dict[str, Callable[[], Any]] = {}
    for count in _MEGAPIXELS:
        share = (count / _MEGAPIXELS[-1]) ** 0.5
        picture = largest.copy()
        picture.thumbnail((round(largest.width * share), round(largest.height * share)))
        runs[f"{count} MP"] = partial(segmenter, np.asarray(picture))
    runs["network"] = partial(predict, segmenter.network, *_largest_input(segmenter.config))
    times = interleaved(runs, repeats)
    network = statistics.median(times.pop("network"))
    told = ", ".join(f"{name} {statistics.median(values):.3f} s" for name, values in times.items())
    return f"picture to mask by size: {told}; the network at its largest input {network:.3f} s"


def _peak_memory(model: str | None, paths: Sequence[Path], folder: Path) -> Iterator[str]:
    """Measure the memory that one photograph takes, in a process of its own."""
    for path in paths:
        peak_kb = int(_run(_ONE_PHOTOGRAPH.format(model=model, path=str(path), out=str(folder / "memory"))))
        yield f"peak memory, {path.name}: {peak_kb / 1e6:.2f} GB for the process"


def _memory_over_time(model: str | None, paths: Sequence[Path], files: int) -> Iterator[str]:
    """Measure whether memory grows with the number of photographs; fewer than 10 are too few for that."""
    if files >= 10:
        code = _MANY_PHOTOGRAPHS.format(model=model, paths=[str(path) for path in paths], count=2 * files)
        early_kb, late_kb = map(int, _run(code).split())
        yield (
            f"memory in use after {files // 5} photographs in a row: {early_kb / 1e6:.2f} GB, after {2 * files}: "
            f"{late_kb / 1e6:.2f} GB"
        )


def _import_time(repeats: int) -> str:
    """Time `import resegnet` in processes of their own."""
    code = "import time; t = time.perf_counter(); import resegnet; print(time.perf_counter() - t)"
    return f"import resegnet: {statistics.median(float(_run(code)) for _ in range(repeats)):.2f} s"


def _network(segmenter: Segmenter, baseline: Baseline, repeats: int) -> Iterator[str]:
    """Time the networks alone, and tell what share of the processors' float32 peak they reach."""
    assert segmenter.folder is not None  # it comes from a release
    model = ReSegNet.from_pretrained(segmenter.folder)
    looks = _largest_input(segmenter.config)
    batches = [torch.from_numpy(as_network_input(look))[None] for look in looks if look is not None]
    small = torch.rand(1, 3, _BASELINE_PX, _BASELINE_PX)
    one, other = torch.rand(2, _MATRIX_SIDE, _MATRIX_SIDE)

    def plain() -> None:
        with torch.inference_mode():
            baseline.model(small)

    torch_network = TorchNetwork(model)
    runs = {
        "baseline": plain,
        "float32 torch": lambda: predict(torch_network, *looks),
        type(segmenter.network).__name__: lambda: predict(segmenter.network, *looks),
        "peak": lambda: one @ other,
    }
    times = {name: statistics.median(values) for name, values in interleaved(runs, repeats).items()}
    peak = 2 * _MATRIX_SIDE**3 / times.pop("peak")
    operations = {"baseline": _operations(baseline.model, small)}
    yield f"network alone (the processors' peak, a float32 matrix product: {peak / 1e9:.0f} GFLOP/s)"
    for name, seconds in times.items():
        count = operations.get(name) or _operations(model, *batches)
        yield (
            f"  {name}: {seconds:.3f} s, ratio {seconds / times['baseline']:.2f}, {count / 1e9:.0f} G operations, "
            f"{count / seconds / peak:.0%} of that peak"
        )


def _largest_input(config: Config) -> tuple[np.ndarray, np.ndarray | None]:
    """Return noise as the network's largest input, (S, S, 3) uint8, and as its context if it takes two looks."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (config.input_size, config.input_size, 3), np.uint8)
    side = config.context_size
    return pixels, None if side is None else rng.integers(0, 256, (side, side, 3), np.uint8)


def _folder(segmenter: Segmenter, model: str | None, paths: list[Path], folder: Path) -> str:
    """Time a whole folder by `segment_many` against one call after the other."""
    out = folder / "many"

    def save(path: Path, result: Segmentation) -> None:
        result.save(out, path.stem)

    single = Segmenter.from_pretrained(model, threads=1)
    totals = {"single": 0.0, "batch": 0.0}
    for start in range(0, len(paths), _SLICE):  # in turn, so that a slow minute of the machine affects both
        part = paths[start : start + _SLICE]
        started = time.perf_counter()
        for path in part:
            save(path, segmenter(path))
        middle = time.perf_counter()
        for _ in segment_many(single, part, save):
            pass
        totals["single"] += middle - started
        totals["batch"] += time.perf_counter() - middle
    return (
        f"{len(paths)} photographs, all files written: {totals['batch'] / len(paths):.3f} s each, one call after the "
        f"other {totals['single'] / len(paths):.3f} s, ratio {totals['batch'] / totals['single']:.2f}"
    )


def interleaved(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each run in `repeats` rounds, after a first round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if turn:
                times[name].append(time.perf_counter() - started)
    return times


def _operations(model: torch.nn.Module, *batch: torch.Tensor) -> int:
    """Count the floating-point operations of one forward pass."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(*batch)
    return counter.get_total_flops()


def _run(code: str) -> str:
    """Run code in a Python process of its own and return what it prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def _draw(size: tuple[int, int], folder: Path) -> Path:
    """Write a synthetic photograph of a size (H, W) as JPEG."""
    path = folder / f"synthetic_{size[1]}x{size[0]}.jpg"
    Image.fromarray(draw_fundus(1, size).image).save(path, quality=95)
    return path
