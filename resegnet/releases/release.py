"""A release: the folder that carries a model, where it came from, and a test of itself."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError

from resegnet.errors import ConfigError, ImageError, ReleaseError, WeightsError
from resegnet.hub import CONFIG_NAME, EXPECTED_NAME, METRICS_NAME, ONNX_NAME, TRAINING_NAME, WEIGHTS_NAME, sha256
from resegnet.io import json_bytes, png, read_json
from resegnet.model import ReSegNet, save_weights
from resegnet.releases.quantise import write_onnx
from resegnet.results.export import probability_png
from resegnet.segmenter import Segmenter
from resegnet.synthetic import draw_fundus

SELFTEST = "selftest"

# Other processors and library versions add up a convolution in another order. Seen: 1.1e-5 with one thread in place of
# two, 3.1e-5 with SSE4.1 in place of AVX2; 0.8e-5 is the rounding to 16 bit.
TOLERANCE = 0.01
# Of the fast engine, on average over the picture: 8-bit integers move single pixels at a vessel's edge by more than any
# bound would catch. Seen: 0.003 to 0.012 on six pictures, at no cost in F1; a bad export was off by 0.08.
ONNX_TOLERANCE = 0.03
SELFTEST_SEED = 7
HASHED = (WEIGHTS_NAME, ONNX_NAME, CONFIG_NAME, f"{SELFTEST}/photograph.png", f"{SELFTEST}/probability.png")


def write_release(
    model: ReSegNet,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
    folder: Path,
    photographs: Sequence[np.ndarray],
) -> Path:
    """Write and verify a release folder; it appears only once it is whole.

    Parameters
    ----------
    model
        Its `config` holds the fitted threshold. Kernels are stored as float16 (see `resegnet.model.save_weights`).
    training, metrics
        Records for `training.json` and `metrics.json`; never read at inference.
    folder
        Replaced if there.
    photographs
        Training photographs that the fast engine's ranges are taken from, see `resegnet.releases.quantise.write_onnx`.

    Raises
    ------
    ReleaseError
        If what was written does not verify.
    OSError
        If it cannot be written; a release that was in the folder is still there then.
    """
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
    (partial / SELFTEST).mkdir(parents=True)
    try:
        save_weights(model, partial / WEIGHTS_NAME, half=True)
    except SafetensorError as error:  # of a full disk, and no OSError
        raise OSError(f"{partial / WEIGHTS_NAME} cannot be written: {error}") from error
    write_onnx(model, photographs, partial / ONNX_NAME)
    (partial / CONFIG_NAME).write_text(model.config.to_json(), encoding="utf-8")
    (partial / TRAINING_NAME).write_bytes(json_bytes(dict(training)))
    (partial / METRICS_NAME).write_bytes(json_bytes(dict(metrics)))
    photograph = partial / SELFTEST / "photograph.png"
    photograph.write_bytes(png(draw_fundus(SELFTEST_SEED).image, compress_level=9))
    result = Segmenter.from_pretrained(partial, engine="torch")(photograph)
    (partial / SELFTEST / "probability.png").write_bytes(probability_png(result))
    expected = {
        "tolerance": TOLERANCE,
        "onnx_tolerance": ONNX_TOLERANCE,
        "sha256": {name: sha256(partial / name) for name in HASHED},
    }
    (partial / EXPECTED_NAME).write_bytes(json_bytes(expected))
    verify_release(partial)
    old = folder.with_name(folder.name + ".old.partial")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)  # deleted in place, half of it would be there for a while
    partial.replace(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def verify_release(folder: str | Path) -> float:
    """Check the files and hashes of a release, load it strictly and compare both engines with the stored prediction.

    Returns
    -------
    difference
        Largest absolute difference of torch's probability, at most the release's tolerance.

    Raises
    ------
    ReleaseError
        With every reason found.
    """
    folder = Path(folder)
    try:
        expected = read_json(folder / EXPECTED_NAME)
        hashes = dict(expected["sha256"])
        tolerance, onnx_tolerance = float(expected["tolerance"]), float(expected["onnx_tolerance"])
        if not (0 <= tolerance <= 1 and 0 <= onnx_tolerance <= 1):
            raise ValueError("a tolerance is outside [0, 1]")
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ReleaseError(f"{folder} is no ReSegNet release: {EXPECTED_NAME} cannot be read ({error}).") from error
    faults = [f"{name} has no hash" for name in HASHED if name not in hashes]
    for name in (*HASHED, TRAINING_NAME, METRICS_NAME):
        if not (folder / name).is_file():
            faults.append(f"{name} is missing")
        elif name in hashes and sha256(folder / name) != hashes[name]:
            faults.append(f"{name} was altered: its SHA-256 is not the one noted at release")
    if faults:
        raise ReleaseError(f"{folder}: {'; '.join(faults)}. Download or write the release again.")
    try:
        photograph = folder / SELFTEST / "photograph.png"
        result, fast = (Segmenter.from_pretrained(folder, engine=engine)(photograph) for engine in ("torch", "onnx"))
        with Image.open(folder / SELFTEST / "probability.png") as file:
            stored = np.asarray(file, np.float32) / np.float32(65535)
    except (ConfigError, WeightsError, ImageError, OSError) as error:
        raise ReleaseError(f"{folder}: {error}") from error
    if stored.shape != result.probability.shape:
        raise ReleaseError(f"{folder}: the self-test gives {result.probability.shape}, stored is {stored.shape}.")
    difference = float(np.abs(stored - result.probability).max())
    if difference > tolerance:
        raise ReleaseError(
            f"{folder}: the self-test's probability is off by {difference:.4f}, more than {tolerance}. The weights or "
            "the installed versions do not predict as they did at release."
        )
    fast_difference = float(np.abs(stored - fast.probability).mean())
    if fast_difference > onnx_tolerance:
        raise ReleaseError(
            f"{folder}: {ONNX_NAME} is off by {fast_difference:.4f} on average, more than {onnx_tolerance}. It is not "
            f"the network of {WEIGHTS_NAME}, or the installed onnxruntime does not compute as it did at release."
        )
    return difference
