"""The one training loop: from data sets to a release folder, through any number of interruptions."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm import tqdm

from resegnet.config import Config
from resegnet.engine import TorchNetwork
from resegnet.errors import TrainingError
from resegnet.geometry import as_network_input
from resegnet.hub import is_hub_id
from resegnet.io import json_bytes, png, write_atomically
from resegnet.learning.crops import Crops, WorkingSample, identity_collate
from resegnet.learning.data import check_disjoint, encoded, load_vessels, read_sample, split_validation
from resegnet.learning.evaluation import evaluate_dataset, find_second_observer
from resegnet.learning.losses import bce_dice_loss, centreline_loss
from resegnet.learning.options import MAY_CHANGE, TrainingOptions, short_name
from resegnet.learning.start import (
    calibration_of,
    earlier_record,
    known_photographs,
    load_encoder_weights,
    load_release,
)
from resegnet.model import ReSegNet, round_to_half, scale_logits
from resegnet.releases.records import training_datasets
from resegnet.releases.release import write_release
from resegnet.results.calibration import fit_scaling, fit_threshold, half_of_best_f1, reliability
from resegnet.results.metrics import probability_histograms
from resegnet.segmenter import Segmenter

logger = logging.getLogger(__name__)

CHECKPOINT_NAME = "checkpoint.pt"
BEST_NAME = "best.pt"
OPTIONS_NAME = "options.json"
METRICS_LOG_NAME = "metrics.jsonl"
LOOK_EVERY = 20  # batches between two looks at the loss
CALIBRATION_COUNT = 12  # training photographs, evenly over the sets, that the fast engine's ranges are taken from


class Run:
    """State of a training run: all that a checkpoint holds, and the steps that change it.

    Several processes, as `torchrun` starts them, may train together: each takes its share of the crops of a step, the
    first alone validates and writes.
    """

    def __init__(self, options: TrainingOptions) -> None:
        self.options = options
        together = distributed.is_initialized()
        self.rank = distributed.get_rank() if together else 0
        self.processes = distributed.get_world_size() if together else 1
        self.crops_per_step = options.batch_size * options.accumulate * self.processes
        self.device = torch.device(options.device)
        if together and self.device.type == "cuda":
            self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        self.model = ReSegNet(options.config())
        self.model.to(self.device, memory_format=torch.channels_last)
        # Averages the gradients. An encoder of fewer stages than it was made with keeps the unused ones.
        self.network = DistributedDataParallel(self.model, find_unused_parameters=True) if together else self.model
        self.average = AveragedModel(self.model, multi_avg_fn=_average_with(options.average_decay), use_buffers=True)
        make = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
        self.optimizer = make(
            self.model.parameters(),
            options.learning_rate,
            weight_decay=options.weight_decay,
            fused=self.device.type == "cuda",
        )
        if options.schedule == "cosine":
            self.schedule = torch.optim.lr_scheduler.LambdaLR(
                self.optimizer, _warm_up_and_cosine(options.epochs * options.steps_per_epoch)
            )
        else:
            self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer, "max", factor=0.5, patience=3)
        kind = self.device.type
        self.autocast = torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda" or _cpu_multiplies_bfloat16())
        self.epoch = 0  # finished epochs
        self.best_f1 = -1.0
        self.best_epoch = 0

    @property
    def finished(self) -> bool:
        """True after the last epoch, or where validation has not improved for `patience` epochs."""
        return self.epoch >= self.options.epochs or self.epoch - self.best_epoch >= self.options.patience

    def state(self) -> dict:
        """Tensors and plain values only, so that it loads with `weights_only=True`."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": torch.get_rng_state(),
            "epoch": self.epoch,
            "best_f1": self.best_f1,
            "best_epoch": self.best_epoch,
            "processes": self.processes,
        }

    def load_state(self, state: dict) -> None:
        """Go back to what `state` gave.

        Raises
        ------
        TrainingError
            If another number of processes made it: they would see other crops.
        """
        if state.get("processes", 1) != self.processes:
            raise TrainingError(
                f"{state.get('processes', 1)} processes began this run, {self.processes} would go on with it. Start "
                "torchrun with the same number."
            )
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["generator"].cpu())
        self.epoch, self.best_f1, self.best_epoch = state["epoch"], state["best_f1"], state["best_epoch"]

    def crops(self, samples: Sequence[WorkingSample], extra: Sequence[WorkingSample] = ()) -> Crops:
        """What `train_epoch` takes crops from; without workers they are made where the network is."""
        options = self.options
        weak_from = (
            round((1 - options.weak_augmentation_share) * options.epochs)
            * options.steps_per_epoch
            * self.crops_per_step
        )
        device = "cpu" if options.workers else self.device
        return Crops(samples, options.crop_size, options.seed, weak_from, extra, device)

    def train_epoch(self, crops: Crops) -> dict[str, float]:
        """One epoch of steps; gives its mean loss and its rates."""
        options = self.options
        first = self.epoch * options.steps_per_epoch * self.crops_per_step
        end = first + options.steps_per_epoch * self.crops_per_step
        loader = DataLoader(
            crops,
            batch_size=options.batch_size,
            sampler=range(first + self.rank, end, self.processes),
            num_workers=options.workers,
            collate_fn=identity_collate,
            pin_memory=self.device.type == "cuda" and options.workers > 0,
        )
        self.model.train()
        if options.freeze_norm:
            for part in self.model.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.eval()
        losses: list[torch.Tensor] = []  # on the device: to ask for each would keep it waiting
        waited, started = 0.0, time.perf_counter()
        asked = started
        desc = f"epoch {self.epoch + 1}/{options.epochs}"
        batches = tqdm(loader, desc=desc, unit="batch", leave=False, disable=True if self.rank else None)
        for number, (image, masks) in enumerate(batches, 1):
            waited += time.perf_counter() - asked
            image = image.to(self.device, memory_format=torch.channels_last, non_blocking=True)
            masks = masks.to(self.device, non_blocking=True)
            with self.autocast:
                logits = self.network(image)
            vessels, field, centrelines = masks.split(1, dim=1)
            loss = bce_dice_loss(logits.float(), vessels, field, options.dice_weight)
            if options.centreline_weight:
                loss = loss + options.centreline_weight * centreline_loss(logits.float(), centrelines, field)
            (loss / options.accumulate).backward()
            losses.append(loss.detach())
            if number % options.accumulate == 0:
                nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                self.optimizer.step()
                self.optimizer.zero_grad()
                if options.schedule == "cosine":
                    self.schedule.step()
                self.average.update_parameters(self.model)
            if number % LOOK_EVERY == 0 or number == len(batches):
                latest = torch.stack(losses[-LOOK_EVERY:]).mean().item()
                batches.set_postfix(loss=f"{latest:.3f}")
                if not math.isfinite(latest):
                    raise TrainingError(
                        f"The loss is {latest} in epoch {self.epoch + 1}. Try a lower --learning-rate than "
                        f"{options.learning_rate}; the last checkpoint is kept."
                    )
            asked = time.perf_counter()
        seconds = time.perf_counter() - started
        self.epoch += 1
        return {
            "loss": torch.stack(losses).mean().item(),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": round(seconds, 2),
            "waited_for_data": round(waited / seconds, 4),
        }

    def validate(self, samples: list[WorkingSample]) -> dict[str, float]:
        """F1 at the working size of the averaged weights, at the best threshold: mean over the sets, and each set's.

        Without samples there is none, and every epoch passes for the best.
        """
        if not samples:
            self.best_epoch = self.epoch
            return {}
        scores = [self._scores(samples) if self.rank == 0 else None]
        if self.processes > 1:
            distributed.broadcast_object_list(scores)
        f1 = scores[0]["validation_f1"]
        if self.options.schedule == "plateau":
            self.schedule.step(f1)
        if f1 > self.best_f1:
            self.best_f1, self.best_epoch = f1, self.epoch
        return {name: round(value, 5) for name, value in scores[0].items()}

    def _scores(self, samples: list[WorkingSample]) -> dict[str, float]:
        histograms = [
            probability_histograms(self.predict(sample), sample.vessels > 127, sample.field > 127) for sample in samples
        ]
        names = [sample.dataset for sample in samples]
        _, f1 = fit_threshold(histograms, names)
        scores = {"validation_f1": f1}
        for name in sorted(set(names)):
            own = [histogram for histogram, owner in zip(histograms, names, strict=True) if owner == name]
            scores[f"validation_f1_{name}"] = fit_threshold(own)[1]
        return scores

    def predict(self, sample: WorkingSample) -> np.ndarray:
        """Probability (S, S) float32 of a photograph, by the averaged weights."""
        return TorchNetwork(self.average.module)(as_network_input(sample.pixels)[None])[0]


