"""Scores of a segmenter on a data set: table, report, and error maps of the photographs with the lowest F1."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from PIL import Image
from tqdm import tqdm

from resegnet.errors import DataError, ImageError
from resegnet.geometry import Geometry
from resegnet.io import png, safe_name, write_atomically
from resegnet.learning.anatomy_evaluation import KindScores, score_kinds
from resegnet.learning.samples import Sample, folder_beside, photograph_sha256, read_mask, read_sample
from resegnet.results.agreement import compare_numbers
from resegnet.results.export import versions
from resegnet.results.measure import measure_mask
from resegnet.results.metrics import SCORES, mean_and_sd
from resegnet.results.render import error_map
from resegnet.results.vessel_scores import VesselScores
from resegnet.segmenter import Segmenter

logger = logging.getLogger(__name__)

# Longer side of a written error map. It fits a screen; at 3504 px the file would have several MB.
ERROR_MAP_PX = 2000

FIELD_GIVEN = "the data set's"
FIELD_FOUND = "found by ReSegNet (the data set gives none)"

PROTOCOL = (
    "Scores count the pixels inside the field of view at each photograph's own size. A pixel is a vessel where "
    "the probability reaches the threshold, which came with the model and was not fitted here, and where "
    "ReSegNet itself sees the field of view. Pooled: all pixels of all pictures together. Mean and SD: over "
    "the pictures, the SD with n - 1, undefined scores left out. AUROC from histograms of 65,536 bins. "
    "clDice: Shit et al. 2021, 10.1109/CVPR46437.2021.01629, skeletons by scikit-image. Ceiling: F1 of the "
    "reference after its way through the network's input size and back, about what a flawless network scores."
)


def evaluate_dataset(
    segmenter: Segmenter,
    dataset: Dataset,
    *,
    second_observer: Path | None = None,
    worst: int = 3,
    out: Path | None = None,
    numbers: bool = False,
    kinds: Path | None = None,
    kind_numbers: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Segment every photograph of a data set and score the result against the references.

    Parameters
    ----------
    segmenter
        Model to score.
    dataset
        Rows from `resegnet.learning.data.load_vessels`. A photograph without a field of view of its own is scored
        inside the one that ReSegNet finds, and the report says so.
    second_observer
        Folder with a second person's references, `<image_id>.png`, 0 or 255. They are scored against the first
        person's inside the same field; photographs without one are left out of that line. None scores no one.
    worst
        Number of error maps to write, of the photographs with the lowest F1, if `out` is given.
    out
        Folder for the error maps, `<image_id>_errors.png`, each reduced to at most 2000 px.
    numbers
        Also measure the vessels found and those of the reference, inside the same field, and compare the numbers.
    kinds
        Folder with references of arteries and veins, see `resegnet.learning.anatomy_evaluation`. None scores no kinds.
    kind_numbers
        Also measure the arteries and veins found and those of `kinds`, and compare the numbers.
    progress
        Show a progress bar on stderr.

    Returns
    -------
    report
        Ready for JSON; an undefined score is None. `pooled`, `mean` and `sd` map the names in
        `resegnet.results.metrics.SCORES`; `pictures` has a row per photograph, in order, with the SHA-256 of its pixels
        (see `resegnet.learning.samples.photograph_sha256`); `ceiling` is the F1 that the input size allows;
        `second_observer` is None or holds `pooled`, `mean`, `sd`, `count` and, as `model`, the model's pooled scores on
        the same photographs. `numbers` is None or holds `found` and `traced`, the measures of each photograph from
        `resegnet.results.measure.measure_mask`, and `agreement`, see `resegnet.results.agreement.agreement`. `kinds` is
        None or the report of `resegnet.learning.anatomy_evaluation.KindScores`.

    Raises
    ------
    DataError
        If the data set is empty, or a second reference differs in size from its photograph.
    ImageError
        If a photograph or a reference cannot be decoded.
    """
    if not len(dataset):
        raise DataError("The data set holds no picture, expected one or more: choose a split that has some.")
    evaluation = _Evaluation(segmenter, second_observer, numbers, kinds, kind_numbers)
    for index in tqdm(range(len(dataset)), desc="evaluate", unit="picture", disable=None if progress else True):
        evaluation.add(read_sample(dataset[index]))
    report = evaluation.report()
    if out is not None:
        report["error_maps"] = _write_error_maps(segmenter, dataset, report["pictures"], worst, out)
    return _none_for_nan(report)


