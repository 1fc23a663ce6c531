"""A release: a folder with a model, the records of its training and its scores, and a self-test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from resegnet.config import ANATOMY
from resegnet.errors import ConfigError, ImageError, ReleaseError, WeightsError, first_line, has_torch
from resegnet.hub import (
    CONFIG_NAME,
    DOWNLOADED_FILES,
    EXPECTED_NAME,
    METRICS_NAME,
    ONNX_NAME,
    TRAINING_NAME,
    WEIGHTS_NAME,
    sha256,
)
from resegnet.io import atomic_folder, json_bytes, png, read_json
from resegnet.results.export import probability_png
from resegnet.segmenter import Segmenter
from resegnet.synthetic import draw_fundus

if TYPE_CHECKING:
    from resegnet.model import ReSegNet
    from resegnet.releases.quantise import Look
    from resegnet.results.segmentation import Segmentation

PHOTOGRAPH_NAME = "selftest/photograph.png"
PROBABILITY_NAME = "selftest/probability.png"
ANATOMY_NAME = "selftest/anatomy.png"  # 8-bit grey (4C, C): the planes of `Anatomy` one below the other, times 255
HASHED = (WEIGHTS_NAME, ONNX_NAME, CONFIG_NAME, PHOTOGRAPH_NAME, PROBABILITY_NAME)
RELEASE_FILES = sorted({*DOWNLOADED_FILES, *HASHED, ANATOMY_NAME})  # a network of one look has no anatomy
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
        try:
            save_weights(model, partial / WEIGHTS_NAME, half=True)
        except SafetensorError as error:  # raised for a full disk, and not an OSError
            raise OSError(f"{partial / WEIGHTS_NAME} cannot be written: {error}") from error
        write_onnx(model, photographs, partial / ONNX_NAME)
        (partial / CONFIG_NAME).write_text(model.config.to_json(), encoding="utf-8")
        (partial / TRAINING_NAME).write_bytes(json_bytes(dict(training)))
        (partial / METRICS_NAME).write_bytes(json_bytes(dict(metrics)))
        write_selftest(partial)
        verify_release(partial)
    return folder


def release_files(folder: Path) -> list[str]:
    """Return those of `RELEASE_FILES` that a release has."""
    return [name for name in RELEASE_FILES if name != ANATOMY_NAME or (folder / name).is_file()]


def write_selftest(folder: Path) -> None:
    """Write the folder `selftest/` of a release: a photograph, what torch makes of it, and the SHA-256 of all files."""
    (folder / PHOTOGRAPH_NAME).parent.mkdir(exist_ok=True)
    (folder / PHOTOGRAPH_NAME).write_bytes(png(draw_fundus(SELFTEST_SEED).image, compress_level=9))
    (folder / EXPECTED_NAME).unlink(missing_ok=True)  # loading checks the files by it
    result = Segmenter.from_pretrained(folder, engine="torch")(folder / PHOTOGRAPH_NAME)
    (folder / PROBABILITY_NAME).write_bytes(probability_png(result))
    names = list(HASHED)
    if result.anatomy is not None:
        planes = np.round(np.concatenate(result.anatomy.planes) * 255).astype(np.uint8)
        (folder / ANATOMY_NAME).write_bytes(png(planes, compress_level=9))
        names.append(ANATOMY_NAME)
    expected = {
        "tolerance": TOLERANCE,
        "onnx_tolerance": ONNX_TOLERANCE,
        "sha256": {name: sha256(folder / name) for name in names},
    }
    (folder / EXPECTED_NAME).write_bytes(json_bytes(expected))


def verify_release(folder: str | Path) -> float | None:
    """Check files and SHA-256 of a release, load it strictly, and repeat its self-test with both engines.

    Without torch, the self-test runs with the engine `onnx` only, and of the weights only the SHA-256 is checked.

    Returns
    -------
    float or None
        Largest absolute difference between the stored probability and that of torch; None if PyTorch is not installed.

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
    if not folder.is_dir():
        raise ReleaseError(f"There is no folder {folder}: give that of a release.")
    if not (folder / EXPECTED_NAME).is_file() and (folder / "release" / EXPECTED_NAME).is_file():
        raise ReleaseError(f"{folder} is the folder of a training run: give its release, {folder / 'release'}.")
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
    more = [ANATOMY_NAME] if ANATOMY_NAME in digests else []
    for name in (*HASHED, *more, TRAINING_NAME, METRICS_NAME):
        if not (folder / name).is_file():
            faults.append(f"{name} is missing")
        elif name in digests and sha256(folder / name) != digests[name]:
            faults.append(f"{name} was altered: its SHA-256 differs from the one in {EXPECTED_NAME}")
    if faults:
        raise ReleaseError(f"{folder}: {'; '.join(faults)}. Download or write the release again.")


