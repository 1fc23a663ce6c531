"""Training from data sets to a release folder, through any number of interruptions."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import distributed

from resegnet.engine import TorchNetwork
from resegnet.errors import DataError, TrainingError, require
from resegnet.learning.anatomy import find_kinds
from resegnet.learning.anatomy_evaluation import evaluate_places, format_anatomy
from resegnet.learning.calibration import calibrate
from resegnet.learning.curves import write_curves
from resegnet.learning.evaluation import evaluate_dataset, find_second_observer, format_table
from resegnet.learning.folder import RunFolder, load_tensors, save_tensors
from resegnet.learning.options import MAY_CHANGE, TrainingOptions, option_name, short_name
from resegnet.learning.parents import Parents, find_parents
from resegnet.learning.photographs import TrainingData, WorkingSamples
from resegnet.learning.preview import write_preview
from resegnet.learning.record import published_options, training_record
from resegnet.learning.run import Run
from resegnet.learning.self_training import KindsTeacher
from resegnet.learning.start import load_detail, load_encoder_weights, load_release
from resegnet.learning.stress import format_stress_table, small_photographs, stress_table
from resegnet.learning.track import Log, tracked
from resegnet.releases.records import add_scores
from resegnet.releases.release import write_release
from resegnet.segmenter import Segmenter

logger = logging.getLogger(__name__)


def train(options: TrainingOptions, out: Path, resume: bool = False) -> Path:
    """Train, calibrate, score `test` once, write the release, and score it on degraded photographs.

    Parameters
    ----------
    options
        Options of the run.
    out
        Folder of the run, see `resegnet.learning.folder.RunFolder`.
    resume
        Resume the run in `out`. An epoch that was interrupted is trained again from its start, so the final weights
        are the same, bit for bit on the same CPU, as without the interruption.

    Returns
    -------
    release
        `out/release`.

    Raises
    ------
    TrainingError
        If `out` holds a run and `resume` is False, or none and it is True; if the options differ from those that the
        run was started with; for weights that cannot be had; if the loss becomes nan or infinite; if the dashboard of
        `track` cannot be opened.
    MissingExtraError
        If a dashboard is asked for and trackio is not installed.
    resegnet.errors.DataError
        For unusable data.
    OSError
        If a file cannot be written.
    """
    folder = RunFolder(Path(out))
    planned = _check_folder(folder, options, resume)
    if options.track:
        require("trackio", "--track")
    _set_up_torch(options)
    run = Run(options)
    if run.rank == 0:
        folder.make()
        if not resume:
            folder.write_options(options)  # marks the folder as that of a run
    parents = find_parents(options, folder.read_commits() if resume else {})
    data = TrainingData.load(options)
    known = (parents.start, parents.detail, *parents.teachers)
    data.warn_of_known_eyes(parent for parent in known if parent)
    if resume:
        _resume(run, folder, planned)
    else:
        _start(run, parents)
    read = partial(WorkingSamples.read, data, options, parents, folder.samples)
    # Without a release to start from, a run that trains itself tells the kinds when its context branch has learned.
    learns_first = options.self_training and parents.start is None and run.epoch <= options.context_epochs
    with torch.random.fork_rng(devices=[]):  # to build a network draws random numbers
        samples = read(None if learns_first else _find_kinds_teacher(run, folder, parents))
    if run.rank == 0:
        folder.write_options(options)  # of a resumed run: options given anew hold for the next --resume
        folder.write_commits(parents.commits)
        if not resume:  # the checkpoint comes last, because --resume needs the other files beside it
            folder.cut_metrics(0)
            save_tensors(run.state(), folder.checkpoint)
    name = folder.path.absolute().name
    project = options.track if run.rank == 0 else ""
    with tracked(project, options.track_space, name, published_options(options, parents)) as log:
        if learns_first:
            _train_epochs(run, folder, samples, log, until=options.context_epochs)
            _save_teacher(run, folder)
            del samples
            with torch.random.fork_rng(devices=[]):
                samples = read(_find_kinds_teacher(run, folder, parents))
        _train_epochs(run, folder, samples, log)
    if run.rank == 0:
        _finish(run, folder, data, parents, samples)
        shutil.rmtree(folder.samples, ignore_errors=True)
    return folder.release


def _check_folder(folder: RunFolder, options: TrainingOptions, resume: bool) -> int:
    """Check that a run may start or resume in a folder, and return the number of epochs that it had planned."""
    if not resume:
        if folder.checkpoint.exists():
            raise TrainingError(
                f"{folder.path} holds a run already. Add --resume to continue it, or name another --out."
            )
        for name in (folder.samples.name, folder.release.name):
            if (folder.path / name).exists() and not folder.options.exists():
                raise TrainingError(
                    f"{folder.path} holds a folder {name}, which no run made, and a run would replace it. Name another "
                    "--out."
                )
        return options.epochs
    folder.require_checkpoint()
    first = folder.read_options()
    changed = [
        option_name(name) for name, value in first.items() if name not in MAY_CHANGE and getattr(options, name) != value
    ]
    if changed:
        raise TrainingError(
            f"{', '.join(changed)} cannot be changed by --resume: it would be another run. Leave it out, or start a "
            "new run with another --out."
        )
    return int(first["epochs"])


def _set_up_torch(options: TrainingOptions) -> None:
    if distributed.is_torchelastic_launched() and not distributed.is_initialized():
        # From here on the processes wait for each other, so none writes a file that another has yet to look for.
        distributed.init_process_group()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)


def _start(run: Run, parents: Parents) -> None:
    """Load the weights that the run starts from."""
    if parents.start is None:
        load_encoder_weights(run.model, run.options.encoder_weights)
    else:
        load_release(run.model, parents.start, whole=not (run.options.epochs and run.options.validation_fraction))
        if parents.calibration:
            parents.calibration.undo_scaling(run.model)
    if parents.detail is not None:
        load_detail(run.model, parents.detail)
    run.restart_average()


def _resume(run: Run, folder: RunFolder, planned: int) -> None:
    run.load_state(load_tensors(folder.checkpoint, run.device))
    if run.options.epochs != planned and run.options.epochs <= run.epoch:
        raise TrainingError(
            f"--epochs is {run.options.epochs}, but {run.epoch} are done. Expected {run.epoch + 1} or more: the last "
            "epoch is the one that is always scored."
        )
    if run.processes > 1:
        distributed.barrier()  # all have read the checkpoint before the first process replaces it
    if run.rank == 0:
        folder.cut_metrics(run.epoch)
    logger.info("resuming after epoch %d", run.epoch)


def _find_kinds_teacher(run: Run, folder: RunFolder, parents: Parents) -> KindsTeacher | None:
    """Return what tells the kinds of photographs without labels: the parent release, or this run some epochs ago."""
    if not run.options.self_training:
        return None
    if parents.start:
        return KindsTeacher.of_release(parents.start, run.device)
    return KindsTeacher.of_weights(folder.teacher, run.model.config, run.device)


def _save_teacher(run: Run, folder: RunFolder) -> None:
    if run.rank == 0:
        save_tensors(run.averaged_model.state_dict(), folder.teacher)
    if run.processes > 1:
        distributed.barrier()


def _train_epochs(run: Run, folder: RunFolder, samples: WorkingSamples, log: Log, until: int | None = None) -> None:
    """Train until the run is finished, or until an epoch.

    The first process writes metrics, previews, best weights and checkpoint.
    """
    crops = run.crops(samples.train, samples.extra, samples.anatomy)
    first, started = run.epoch, time.monotonic()
    while not run.finished and run.epoch != until:
        trained = run.train_epoch(crops)
        scores = run.validate(samples.validation, samples.anatomy_validation)
        if run.rank:
            continue
        if run.best_epoch == run.epoch:
            save_tensors(run.averaged_model.state_dict(), folder.best)
        folder.append_metrics({"epoch": run.epoch, **trained, **scores})
        if scores and (run.epoch == 1 or run.finished or run.epoch % run.options.preview_every == 0):
            write_preview(run, samples.validation, folder.preview(run.epoch))
        save_tensors(run.state(), folder.checkpoint)
        write_curves(folder.read_metrics(), folder.curves)
        log({**trained, **scores}, run.epoch)
        _log_epoch(run, trained, scores, (time.monotonic() - started) / (run.epoch - first))
    if run.rank == 0 and not run.options.epochs:
        save_tensors(run.averaged_model.state_dict(), folder.best)  # the weights that the run started from


def _log_epoch(run: Run, trained: dict[str, float], scores: dict[str, float], seconds: float) -> None:
    """Log an epoch, and the time left if each epoch takes `seconds`, with validation and writing."""
    validation = ""
    if scores:
        stress = f", degraded {scores['validation_stress']:.4f}" if "validation_stress" in scores else ""
        best = f"best score {run.best_score:.4f} in epoch {run.best_epoch}"
        validation = f"validation F1 {scores['validation_f1']:.4f}{stress} ({best}), "
    left = 0 if run.finished else math.ceil(seconds * (run.options.epochs - run.epoch) / 60)
    logger.info(
        "epoch %d of %d: loss %.4f, %s%.0f s%s",
        run.epoch, run.options.epochs, trained["loss"], validation, trained["seconds"],
        f", about {left // 60} h {left % 60:02d} min of training left" if left else "",
    )  # fmt: skip


def _finish(run: Run, folder: RunFolder, data: TrainingData, parents: Parents, samples: WorkingSamples) -> None:
    """Calibrate the weights of the best epoch, score `test`, and write the release."""
    options, model = run.options, run.averaged_model
    model.load_state_dict(load_tensors(folder.best, run.device))
    logger.info("calibrating the weights of epoch %d", run.best_epoch)
    calibration = calibrate(model, data.validation, parents.calibration)
    training = training_record(run, data, samples, parents, calibration)
    metrics = _score(Segmenter(TorchNetwork(model), model.config), options, data.tests)
    logger.info("writing the release, with an ONNX network of 8-bit integers")
    write_release(model, training, metrics, folder.release, samples.quantisation_photographs())
    for report in metrics.values():
        tables = [format_table(report)] if "pooled" in report else []
        if report.get("kinds") or report.get("places"):
            tables.append(format_anatomy(report.get("kinds"), report.get("places")))
        logger.info("\n%s\n", "\n".join(tables))
    _score_under_stress(folder.release, data.tests, options.stress_photographs)


def _score(segmenter: Segmenter, options: TrainingOptions, tests: Mapping[str, Dataset]) -> dict[str, dict[str, Any]]:
    """Score the `test` photographs; for a network of two looks also arteries, veins, disc and fovea, where labelled."""
    metrics: dict[str, dict[str, Any]] = {}
    for source in (*options.dataset, *options.unseen):
        name = short_name(source)
        logger.info("scoring the %d photographs of %s, test", len(tests[name]), name)
        kinds = find_kinds(source) if segmenter.tells_anatomy else None
        observer = find_second_observer(source)
        metrics[name] = evaluate_dataset(segmenter, tests[name], second_observer=observer, kinds=kinds)
    for source in options.anatomy:
        name = short_name(source)
        if (Path(source) / "test" / "metadata.jsonl").is_file():
            logger.info("scoring optic disc and fovea on %s, test", name)
            try:
                metrics.setdefault(name, {"split": "test"})["places"] = evaluate_places(segmenter, Path(source), "test")
            except DataError as error:  # it is no reason to give up a trained network
                logger.warning("%s", error)
    return metrics


def _score_under_stress(release: Path, tests: Mapping[str, Dataset], limit: int) -> None:
    """Add the stress tables of the small `test` photographs to the scores of a release, with its ONNX network."""
    for name, rows in tests.items():
        small = small_photographs(rows, limit)
        if len(small):
            logger.info(
                "scoring %d photographs of %s, test, enlarged, softened, darkened and so on, which takes some minutes "
                "(--stress-photographs 0 leaves it out)", len(small), name,
            )  # fmt: skip
            segmenter = Segmenter.from_pretrained(release)
            table = stress_table(segmenter, small)
            add_scores(release, name, {"stress": table})
            logger.info("\n%s\n", format_stress_table(table))