def train(options: TrainingOptions, out: Path, resume: bool = False) -> Path:
    """Train, fit the threshold, score `test` once and write the release.

    Parameters
    ----------
    options
        What to do.
    out
        Folder of the run: `options.json`, `metrics.jsonl`, `checkpoint.pt`, `best.pt`, `previews/`, `release/`.
    resume
        Go on with the run that lies in `out`. Epochs that a kill cut short are run again from their beginning, so
        that the weights end up the same, bit for bit on the same CPU, as without the interruption.

    Returns
    -------
    release
        `out/release`.

    Raises
    ------
    TrainingError
        If there is a run in `out` and `resume` is False, or none and it is True; for weights that cannot be had; for
        a loss that is no number.
    resegnet.learning.data.DataError
        For unusable data.
    """
    out = Path(out)
    checkpoint = out / CHECKPOINT_NAME
    if resume and not checkpoint.exists():
        raise TrainingError(f"{out} holds no {CHECKPOINT_NAME} to go on from. Start without --resume.")
    if resume:
        _check_same_run(options, out / OPTIONS_NAME)
    elif checkpoint.exists():
        raise TrainingError(f"{out} holds a run already. Add --resume to go on with it, or name another --out.")
    if distributed.is_torchelastic_launched() and not distributed.is_initialized():
        distributed.init_process_group()  # from here on no process runs ahead and writes what another still asks for
    out.mkdir(parents=True, exist_ok=True)
    if options.threads:
        torch.set_num_threads(options.threads)

    torch.manual_seed(options.seed)
    run = Run(options)

    photographs = load_vessels(options.dataset, "train")
    # Loaded and checked before the long work, not after it.
    tests = {short_name(source): load_vessels(source, "test") for source in (*options.dataset, *options.unseen)}
    labelled = load_vessels(options.extra, "train") if options.extra else photographs.select([])
    check_disjoint(photographs, tests)
    check_disjoint(labelled, tests)
    kept = None  # slope, offset and threshold, where no eye is kept back to fit them on
    if options.validation_fraction:
        chosen, kept_back = split_validation(photographs, options.validation_fraction, options.seed)
    else:
        chosen, kept_back = photographs, photographs.select([])
        kept = calibration_of(options.start_from, run.model.config)
    logger.info("%d photographs to train on, %d to validate on", len(chosen), len(kept_back))
    if options.start_from and known_photographs(options.start_from) & set(kept_back["image_id"]):
        logger.warning(
            "%s was trained on photographs that validate here: scores on them flatter, and so may the threshold.",
            options.start_from,
        )
    teachers = [Segmenter.from_pretrained(name, engine="torch", device=options.device) for name in options.teacher]
    train_samples = _working_samples(chosen, run.model.config, teachers)
    validation_samples, extra_samples = (_working_samples(rows, run.model.config) for rows in (kept_back, labelled))
    del teachers
    if resume:
        run.load_state(torch.load(checkpoint, map_location=run.device, weights_only=True))
        if run.processes > 1:
            distributed.barrier()  # all have read it
        if run.rank == 0:
            _cut_metrics(out / METRICS_LOG_NAME, run.epoch)
        logger.info("going on after epoch %d", run.epoch)
    else:
        if options.start_from:
            load_release(run.model, options.start_from)
            if kept:
                slope, offset, _ = kept
                scale_logits(run.model, 1 / slope, -offset / slope)  # as training left them
        else:
            load_encoder_weights(run.model, options.encoder_weights)
        run.average.module.load_state_dict(run.model.state_dict())
    # Before the first checkpoint, which --resume asks for, and when resuming too: what was given anew, as more epochs,
    # has to hold for the next --resume.
    if run.rank == 0:
        write_atomically(out / OPTIONS_NAME, json_bytes(dataclasses.asdict(options)))
        if not resume:
            _save(run.state(), checkpoint)
    crops = run.crops(train_samples, extra_samples)
    while not run.finished:
        record = {
            "epoch": run.epoch + 1,
            **run.train_epoch(crops),
            **run.validate(validation_samples),
        }
        if run.rank:
            continue
        if run.best_epoch == run.epoch:
            _save(run.average.module.state_dict(), out / BEST_NAME)
        with (out / METRICS_LOG_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if validation_samples and run.epoch % options.preview_every == 0:
            write_previews(run, validation_samples, out / "previews" / f"epoch_{run.epoch:04d}.png")
        _save(run.state(), checkpoint)
        found = ""
        if validation_samples:
            found = f"validation F1 {record['validation_f1']:.4f} (best {run.best_f1:.4f} in epoch {run.best_epoch}), "
        logger.info("epoch %d: loss %.4f, %s%.0f s", run.epoch, record["loss"], found, record["seconds"])
    if run.rank:
        return out / "release"
    if not options.epochs:
        _save(run.average.module.state_dict(), out / BEST_NAME)  # as it was started from
    places = np.linspace(0, len(train_samples) - 1, min(CALIBRATION_COUNT, len(train_samples))).astype(int)
    shown = [train_samples[place].pixels for place in places]
    return finish(run, out, chosen, kept_back, labelled, tests, shown, kept)


def finish(
    run: Run,
    out: Path,
    chosen: Dataset,
    kept_back: Dataset,
    labelled: Dataset,
    tests: Mapping[str, Dataset],
    shown: Sequence[np.ndarray],
    kept: tuple[float, float, float] | None = None,
) -> Path:
    """Take the best epoch, calibrate it, score `test`, write the release."""
    options = run.options
    model = run.average.module
    model.load_state_dict(torch.load(out / BEST_NAME, map_location=run.device, weights_only=True))
    calibration = _calibrate(model, kept_back, kept)
    # By name: where files lay on the machine that trained is nobody's business, and the record is published.
    by_name = {
        "dataset": [short_name(source) for source in options.dataset],
        "extra": [short_name(source) for source in options.extra],
        "teacher": [_release_name(source) for source in options.teacher],
        "unseen": [short_name(source) for source in options.unseen],
        "encoder_weights": short_name(options.encoder_weights),
        "start_from": _release_name(options.start_from),
    }
    training = {
        "options": dataclasses.asdict(options) | by_name,
        "hub_datasets": [source for source in options.dataset if is_hub_id(source)],
        "epochs_run": run.epoch,
        "best_epoch": run.best_epoch,
        **calibration,
        "train_ids": list(chosen["image_id"]),
        "validation_ids": list(kept_back["image_id"]),
        "labelled_ids": list(labelled["image_id"]),
        "earlier": earlier_record(options.start_from) if options.start_from else {},
        "teachers": [
            {"name": name, "trained_on": training_datasets(earlier_record(source))}
            for name, source in zip(by_name["teacher"], options.teacher, strict=True)
        ],
        "data_sha256": _fingerprint(chosen, kept_back, labelled),
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "machine": platform.machine(),
            "device": options.device,
            "processes": run.processes,
            "commit": _commit(),
        },
    }
    segmenter = Segmenter(TorchNetwork(model), model.config)
    observers = {short_name(source): find_second_observer(source) for source in (*options.dataset, *options.unseen)}
    metrics = {name: evaluate_dataset(segmenter, rows, second_observer=observers[name]) for name, rows in tests.items()}
    return write_release(model, training, metrics, out / "release", shown)