def _check_predictions(folder: Path, expected: _Expected) -> float | None:
    """Return the largest difference of torch's probability from the stored one, None if torch is not installed."""
    engines = ("torch", "onnx") if has_torch() else ("onnx",)
    try:
        results = {
            engine: Segmenter.from_pretrained(folder, engine=engine)(folder / PHOTOGRAPH_NAME) for engine in engines
        }
        stored = _read_grey(folder / PROBABILITY_NAME, 65535)
        planes = _read_grey(folder / ANATOMY_NAME, 255) if ANATOMY_NAME in expected.sha256 else None
    except (ConfigError, WeightsError, ImageError, OSError) as error:
        raise ReleaseError(f"{folder}: {error}") from error
    _check_shape(folder / PROBABILITY_NAME, stored, results["onnx"].probability.shape)
    difference = None
    if "torch" in results:
        difference = float(np.abs(stored - results["torch"].probability).max())
        _check_difference(folder, "torch", "the vessels", difference, expected.tolerance)
    _check_difference(
        folder,
        "onnx",
        "the vessels",
        float(np.abs(stored - results["onnx"].probability).mean()),
        expected.onnx_tolerance,
    )
    if planes is not None:
        for engine, result in results.items():
            tolerance = expected.tolerance if engine == "torch" else expected.onnx_tolerance
            for name, found in _anatomy_differences(folder, result, planes, engine == "torch").items():
                _check_difference(folder, engine, name, found, tolerance)
    return difference


def _anatomy_differences(folder: Path, result: Segmentation, planes: np.ndarray, largest: bool) -> dict[str, float]:
    """Return the difference of each plane of the anatomy from the stored one: the largest, or the mean.

    Arteries and veins count on the vessels only, since their probability means nothing beside them.
    """
    if result.anatomy is None:
        raise ReleaseError(f"{folder}: {CONFIG_NAME} states a network without anatomy, which {ANATOMY_NAME} expects.")
    found = result.anatomy.planes
    _check_shape(folder / ANATOMY_NAME, planes, (found.shape[0] * found.shape[1], found.shape[2]))
    on_vessels = result.anatomy.geometry.to_input(result.mask) > 0.5
    differences = {}
    for name, one, other in zip(ANATOMY, found, planes.reshape(found.shape), strict=True):
        apart = np.abs(one - other)[on_vessels if name in ("artery", "vein") else ...]
        differences[name] = float(apart.max() if largest else apart.mean()) if apart.size else 0.0
    return differences


def _read_grey(path: Path, white: int) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file, np.float32) / np.float32(white)


def _check_shape(path: Path, stored: np.ndarray, shape: tuple[int, ...]) -> None:
    if stored.shape != shape:
        raise ReleaseError(
            f"{path.parent.parent}: {path.parent.name}/{path.name} has the shape {stored.shape}, expected {shape} for "
            f"{PHOTOGRAPH_NAME}. Download or write the release again."
        )


def _check_difference(folder: Path, engine: str, what: str, difference: float, tolerance: float) -> None:
    if difference <= tolerance:
        return
    if engine == "torch":
        raise ReleaseError(
            f"{folder}: the self-test's probability of {what} is off by {difference:.4f}, expected at most "
            f"{tolerance}. {WEIGHTS_NAME} does not fit the self-test, or the installed torch computes differently: "
            "download the release again, or install the version of torch that made it."
        )
    raise ReleaseError(
        f"{folder}: {ONNX_NAME} is off by {difference:.4f} on average for {what}, expected at most {tolerance}. It "
        f"does not hold the network of {WEIGHTS_NAME}, or the installed onnxruntime computes differently: download the "
        "release again, or install another version of onnxruntime."
    )
