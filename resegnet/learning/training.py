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
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm import tqdm

from resegnet.config import Config
from resegnet.engine import TorchNetwork
from resegnet.geometry import as_network_input
from resegnet.learning.augment import random_crop, vary_camera
from resegnet.learning.data import (
    Sample,
    check_disjoint,
    encoded,
    is_hub_id,
    load_vessels,
    read_sample,
    split_validation,
)
from resegnet.learning.evaluation import evaluate_dataset, find_second_observer
from resegnet.learning.losses import bce_dice_loss
from resegnet.learning.metrics import fit_threshold, probability_histograms, reliability
from resegnet.model import ReSegNet, round_to_half
from resegnet.release import write_release
from resegnet.results.export import json_bytes, png, write_atomically
from resegnet.segmenter import Segmenter, prepare

logger = logging.getLogger(__name__)

CHECKPOINT_NAME = "checkpoint.pt"
BEST_NAME = "best.pt"
OPTIONS_NAME = "options.json"
METRICS_NAME = "metrics.jsonl"
CALM_STRENGTH = 0.2
CALIBRATION_COUNT = 12  # training photographs, evenly over the sets, that the fast engine's ranges are taken from

# What --resume may give anew. More epochs stretch the schedule from there on; the rest does not touch the weights, but
# `threads` and `device` round differently.
MAY_CHANGE = frozenset({"epochs", "patience", "preview_every", "workers", "threads", "device", "unseen"})


class TrainingError(RuntimeError):
    """Training cannot start or go on; the text says why and what to do."""