def _calibrate(model: ReSegNet, kept_back: Dataset, kept: tuple[float, float, float] | None) -> dict[str, Any]:
    """Scale the logits and set the threshold, in place: as `kept`, or fitted on validation eyes; gives the record."""
    slope, offset, threshold = kept or (*fit_scaling(*validation_histograms(model, kept_back)), None)
    scale_logits(model, slope, offset)
    round_to_half(model)  # as the release stores it, so that what is fitted and scored here is what people get
    record: dict[str, Any] = {"logits_scaled": {"slope": slope, "offset": offset}}
    if kept:
        record["threshold_fitted_on"] = "validation photographs of the release that this run went on from"
    else:
        histograms, names = validation_histograms(model, kept_back)
        threshold, validation_f1 = half_of_best_f1(histograms, names)
        logger.info("threshold %.4f, validation F1 %.4f at original size", threshold, validation_f1)
        record |= {
            "validation_f1": validation_f1,
            "validation_reliability": reliability(histograms, names),
            "threshold_fitted_on": "validation photographs at original size: half of the best mean of the sets' "
            "pooled F1",
        }
    model.config = dataclasses.replace(model.config, threshold=min(max(round(threshold, 4), 1e-4), 1 - 1e-4))
    return record


def validation_histograms(model: ReSegNet, kept_back: Dataset) -> tuple[list[np.ndarray], list[str]]:
    """Of the probability at original size, inside each set's field (see `probability_histograms`); and the sets."""
    segmenter = Segmenter(TorchNetwork(model), model.config)
    histograms, names = [], []
    for row in tqdm(kept_back, desc="validation at original size", disable=None):
        sample = read_sample(row)
        result = segmenter(sample.image)
        field = result.fov if sample.fov is None else sample.fov
        histograms.append(probability_histograms(result.probability * result.fov, sample.vessels, field))
        names.append(sample.dataset)
    return histograms, names


