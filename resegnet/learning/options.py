"""What a training run depends on besides its data: options and presets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from resegnet.config import PLAIN, Config
from resegnet.errors import TrainingError

# What --resume may give anew. More epochs stretch the schedule from there on; the rest does not touch the weights, but
# `threads` and `device` round differently.
MAY_CHANGE = frozenset({"epochs", "patience", "preview_every", "workers", "threads", "device", "unseen"})

# For a GPU: small steps, and many of them, from random weights.
_PLAIN = {
    "encoder": PLAIN,
    "encoder_weights": "none",
    "input_size": 1664,
    "smallest_input_size": 704,
    "batch_size": 16,
    "epochs": 200,
    "patience": 200,
    "learning_rate": 2e-3,
    "dice_weight": 0.5,
    "centreline_weight": 0.15,
}
_LITE0 = {"encoder": "tu-tf_efficientnet_lite0", "decoder_channels": (96, 64, 48, 32)}

# Named sets of options for `train.py --preset`; the README tells what each brought.
PRESETS: dict[str, dict[str, Any]] = {
    "bundled": {**_PLAIN, "decoder_channels": (192, 128, 64, 32, 16)},
    "teacher": {**_PLAIN, "decoder_channels": (256, 192, 128, 64, 32)},  # for --teacher: too slow to be served
    "lite": {
        **_LITE0,
        "input_size": 1792,
        "smallest_input_size": 640,
        "epochs": 140,
        "patience": 140,
        "centreline_weight": 0.15,
        "weak_augmentation_share": 0.5,
    },
    "laptop": {**_LITE0, "input_size": 640, "epochs": 9},
    # A public notebook's recipe, for comparison: whole pictures; nine steps see DRIVE's training half once.
    "notebook": {
        "encoder_weights": "none",
        "input_size": 512,
        "crop_size": 512,
        "steps_per_epoch": 9,
        "epochs": 50,
        "optimizer": "adam",
        "learning_rate": 1e-4,
        "weight_decay": 0.0,
        "schedule": "plateau",
        "patience": 10,
        "average_decay": 0.0,
    },
}


@dataclass(frozen=True)
class TrainingOptions:
    """All that a training run depends on besides its data; kept in `options.json` of the run's folder."""

    dataset: tuple[str, ...]
    extra: tuple[str, ...] = ()  # sets whose `train` is trained on alone, as vessels that a model labelled
    # Releases whose mean answer is mixed half and half with the references that are trained on.
    teacher: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()  # sets whose `test` is scored at the end, but of which nothing is trained on
    encoder: str = "resnet34"
    encoder_depth: int = 5
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    encoder_weights: str = "imagenet"  # or `none`, or a file with the encoder's tensors
    start_from: str = ""  # a release of that encoder to go on from; `encoder_weights` is then not used
    input_size: int = 768  # px, working size that every field is scaled to
    smallest_input_size: int | None = None  # px; with it, fields between the two are not scaled
    crop_size: int = 320  # px, cut at random from the working size
    batch_size: int = 2
    accumulate: int = 1  # batches of a step: a larger step without more memory
    steps_per_epoch: int = 100
    epochs: int = 40
    optimizer: str = "adamw"  # or `adam`
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    schedule: str = "cosine"  # warm-up and cosine; or `plateau`, ReduceLROnPlateau on validation F1
    patience: int = 15  # epochs without a better validation F1 until training stops
    dice_weight: float = 1.0  # of the Dice loss beside cross-entropy; 0 leaves it out
    centreline_weight: float = 0.0  # of the share of the centre lines that is missed, added to the loss
    freeze_norm: bool = False  # batch normalisation keeps its statistics, which steps of few crops cannot better
    weak_augmentation_share: float = 0.4  # share of the epochs, the last ones, with weak augmentation
    average_decay: float = 0.998  # of the running average of the weights, which is what is kept; 0 turns it off
    # Of the patients. With 0, going on from a release, all are trained on: for the last epochs, when all is chosen.
    validation_fraction: float = 0.15
    seed: int = 0
    preview_every: int = 5  # epochs
    device: str = "cpu"
    # Processes that make crops on the CPU; their number changes none. With 0 they are made on the device that trains.
    workers: int = 0
    threads: int = 0  # of torch on the CPU; 0 leaves torch's own choice

    def __post_init__(self) -> None:
        for name in ("dataset", "extra", "teacher", "unseen", "decoder_channels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.dataset:
            raise TrainingError("No data set was named. Give one or more with --dataset, or `--dataset drawn`.")
        names = [short_name(source) for source in (*self.dataset, *self.extra, *self.unseen)]
        if len(set(names)) < len(names):
            raise TrainingError(
                f"Two data sets go by one name, of {', '.join(names)}. Rename a folder: scores go by it."
            )
        choices = {"optimizer": ("adamw", "adam"), "schedule": ("cosine", "plateau")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise TrainingError(f"--{name} is {getattr(self, name)!r}, expected one of {', '.join(allowed)}.")
        if self.epochs < (0 if self.start_from else 1):
            raise TrainingError(
                f"--epochs is {self.epochs}, expected 1 or more; or 0 with --start-from, which calibrates and scores a "
                "release at other input sizes."
            )
        for name in ("crop_size", "batch_size", "accumulate", "steps_per_epoch", "patience", "preview_every"):
            if getattr(self, name) < 1:
                raise TrainingError(f"--{name.replace('_', '-')} is {getattr(self, name)}, expected 1 or more.")
        for name in ("seed", "workers", "threads", "weight_decay", "learning_rate", "dice_weight", "centreline_weight"):
            if not getattr(self, name) >= 0:
                raise TrainingError(f"--{name.replace('_', '-')} is {getattr(self, name)}, expected 0 or more.")
        for name in ("validation_fraction", "average_decay", "weak_augmentation_share"):
            if not 0 <= getattr(self, name) < 1:
                raise TrainingError(f"--{name.replace('_', '-')} is {getattr(self, name)}, expected a share below 1.")
        if not self.validation_fraction and not (self.start_from and self.epochs and self.schedule == "cosine"):
            raise TrainingError(
                "--validation-fraction is 0, expected more: there is nothing to choose a threshold by. Only with "
                "--start-from RELEASE, whose own is then kept, one epoch or more and --schedule cosine may it be 0."
            )
        self.config()
        smallest = self.smallest_input_size or self.input_size
        if self.crop_size > smallest or self.crop_size % 2**self.encoder_depth:
            raise TrainingError(
                f"--crop-size is {self.crop_size}, expected a multiple of {2**self.encoder_depth} up to the (smallest) "
                f"input size of {smallest}."
            )
        if self.device != "cpu" and not (re.fullmatch(r"cuda(:\d+)?", self.device) and torch.cuda.is_available()):
            raise TrainingError(f"--device is {self.device}, and torch sees no such device here. Use `--device cpu`.")

    def config(self) -> Config:
        """The part that a prediction depends on."""
        # No ImageNet weights ask for theirs; and the 8-bit network then begins with the photograph's own 8 bits.
        none = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
        return Config(
            encoder=self.encoder,
            encoder_depth=self.encoder_depth,
            decoder_channels=self.decoder_channels,
            input_size=self.input_size,
            smallest_input_size=self.smallest_input_size,
            **(none if self.encoder == PLAIN else {}),
        )


def short_name(source: str) -> str:
    """Of a data set or file: the last part of its path or Hub id."""
    return Path(source).name or source