@dataclass(frozen=True)
class Options:
    """All that a training run depends on besides its data; kept in `options.json` of the run's folder."""

    dataset: tuple[str, ...]
    extra: tuple[str, ...] = ()  # sets whose `train` is trained on alone, as vessels that a model labelled
    unseen: tuple[str, ...] = ()  # sets whose `test` is scored at the end, but of which nothing is trained on
    encoder: str = "resnet34"
    encoder_depth: int = 5
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    encoder_weights: str = "imagenet"  # or `none`, or a file with the encoder's tensors
    start_from: str = ""  # a release of that encoder to go on from; `encoder_weights` is then not used
    input_size: int = 768  # px, working size that every field is scaled to
    crop_size: int = 320  # px, cut at random from the working size
    batch_size: int = 2
    steps_per_epoch: int = 100
    epochs: int = 40
    optimizer: str = "adamw"  # or `adam`
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    schedule: str = "cosine"  # warm-up and cosine; or `plateau`, ReduceLROnPlateau on validation F1
    patience: int = 15  # epochs without a better validation F1 until training stops
    calm_share: float = 0.4  # of the epochs, the last ones, in which crops are varied little
    average_decay: float = 0.998  # of the running average of the weights, which is what is kept; 0 turns it off
    validation_fraction: float = 0.15  # of the patients
    seed: int = 0
    preview_every: int = 5  # epochs
    device: str = "cpu"
    workers: int = 0  # processes that cut and vary crops; the result does not depend on their number
    threads: int = 0  # of torch on the CPU; 0 leaves torch's own choice

    def __post_init__(self) -> None:
        for name in ("dataset", "extra", "unseen", "decoder_channels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.dataset:
            raise TrainingError("No data set was named. Give one or more with --dataset, or `--dataset drawn`.")
        names = [_short_name(source) for source in (*self.dataset, *self.extra, *self.unseen)]
        if len(set(names)) < len(names):
            raise TrainingError(
                f"Two data sets go by one name, of {', '.join(names)}. Rename a folder: scores go by it."
            )
        choices = {"optimizer": ("adamw", "adam"), "schedule": ("cosine", "plateau")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise TrainingError(f"--{name} is {getattr(self, name)!r}, expected one of {', '.join(allowed)}.")
        for name in ("crop_size", "batch_size", "steps_per_epoch", "epochs", "patience", "preview_every"):
            if getattr(self, name) < 1:
                raise TrainingError(f"--{name.replace('_', '-')} is {getattr(self, name)}, expected 1 or more.")
        for name in ("seed", "workers", "threads", "weight_decay", "learning_rate"):
            if not getattr(self, name) >= 0:
                raise TrainingError(f"--{name.replace('_', '-')} is {getattr(self, name)}, expected 0 or more.")
        for name, low, high in (("validation_fraction", 0, 1), ("average_decay", -1e-9, 1), ("calm_share", -1e-9, 1)):
            if not low < getattr(self, name) < high:
                raise TrainingError(f"--{name.replace('_', '-')} is {getattr(self, name)}, expected a share below 1.")
        self.config()
        if self.crop_size > self.input_size or self.crop_size % 2**self.encoder_depth:
            raise TrainingError(
                f"--crop-size is {self.crop_size}, expected a multiple of {2**self.encoder_depth} up to the input size "
                f"of {self.input_size}."
            )
        if self.device != "cpu" and not (re.fullmatch(r"cuda(:\d+)?", self.device) and torch.cuda.is_available()):
            raise TrainingError(f"--device is {self.device}, and torch sees no such device here. Use `--device cpu`.")

    @property
    def calm_from(self) -> int:
        """The first crop that is varied little."""
        return round((1 - self.calm_share) * self.epochs) * self.steps_per_epoch * self.batch_size

    def config(self) -> Config:
        """The part that a prediction depends on."""
        return Config(
            encoder=self.encoder,
            encoder_depth=self.encoder_depth,
            decoder_channels=self.decoder_channels,
            input_size=self.input_size,
        )


@dataclass(frozen=True)
class WorkingSample:
    """A photograph, its vessels and field at the working size, kept in 8 bit so that a whole set fits into memory.

    `pixels` is (S, S, 3) uint8, the network's input before scaling to [0, 1]; `vessels` and `field` are (S, S) uint8,
    255 for certain, soft at the borders.
    """

    pixels: np.ndarray
    vessels: np.ndarray
    field: np.ndarray
    dataset: str

    @classmethod
    def of(cls, sample: Sample, input_size: int) -> WorkingSample:
        pixels, fov, geometry = prepare(sample.image, input_size)
        soft = [np.round(geometry.to_input(mask) * 255).astype(np.uint8) for mask in (sample.vessels, fov)]
        return cls(pixels, *soft, sample.dataset)

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (3, S, S) and masks (2, S, S: vessels, field), float32 in [0, 1]; the image as prediction feeds it."""
        masks = np.stack([self.vessels, self.field]).astype(np.float32) / np.float32(255)
        return torch.from_numpy(as_network_input(self.pixels)), torch.from_numpy(masks)


class Crops(torch.utils.data.Dataset):
    """An endless row of augmented crops: the crop at a place depends on the seed and the place, on nothing else.

    That is what lets an interrupted run go on exactly, with any number of worker processes. Every third crop is of the
    `extra` photographs, however many there are: enough to see their cameras, and the traced ones keep the word.
    """

    def __init__(
        self,
        samples: list[WorkingSample],
        crop_size: int,
        seed: int,
        calm_from: int | None = None,
        extra: Sequence[WorkingSample] = (),
    ) -> None:
        self.samples = samples
        self.extra = extra
        self.crop_size = crop_size
        self.seed = seed
        self.calm_from = calm_from

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        samples, turn = self.samples, place
        if self.extra:
            turn, third = divmod(place, 3)
            samples, turn = (self.extra, turn) if third == 2 else (self.samples, 2 * turn + third)
        passed, position = divmod(turn, len(samples))
        order = np.random.default_rng((self.seed, 0, passed)).permutation(len(samples))
        image, masks = samples[order[position]].tensors()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.default_rng((self.seed, 1, place)).integers(2**63)))
            # Strong variation teaches what holds on any camera, but also blurs what tells cameras, and so their
            # annotators, apart; the last epochs see photographs nearly as they are.
            strength = 1.0 if self.calm_from is None or place < self.calm_from else CALM_STRENGTH
            image, masks = random_crop(image, masks, self.crop_size, strength)
            return vary_camera(image, strength), masks


class Run:
    """State of a training run: all that a checkpoint holds, and the steps that change it."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.model = ReSegNet(options.config())
        self.model.to(self.device, memory_format=torch.channels_last)
        self.average = AveragedModel(self.model, avg_fn=_average_with(options.average_decay), use_buffers=True)
        make = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
        self.optimizer = make(self.model.parameters(), options.learning_rate, weight_decay=options.weight_decay)
        if options.schedule == "cosine":
            self.schedule = torch.optim.lr_scheduler.LambdaLR(
                self.optimizer, _warm_up_and_cosine(options.epochs * options.steps_per_epoch)
            )
        else:
            self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer, "max", factor=0.5, patience=3)
        # bfloat16 needs no loss scaling; on the CPU it is slower than float32.
        self.autocast = torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda")
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
        }

    def load_state(self, state: dict) -> None:
        """Go back to what `state` gave."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["generator"].cpu())
        self.epoch, self.best_f1, self.best_epoch = state["epoch"], state["best_f1"], state["best_epoch"]

    def train_epoch(self, samples: list[WorkingSample], extra: Sequence[WorkingSample] = ()) -> dict[str, float]:
        """One epoch of steps; gives its mean loss and its rates."""
        options = self.options
        first = self.epoch * options.steps_per_epoch * options.batch_size
        loader = DataLoader(
            Crops(samples, options.crop_size, options.seed, options.calm_from, extra),
            batch_size=options.batch_size,
            sampler=range(first, first + options.steps_per_epoch * options.batch_size),
            num_workers=options.workers,
            pin_memory=self.device.type == "cuda",
        )
        self.model.train()
        losses, waited, started = [], 0.0, time.perf_counter()
        asked = started
        steps = tqdm(loader, desc=f"epoch {self.epoch + 1}/{options.epochs}", unit="step", leave=False, disable=None)
        for image, masks in steps:
            waited += time.perf_counter() - asked
            image = image.to(self.device, memory_format=torch.channels_last, non_blocking=True)
            masks = masks.to(self.device, non_blocking=True)
            with self.autocast:
                logits = self.model(image)
            loss = bce_dice_loss(logits.float(), masks[:, :1], masks[:, 1:])
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"The loss is {loss.item()} in epoch {self.epoch + 1}. Try a lower --learning-rate than "
                    f"{options.learning_rate}; the last checkpoint is kept."
                )
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            if options.schedule == "cosine":
                self.schedule.step()
            self.average.update_parameters(self.model)
            losses.append(loss.item())
            steps.set_postfix(loss=f"{np.mean(losses[-20:]):.3f}")
            asked = time.perf_counter()
        seconds = time.perf_counter() - started
        self.epoch += 1
        return {
            "loss": float(np.mean(losses)),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": round(seconds, 2),
            "waited_for_data": round(waited / seconds, 4),
        }

    def validate(self, samples: list[WorkingSample]) -> dict[str, float]:
        """F1 at the working size of the averaged weights, at the best threshold: mean over the sets, and each set's."""
        histograms = [
            probability_histograms(self.predict(sample), sample.vessels > 127, sample.field > 127) for sample in samples
        ]
        names = [sample.dataset for sample in samples]
        _, f1 = fit_threshold(histograms, names)
        scores = {"validation_f1": f1}
        for name in sorted(set(names)):
            own = [histogram for histogram, owner in zip(histograms, names, strict=True) if owner == name]
            scores[f"validation_f1_{name}"] = fit_threshold(own)[1]
        if self.options.schedule == "plateau":
            self.schedule.step(f1)
        if f1 > self.best_f1:
            self.best_f1, self.best_epoch = f1, self.epoch
        return {name: round(value, 5) for name, value in scores.items()}

    def predict(self, sample: WorkingSample) -> np.ndarray:
        """Probability (S, S) float32 of a photograph, by the averaged weights."""
        return TorchNetwork(self.average.module)(as_network_input(sample.pixels)[None])[0]