class _Evaluation:
    """Scores of a segmenter, photograph by photograph."""

    def __init__(
        self,
        segmenter: Segmenter,
        second_observer: Path | None,
        numbers: bool,
        kinds: Path | None,
        kind_numbers: bool,
    ) -> None:
        self.segmenter = segmenter
        self.second_observer = second_observer
        self.numbers = numbers
        self.kinds_folder = kinds
        self.kind_numbers = kind_numbers
        self.kinds = KindScores()
        self.model = VesselScores(segmenter.config.threshold)
        self.observer = VesselScores(threshold=0.5)  # a second person's masks are 0 or 1
        self.model_beside_observer = VesselScores(segmenter.config.threshold)
        self.ceilings: list[tuple[int, int]] = []
        self.pictures: list[dict[str, Any]] = []
        self.found: list[dict[str, float]] = []
        self.traced: list[dict[str, float]] = []

    def add(self, sample: Sample) -> None:
        """Segment and score one photograph."""
        config = self.segmenter.config
        segmentation = self.segmenter(sample.image)
        fov = segmentation.fov if sample.fov is None else sample.fov
        # Outside the field that ReSegNet sees itself it marks no vessel. AUROC has to count that too.
        probability = segmentation.probability * segmentation.fov
        self.model.add(prediction=probability, reference=sample.vessels, fov=fov)
        second = _read_second(self.second_observer, sample)
        if second is not None:
            self.observer.add(prediction=second, reference=sample.vessels, fov=fov)
            self.model_beside_observer.add(prediction=probability, reference=sample.vessels, fov=fov)
        if self.numbers:
            self.found.append(measure_mask(segmentation.mask, fov))
            self.traced.append(measure_mask(sample.vessels, fov))
        if self.kinds_folder is not None:
            score_kinds(self.kinds, sample.image_id, segmentation, self.kinds_folder, fov, self.kind_numbers)
        geometry = Geometry.around(segmentation.fov, config.input_size, config.smallest_input_size)
        self.ceilings.append(_dice_counts(round_trip(sample.vessels, geometry) & fov, sample.vessels & fov))
        self.pictures.append(
            {
                "image_id": sample.image_id,
                "patient": sample.patient,
                "dataset": sample.dataset,
                "sha256": photograph_sha256(sample.image),
                "field_of_view": FIELD_FOUND if sample.fov is None else FIELD_GIVEN,
                "warnings": list(segmentation.warnings),
            }
        )

    def report(self) -> dict[str, Any]:
        """Return the report of `evaluate_dataset`, with nan for undefined scores and without error maps."""
        config = self.segmenter.config
        result = self.model.compute()
        pictures = [
            picture | row | {"ceiling": _dice(*counts)}
            for picture, row, counts in zip(self.pictures, result["pictures"], self.ceilings, strict=True)
        ]
        numbers = None
        if self.numbers:
            agreement = compare_numbers(self.found, self.traced)
            numbers = {"found": self.found, "traced": self.traced, "agreement": agreement}
        return {
            "model": self.segmenter.model,
            "datasets": sorted({picture["dataset"] for picture in pictures}),
            "count": len(pictures),
            "threshold": config.threshold,
            "input_size_px": config.input_size,
            "smallest_input_size_px": config.smallest_input_size,
            "field_of_view": sorted({picture["field_of_view"] for picture in pictures}),
            "pooled": {name: result[name] for name in SCORES},
            "mean": result["mean"],
            "sd": result["sd"],
            "ceiling": _dice(*np.sum(self.ceilings, axis=0)),
            "second_observer": _compare(self.observer, self.model_beside_observer),
            "numbers": numbers,
            "kinds": self.kinds.report(),
            "pictures": pictures,
            "error_maps": [],
            "protocol": PROTOCOL,
            "versions": versions(),
        }