def write_previews(run: Run, samples: list[WorkingSample], path: Path, most: int = 4) -> None:
    """A picture with a row for each of some validation photographs: photograph, truth, probability."""
    rows = []
    # Spread over the list, so that every set is seen.
    for index in np.linspace(0, len(samples) - 1, min(most, len(samples))).astype(int):
        maps = (samples[index].vessels, np.round(run.predict(samples[index]) * 255).astype(np.uint8))
        row = np.hstack([samples[index].pixels, *(np.repeat(grey[:, :, None], 3, axis=2) for grey in maps)])
        side = run.model.config.input_size
        rows.append(np.asarray(Image.fromarray(row).resize((3 * side, side))))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, png(np.vstack(rows)))


def _working_samples(rows: Dataset, config: Config, teachers: Sequence[Segmenter] = ()) -> list[WorkingSample]:
    samples = []
    for row in tqdm(rows, desc="reading", disable=None):
        sample = read_sample(row)
        answers = [teacher(sample.image).probability for teacher in teachers]
        samples.append(WorkingSample.of(sample, config, np.mean(answers, axis=0) if answers else None))
    return samples


def _check_same_run(options: TrainingOptions, path: Path) -> None:
    """Refuse to go on with options that would make another run of it, or move eyes between training and validation."""
    try:
        first = TrainingOptions(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"{path} cannot be read ({error}). Start again with another --out.") from error
    changed = [
        f"--{field.name.replace('_', '-')}"
        for field in dataclasses.fields(TrainingOptions)
        if field.name not in MAY_CHANGE and getattr(options, field.name) != getattr(first, field.name)
    ]
    if changed:
        raise TrainingError(
            f"{', '.join(changed)} cannot be changed by --resume: it would be another run. Leave it away, or start "
            "anew with another --out."
        )