def train(options: Options, out: Path, resume: bool = False) -> Path:
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
    out.mkdir(parents=True, exist_ok=True)
    if options.threads:
        torch.set_num_threads(options.threads)

    torch.manual_seed(options.seed)
    run = Run(options)

    photographs = load_vessels(options.dataset, "train")
    # Loaded and checked before the long work, not after it.
    tests = {_short_name(source): load_vessels(source, "test") for source in (*options.dataset, *options.unseen)}
    labelled = load_vessels(options.extra, "train") if options.extra else photographs.select([])
    check_disjoint(photographs, tests)
    check_disjoint(labelled, tests)
    chosen, kept_back = split_validation(photographs, options.validation_fraction, options.seed)
    logger.info("%d photographs to train on, %d to validate on", len(chosen), len(kept_back))
    train_samples, validation_samples, extra_samples = (
        [WorkingSample.of(read_sample(row), options.input_size) for row in tqdm(rows, desc="reading", disable=None)]
        for rows in (chosen, kept_back, labelled)
    )
    if resume:
        run.load_state(torch.load(checkpoint, map_location=run.device, weights_only=True))
        _cut_metrics(out / METRICS_NAME, run.epoch)
        logger.info("going on after epoch %d", run.epoch)
    else:
        if options.start_from:
            load_release(run.model, options.start_from)
        else:
            load_encoder_weights(run.model, options.encoder_weights)
        run.average.module.load_state_dict(run.model.state_dict())
    # Before the first checkpoint, which --resume asks for, and when resuming too: what was given anew, as more epochs,
    # has to hold for the next --resume.
    write_atomically(out / OPTIONS_NAME, json_bytes(dataclasses.asdict(options)))
    if not resume:
        _save(run.state(), checkpoint)
    while not run.finished:
        record = {
            "epoch": run.epoch + 1,
            **run.train_epoch(train_samples, extra_samples),
            **run.validate(validation_samples),
        }
        if run.best_epoch == run.epoch:
            _save(run.average.module.state_dict(), out / BEST_NAME)
        with (out / METRICS_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if run.epoch % options.preview_every == 0:
            write_previews(run, validation_samples, out / "previews" / f"epoch_{run.epoch:04d}.png")
        _save(run.state(), checkpoint)
        logger.info(
            "epoch %d: loss %.4f, validation F1 %.4f (best %.4f in epoch %d), %.0f s",
            run.epoch, record["loss"], record["validation_f1"], run.best_f1, run.best_epoch, record["seconds"],
        )  # fmt: skip
    places = np.linspace(0, len(train_samples) - 1, min(CALIBRATION_COUNT, len(train_samples))).astype(int)
    shown = [train_samples[place].pixels for place in places]
    return finish(run, out, chosen, kept_back, labelled, tests, shown)


def finish(
    run: Run,
    out: Path,
    chosen: Dataset,
    kept_back: Dataset,
    labelled: Dataset,
    tests: Mapping[str, Dataset],
    shown: Sequence[np.ndarray],
) -> Path:
    """Take the best epoch, fit the threshold on validation eyes at original size, score `test`, write the release."""
    options = run.options
    model = run.average.module
    model.load_state_dict(torch.load(out / BEST_NAME, map_location=run.device, weights_only=True))
    round_to_half(model)  # as the release stores it, so that what is fitted and scored here is what people get
    threshold, validation_f1, calibration = fit_operating_point(model, kept_back)
    logger.info("threshold %.4f, validation F1 %.4f at original size", threshold, validation_f1)
    model.config = dataclasses.replace(model.config, threshold=min(max(round(threshold, 4), 1e-4), 1 - 1e-4))
    # By name: where files lay on the machine that trained is nobody's business, and the record is published.
    by_name = {
        "dataset": [_short_name(source) for source in options.dataset],
        "extra": [_short_name(source) for source in options.extra],
        "unseen": [_short_name(source) for source in options.unseen],
        "encoder_weights": _short_name(options.encoder_weights),
        "start_from": _short_name(options.start_from),
    }
    training = {
        "options": dataclasses.asdict(options) | by_name,
        "hub_datasets": [source for source in options.dataset if is_hub_id(source)],
        "epochs_run": run.epoch,
        "best_epoch": run.best_epoch,
        "validation_f1": validation_f1,
        "validation_reliability": calibration,
        "threshold_fitted_on": "validation photographs at original size: highest mean of the sets' pooled F1",
        "train_ids": list(chosen["image_id"]),
        "validation_ids": list(kept_back["image_id"]),
        "labelled_ids": list(labelled["image_id"]),
        "data_sha256": _fingerprint(chosen, kept_back, labelled),
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "machine": platform.machine(),
            "device": options.device,
            "commit": _commit(),
        },
    }
    segmenter = Segmenter(TorchNetwork(model), model.config)
    observers = {_short_name(source): find_second_observer(source) for source in (*options.dataset, *options.unseen)}
    metrics = {name: evaluate_dataset(segmenter, rows, second_observer=observers[name]) for name, rows in tests.items()}
    return write_release(model, training, metrics, out / "release", shown)


