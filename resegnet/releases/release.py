"""A release: a folder with a model, the records of its training and its scores, and a self-test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from resegnet.errors import ConfigError, ImageError, ReleaseError, WeightsError, first_line, is_installed
from resegnet.hub import CONFIG_NAME, EXPECTED_NAME, METRICS_NAME, ONNX_NAME, TRAINING_NAME, WEIGHTS_NAME, sha256
from resegnet.io import atomic_folder, json_bytes, png, read_json
from resegnet.results.export import probability_png
from resegnet.segmenter import Segmenter
from resegnet.synthetic import draw_fundus

if TYPE_CHECKING:
    from resegnet.model import ReSegNet
    from resegnet.releases.quantise import Look

PHOTOGRAPH_NAME = "selftest/photograph.png"
PROBABILITY_NAME = "selftest/probability.png"
HASHED = (WEIGHTS_NAME, ONNX_NAME, CONFIG_NAME, PHOTOGRAPH_NAME, PROBABILITY_NAME)
SELFTEST_SEED = 7

# Largest difference of a pixel's probability with torch. Other processors and library versions sum a convolution in
# another order. Measured: 1.1e-5 with one thread in place of two, 3.1e-5 with SSE4.1 in place of AVX2; rounding the
# stored probability to 16 bits costs 0.8e-5.
TOLERANCE = 0.01
# Mean difference over the picture with ONNX Runtime. Arithmetic in 8-bit integers changes single pixels at the edge of
# a vessel by more than any useful bound. Measured: 0.003 to 0.012 on six photographs, at no loss of F1; 0.08 for a
# broken export.
ONNX_TOLERANCE = 0.03


def write_release(
    model: ReSegNet,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
    folder: Path,
    photographs: Sequence[Look],
) -> Path:
    """Write a release and verify it. The folder appears only when it is complete and sound.

    Parameters
    ----------
    model
        Network whose `config` holds the fitted threshold. Convolution kernels are stored as float16 (see
        `resegnet.model.save_weights`).
    training, metrics
        Content of `training.json` and `metrics.json`. Predictions never read them.
    folder
        Folder to create or replace.
    photographs
        Training photographs that calibrate the ONNX network (see
        `resegnet.releases.quantise.write_onnx`).

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ReleaseError
        If the written release does not verify.
    OSError
        If the release cannot be written. An earlier release in the folder is then still there.
    """
    # Only writing a release needs torch; checking one does not.
    from safetensors import SafetensorError

    from resegnet.model import save_weights
    from resegnet.releases.quantise import write_onnx

    folder = Path(folder)
    with atomic_folder(folder) as partial:
        (partial / PHOTOGRAPH_NAME).parent.mkdir()
        try:
            save_weights(model, partial / WEIGHTS_NAME, half=True)
        except SafetensorError as error:  # raised for a full disk, and not an OSError
            raise OSError(f"{partial / WEIGHTS_NAME} cannot be written: {error}") from error
        write_onnx(model, photographs, partial / ONNX_NAME)
        (partial / CONFIG_NAME).write_text(model.config.to_json(), encoding="utf-8")
        (partial / TRAINING_NAME).write_bytes(json_bytes(dict(training)))
        (partial / METRICS_NAME).write_bytes(json_bytes(dict(metrics)))
        (partial / PHOTOGRAPH_NAME).write_bytes(png(draw_fundus(SELFTEST_SEED).image, compress_level=9))
        result = Segmenter.from_pretrained(partial, engine="torch")(partial / PHOTOGRAPH_NAME)
        (partial / PROBABILITY_NAME).write_bytes(probability_png(result))
        expected = {
            "tolerance": TOLERANCE,
            "onnx_tolerance": ONNX_TOLERANCE,
            "sha256": {name: sha256(partial / name) for name in HASHED},
        }
        (partial / EXPECTED_NAME).write_bytes(json_bytes(expected))
        verify_release(partial)
    return folder


def verify_release(folder: str | Path) -> float | None:
    """Check files and SHA-256 of a release, load it strictly, and repeat its self-test with both engines.

    Without torch, the self-test runs with the engine `onnx` only, and of the weights only the SHA-256 is checked.

    Returns
    -------
    float or None
        Largest absolute difference between the stored probability and that of torch; None if torch is not installed.

    Raises
    ------
    ReleaseError
        If a file is missing or altered (the message lists all of them), the release cannot be loaded, or a prediction
        differs by more than the tolerance that the release states.
    """
    folder = Path(folder)
    expected = _read_expected(folder)
    _check_files(folder, expected.sha256)
    return _check_predictions(folder, expected)


@dataclass(frozen=True)
class _Expected:
    """Content of `selftest/expected.json`."""

    sha256: dict[str, str]
    tolerance: float
    onnx_tolerance: float


def _read_expected(folder: Path) -> _Expected:
    try:
        content = read_json(folder / EXPECTED_NAME)
        expected = _Expected(dict(content["sha256"]), float(content["tolerance"]), float(content["onnx_tolerance"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ReleaseError(
            f"{folder} is not a ReSegNet release: {EXPECTED_NAME} cannot be read ({first_line(error)}). Give the "
            "folder of a release, or download or write it again."
        ) from error
    for tolerance in (expected.tolerance, expected.onnx_tolerance):
        if not 0 <= tolerance <= 1:  # also refuses nan, with which no self-test could fail
            raise ReleaseError(
                f"{folder}: {EXPECTED_NAME} states a tolerance of {tolerance}, expected 0 to 1. Download or write the "
                "release again."
            )
    return expected


def _check_files(folder: Path, digests: Mapping[str, str]) -> None:
    faults = [f"{EXPECTED_NAME} has no SHA-256 of {name}" for name in HASHED if name not in digests]
    for name in (*HASHED, TRAINING_NAME, METRICS_NAME):
        if not (folder / name).is_file():
            faults.append(f"{name} is missing")
        elif name in digests and sha256(folder / name) != digests[name]:
            faults.append(f"{name} was altered: its SHA-256 differs from the one in {EXPECTED_NAME}")
    if faults:
        raise ReleaseError(f"{folder}: {'; '.join(faults)}. Download or write the release again.")


def _check_predictions(folder: Path, expected: _Expected) -> float | None:
    """Return the largest difference of torch's probability from the stored one, None if torch is not installed."""
    engines = ("torch", "onnx") if is_installed("torch") else ("onnx",)
    try:
        probabilities = {
            engine: Segmenter.from_pretrained(folder, engine=engine)(folder / PHOTOGRAPH_NAME).probability
            for engine in engines
        }
        with Image.open(folder / PROBABILITY_NAME) as file:
            stored = np.asarray(file, np.float32) / np.float32(65535)
    except (ConfigError, WeightsError, ImageError, OSError) as error:
        raise ReleaseError(f"{folder}: {error}") from error
    shape = probabilities["onnx"].shape
    if stored.shape != shape:
        raise ReleaseError(
            f"{folder}: {PROBABILITY_NAME} has the shape {stored.shape}, expected {shape} as {PHOTOGRAPH_NAME}. "
            "Download or write the release again."
        )
    difference = float(np.abs(stored - probabilities["torch"]).max()) if "torch" in probabilities else None
    if difference is not None and difference > expected.tolerance:
        raise ReleaseError(
            f"{folder}: the self-test's probability is off by {difference:.4f}, expected at most {expected.tolerance}. "
            f"{WEIGHTS_NAME} does not fit the self-test, or the installed torch computes differently: download the "
            "release again, or install the version of torch that made it."
        )
    onnx_difference = float(np.abs(stored - probabilities["onnx"]).mean())
    if onnx_difference > expected.onnx_tolerance:
        raise ReleaseError(
            f"{folder}: {ONNX_NAME} is off by {onnx_difference:.4f} on average, expected at most "
            f"{expected.onnx_tolerance}. It does not hold the network of {WEIGHTS_NAME}, or the installed onnxruntime "
            "computes differently: download the release again, or install another version of onnxruntime."
        )
    return difference