def _save(state: dict, path: Path) -> None:
    content = io.BytesIO()
    torch.save(state, content)  # to a file it makes a RuntimeError of its own kind of a full disk
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise type(error)(error.errno, error.strerror, str(path)) from error


def _cut_metrics(path: Path, epochs: int) -> None:
    """Drop what was noted of epochs that the checkpoint does not know."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    write_atomically(path, "".join(line + "\n" for line in lines[:epochs]).encode())


def _cpu_multiplies_bfloat16() -> bool:
    """Whether bfloat16, which needs no loss scaling, takes this CPU half the time of float32, as measured on Zen 4."""
    able = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.8 does not tell
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def _average_with(decay: float):
    # Young averages forget faster, or the random start would linger.
    def average(kept: list[torch.Tensor], new: list[torch.Tensor], count: torch.Tensor | int) -> None:
        share = min(decay, (1 + int(count)) / (10 + int(count)))
        if kept[0].is_floating_point():
            torch._foreach_lerp_(kept, new, 1 - share)  # constants stay what they are
        else:
            torch._foreach_copy_(kept, new)  # of batch normalisation: how many batches it saw

    return average


def _warm_up_and_cosine(steps: int):
    warm_up = max(1, round(0.05 * steps))

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, steps - warm_up))))

    return factor


def _release_name(source: str) -> str:
    """Last part of its path or Hub id; of a run's own `release`, as they all are called, the run's."""
    folder = Path(source).resolve().parent
    return folder.name if Path(source).name == "release" and (folder / OPTIONS_NAME).exists() else short_name(source)


def _fingerprint(*parts: Dataset) -> str:
    """SHA-256 over the photographs and references, in order."""
    digest = hashlib.sha256()
    for rows in parts:
        for row in rows:
            for column in ("image", "mask"):
                digest.update(hashlib.sha256(encoded(row[column])).digest())
    return digest.hexdigest()


def _commit() -> str | None:
    """The commit that trains, where the package runs from a git checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