def fit_operating_point(model: ReSegNet, kept_back: Dataset) -> tuple[float, float, dict[str, Any]]:
    """Threshold of the highest mean F1 over the sets, at original size inside each set's field; F1; reliability."""
    segmenter = Segmenter(TorchNetwork(model), model.config)
    histograms, names = [], []
    for row in tqdm(kept_back, desc="fitting the threshold", disable=None):
        sample = read_sample(row)
        result = segmenter(sample.image)
        field = result.fov if sample.fov is None else sample.fov
        histograms.append(probability_histograms(result.probability * result.fov, sample.vessels, field))
        names.append(sample.dataset)
    return *fit_threshold(histograms, names), reliability(histograms, names)


def load_release(model: ReSegNet, source: str) -> None:
    """Take over the weights of a release (folder or Hub id) of the same encoder.

    What of the decoder has another shape there, or is not there, starts from random weights, and the log tells it.

    Raises
    ------
    TrainingError
        If it cannot be had or is of another encoder.
    """
    try:
        donor = ReSegNet.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise TrainingError(f"--start-from {source}: {_first_line(error)}") from error
    own, given = model.state_dict(), donor.state_dict()
    fit = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    left = [name for name in own if name not in fit]
    if donor.config.encoder != model.config.encoder or any(name.startswith("net.encoder.") for name in left):
        raise TrainingError(
            f"--start-from {source}: its encoder is {donor.config.encoder} of depth {donor.config.encoder_depth}, this "
            f"run's {model.config.encoder} of depth {model.config.encoder_depth}. Give a release of the same encoder."
        )
    model.load_state_dict(own | fit)
    if left:
        logger.info("%d of %d tensors start from random weights, %s first", len(left), len(own), left[0])