def round_trip(vessels: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Scale a reference, (H, W) bool, to the network's input and back, and return the result, (H, W) bool."""
    return geometry.to_original(geometry.to_input(vessels)) >= 0.5


def find_second_observer(source: str | os.PathLike[str]) -> Path | None:
    """Return the folder `second_observer` inside a data set's folder or beside it, or None."""
    return folder_beside(source, "second_observer")


def format_table(report: Mapping[str, Any]) -> str:
    """Format a report of `evaluate_dataset` as plain text for a terminal."""
    rows = [("pooled", report["pooled"]), ("mean", report["mean"]), ("SD", report["sd"])]
    second = report["second_observer"]
    if second is not None:
        rows.append(("second person", second["pooled"]))
        if second["count"] < report["count"]:
            rows.append((f"model, same {second['count']}", second["model"]))
    label_width = max(len(label) for label, _ in rows)
    lines = [
        f"{', '.join(report['datasets'])}: {report['count']} photographs, threshold {report['threshold']:.3f}, "
        f"network input up to {report['input_size_px']} px",
        f"Field of view: {'; '.join(report['field_of_view'])}",
        "",
        " ".join([" " * label_width, *(f"{title:>13}" for title in SCORES.values())]),
    ]
    for label, row in rows:
        lines.append(" ".join([f"{label:<{label_width}}", *(f"{_number(row[name]):>13}" for name in SCORES)]))
    worst = sorted((row for row in report["pictures"] if row["f1"] is not None), key=lambda row: row["f1"])[:3]
    lines += [
        "",
        f"Ceiling of the input size: F1 {_number(report['ceiling'])}",
        "Lowest F1: " + ", ".join(f"{row['image_id']} {_number(row['f1'])}" for row in worst),
    ]
    lines += [f"Error map: {path}" for path in report["error_maps"]]
    return "\n".join(lines)


def _read_second(folder: Path | None, sample: Sample) -> np.ndarray | None:
    path = None if folder is None else Path(folder) / f"{sample.image_id}.png"
    if path is None or not path.is_file():
        return None
    try:
        reference = read_mask({"bytes": path.read_bytes(), "path": None})
    except (ImageError, OSError) as error:
        raise DataError(f"The second reference {path} cannot be read: {error}") from error
    if reference.shape != sample.vessels.shape:
        raise DataError(
            f"The second reference {path} is {reference.shape} (H, W), expected {sample.vessels.shape} as its "
            "photograph: give references in the photographs' own frame."
        )
    return reference


def _compare(observer: VesselScores, model: VesselScores) -> dict[str, Any] | None:
    if not len(observer):
        return None
    count, result, model_result = len(observer), observer.compute(), model.compute()
    # A mask has a single operating point, so its AUROC would add nothing to the other scores.
    pooled = {name: result[name] for name in SCORES} | {"auroc": math.nan}
    mean, sd = mean_and_sd([row | {"auroc": math.nan} for row in result["pictures"]])
    return {
        "count": count,
        "pooled": pooled,
        "mean": mean,
        "sd": sd,
        "model": {name: model_result[name] for name in SCORES},
    }


def _dice_counts(one: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """Return numerator and denominator of Dice: twice the common pixels, and the pixels of both masks (H, W) bool."""
    return 2 * int(np.count_nonzero(one & other)), int(np.count_nonzero(one)) + int(np.count_nonzero(other))


def _dice(numerator: int, denominator: int) -> float:
    return float(numerator / denominator) if denominator else math.nan


def _write_error_maps(
    segmenter: Segmenter, dataset: Dataset, pictures: list[dict[str, Any]], limit: int, folder: Path
) -> list[str]:
    """Write error maps of the photographs with the lowest F1, and return their paths."""
    scored = [index for index, picture in enumerate(pictures) if not math.isnan(picture["f1"])]
    worst = sorted(scored, key=lambda index: pictures[index]["f1"])[: max(limit, 0)]
    try:
        return [str(_write_error_map(segmenter, dataset[index], Path(folder))) for index in worst]
    except OSError as error:  # scores that took long are not lost to a full disk or a bad folder
        logger.warning("The error maps cannot be written: %s", error)
        return []


def _write_error_map(segmenter: Segmenter, row: Mapping[str, Any], folder: Path) -> Path:
    # The photograph is segmented a second time: keeping all of them until the worst are known would take gigabytes.
    sample = read_sample(row)
    segmentation = segmenter(sample.image)
    field = segmentation.fov if sample.fov is None else sample.fov
    picture = Image.fromarray(error_map(sample.image, segmentation.mask, sample.vessels, field))
    picture.thumbnail((ERROR_MAP_PX, ERROR_MAP_PX), Image.Resampling.LANCZOS)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{safe_name(sample.image_id)}_errors.png"
    write_atomically(path, png(np.asarray(picture)))
    return path


def _none_for_nan(value: Any) -> Any:
    """Replace nan by None in nested dicts and lists, because JSON has no nan."""
    if isinstance(value, dict):
        return {key: _none_for_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_none_for_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