def load_encoder_weights(model: ReSegNet, source: str) -> None:
    """Start the encoder from `imagenet` (smp's, from the Hub), `none` (random) or a file of tensors.

    A file (safetensors, or a .pth that holds tensors only) is matched by name, a .pth else in order: weights of one
    network go by different names in different collections. Every shape has to fit, and every tensor of the encoder
    gets one.

    Raises
    ------
    TrainingError
        If the weights cannot be had or do not fit.
    """
    config = model.config
    if source == "none":
        return
    if source == "imagenet":
        import segmentation_models_pytorch as smp

        try:
            # smp takes True for the encoders that come from timm, and warns of any name.
            weights = True if config.encoder.startswith("tu-") else "imagenet"
            donor = smp.encoders.get_encoder(config.encoder, depth=config.encoder_depth, weights=weights)
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise TrainingError(
                f"ImageNet weights for {config.encoder} cannot be had ({_first_line(error)}). Connect to the "
                "Hub, give a file with --encoder-weights FILE, or start from random weights: --encoder-weights none."
            ) from error
        model.net.encoder.load_state_dict(donor.state_dict())
        return
    path = Path(source)
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise many kinds for a bad file
        raise TrainingError(
            f"--encoder-weights {source}: cannot be read ({_first_line(error)}). Expected `imagenet`, `none`, "
            "or a file of tensors."
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise TrainingError(f"--encoder-weights {source}: holds more than tensors by name. Save a plain state_dict.")
    own = model.net.encoder.state_dict()
    if not set(own) <= set(tensors) and path.suffix != ".safetensors":  # which keeps no order
        tensors = dict(zip(own, tensors.values(), strict=False))
    unfit = [name for name in own if name not in tensors or tensors[name].shape != own[name].shape]
    if unfit:
        raise TrainingError(
            f"--encoder-weights {source}: {len(unfit)} of {len(own)} tensors of {config.encoder} are missing or of "
            f"another shape, {unfit[0]} first. Give a file that belongs to this encoder."
        )
    model.net.encoder.load_state_dict({name: tensors[name] for name in own})


def write_previews(run: Run, samples: list[WorkingSample], path: Path, most: int = 4) -> None:
    """A picture with a row for each of some validation photographs: photograph, truth, probability."""
    rows = []
    # Spread over the list, so that every set is seen.
    for index in np.linspace(0, len(samples) - 1, min(most, len(samples))).astype(int):
        maps = (samples[index].vessels, np.round(run.predict(samples[index]) * 255).astype(np.uint8))
        rows.append(np.hstack([samples[index].pixels, *(np.repeat(grey[:, :, None], 3, axis=2) for grey in maps)]))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, png(np.vstack(rows)))


def _check_same_run(options: Options, path: Path) -> None:
    """Refuse to go on with options that would make another run of it, or move eyes between training and validation."""
    try:
        first = Options(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"{path} cannot be read ({error}). Start again with another --out.") from error
    changed = [
        f"--{field.name.replace('_', '-')}"
        for field in dataclasses.fields(Options)
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


def _average_with(decay: float):
    # Young averages forget faster, or the random start would linger.
    def average(kept: torch.Tensor, new: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
        share = min(decay, (1 + int(count)) / (10 + int(count)))
        return kept + (new - kept) * (1 - share)  # so written, constants stay what they are

    return average


def _warm_up_and_cosine(steps: int):
    warm_up = max(1, round(0.05 * steps))

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, steps - warm_up))))

    return factor


def _fingerprint(*parts: Dataset) -> str:
    """SHA-256 over the photographs and tracings, in order."""
    digest = hashlib.sha256()
    for rows in parts:
        for row in rows:
            for column in ("image", "mask"):
                digest.update(hashlib.sha256(encoded(row[column])).digest())
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _short_name(source: str) -> str:
    return Path(source).name or source


def _commit() -> str | None:
    """The commit that trains, where the package runs from a git checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
