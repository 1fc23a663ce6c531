"""Options of a training run, and the presets of `train.py`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from resegnet.config import PLAIN, TWO_LOOKS, Config
from resegnet.errors import TrainingError
from resegnet.model import is_usable

# Options that --resume accepts with another value. `epochs` stretches the schedule from there on, and `detail_epochs`
# counts back from its end. The others do not change what is trained, with two exceptions: `threads` and `device` change
# the rounding, and `device`, on a GPU also `workers`, the noise of the crops.
MAY_CHANGE = frozenset(
    {
        *("epochs", "patience", "preview_every", "workers", "threads", "device"),
        *("unseen", "detail_epochs", "stress_photographs", "eye_fingerprints", "track", "track_space"),
    }
)

# Many small steps, on two CPU threads.
_TWO_LOOKS: dict[str, Any] = {
    "encoder": TWO_LOOKS,
    "encoder_weights": "imagenet",
    "decoder_channels": (192, 128, 64, 32, 16),
    "context_size": 640,
    "context_encoder": "tu-tf_efficientnet_lite0",
    "context_channels": (96, 64, 48, 32),
    "input_size": 1664,
    "smallest_input_size": 704,
    "crop_size": 256,
    "context_crop_size": 256,
    "batch_size": 4,
    "steps_per_epoch": 50,
    "weak_augmentation_share": 0.6,
    "validate_every": 40,
    "preview_every": 40,
    "learning_rate": 2e-3,
    "dice_weight": 0.5,
    "centreline_weight": 0.15,
}
# For a GPU: many small steps from random weights.
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

# Named sets of options for `train.py --preset`.
PRESETS: dict[str, dict[str, Any]] = {
    # One run from ImageNet weights: the context branch alone, which then labels kinds; both branches; the detail alone.
    "two-looks": {
        **_TWO_LOOKS,
        "self_training": True,
        "context_crop_size": 384,
        "epochs": 530,
        "patience": 530,
        "context_epochs": 100,
        "detail_epochs": 380,
    },
    # From the model of the package, whose statistics of batch normalisation are better than those of small batches.
    "bundled": {
        **_TWO_LOOKS,
        "start_from": "bundled",
        "self_training": True,
        "freeze_norm": True,
        "context_crop_size": 640,  # the whole field, as in a prediction
        "epochs": 39,
        "patience": 39,
        "context_epochs": 18,
        "detail_epochs": 20,
        "validate_every": 19,
        "learning_rate": 8e-4,
        "preview_every": 100,
    },
    "plain": {**_PLAIN, "decoder_channels": (192, 128, 64, 32, 16)},
    "teacher": {**_PLAIN, "decoder_channels": (256, 192, 128, 64, 32)},  # for --teacher: too slow for everyday use
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
    # The recipe of a public notebook, for comparison. Its crops are whole pictures, so nine steps see DRIVE's training
    # half once.
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


T = TypeVar("T")


def _option(default: T, help: str, metavar: str | None = None, choices: tuple[str, ...] = ()) -> T:
    """Return a dataclass field that carries the help text of its command-line option."""
    return field(default=default, metadata={"help": help, "metavar": metavar, "choices": choices})


@dataclass(frozen=True)
class TrainingOptions:
    """Everything that a training run depends on besides its data. A run keeps it in `options.json`.

    `train.py` makes one command-line option of each field.

    Raises
    ------
    TrainingError
        If a value is outside its range, or values contradict each other.
    ConfigError
        If no network can be built from them.
    """

    dataset: tuple[str, ...] = _option(
        (), "data sets: Hub ids, image folders, Parquet, the public layout, or `synthetic`", "SOURCE"
    )
    extra: tuple[str, ...] = _option((), "data sets that `resegnet label` made, used for training only", "SOURCE")
    teacher: tuple[str, ...] = _option(
        (), "releases whose mean probability is mixed half and half into the references", "RELEASE"
    )
    unseen: tuple[str, ...] = _option((), "data sets that are scored at the end but not trained on", "SOURCE")
    anatomy: tuple[str, ...] = _option(
        (), "image folders with optic discs, or centres of disc and fovea, for `two-looks`", "FOLDER"
    )
    encoder: str = _option(
        "resnet34",
        "encoder of segmentation_models_pytorch, tu-NAME for one of timm, or ReSegNet's own `plain` or `two-looks`",
    )
    encoder_depth: int = _option(5, "number of stages of the encoder")
    decoder_channels: tuple[int, ...] = _option((256, 128, 64, 32, 16), "channels of the decoder, coarse to fine", "N")
    encoder_weights: str = _option("imagenet", "`imagenet` (from the Hub), `none` (random) or a file of tensors")
    start_from: str = _option(
        "", "parent release to fine-tune, with the same encoder, in place of --encoder-weights", "RELEASE"
    )
    detail_from: str = _option(
        "", "release of `plain` whose weights the detail branch of `two-looks` starts from", "RELEASE"
    )
    self_training: bool = _option(
        False,
        "photographs whose arteries and veins no person labelled learn from what the release of --start-from predicts "
        "for them, or without it the run itself after --context-epochs",
    )
    input_size: int = _option(768, "side of the square that the field of view is scaled to, in pixels", "PX")
    smallest_input_size: int | None = _option(
        None, "do not scale a field of view between this side and --input-size, in pixels", "PX"
    )
    context_size: int | None = _option(
        None,
        "side of the square that the whole field of view is scaled to for the context branch of `two-looks`, in pixels",
        "PX",
    )
    context_encoder: str = _option(
        "", "encoder of the context branch, named as for --encoder; without one, residual blocks"
    )
    context_channels: tuple[int, ...] = _option((), "channels of the context branch, coarse to fine", "N")
    crop_size: int = _option(320, "side of a training crop at the working size, in pixels", "PX")
    context_crop_size: int = _option(256, "side of a training crop of the context branch, in pixels", "PX")
    batch_size: int = _option(2, "number of crops in a batch")
    accumulate: int = _option(1, "number of batches in a step, to take larger steps without more memory")
    steps_per_epoch: int = _option(100, "number of steps between two checkpoints")
    validate_every: int = _option(1, "number of epochs between two validations; the last epoch is always validated")
    epochs: int = _option(40, "largest number of epochs; 0 only calibrates and scores the release of --start-from")
    optimizer: str = _option("adamw", "optimizer", choices=("adamw", "adam"))
    learning_rate: float = _option(1e-3, "highest learning rate")
    weight_decay: float = _option(1e-2, "weight decay")
    schedule: str = _option(
        "cosine",
        "learning rate: warm-up and cosine, or halved when the validation score does not improve",
        choices=("cosine", "plateau"),
    )
    patience: int = _option(15, "number of epochs without a better validation score after which training stops")
    dice_weight: float = _option(1.0, "weight of the Dice loss beside cross-entropy")
    centreline_weight: float = _option(0.0, "weight in the loss of the share of centrelines that is missed")
    # Batches of a few crops estimate the statistics of batch normalisation worse than a long run did.
    freeze_norm: bool = _option(False, "keep the statistics of batch normalisation that the run starts with")
    weak_augmentation_share: float = _option(
        0.4, "share of the epochs, the last ones, in which most crops are augmented weakly", "SHARE"
    )
    context_epochs: int = _option(
        0,
        "of a network of two looks: number of epochs, the first ones, in which only the context branch learns",
    )
    detail_epochs: int = _option(
        0,
        "of a network of two looks: number of epochs, the last ones, in which the context branch is kept as it is and "
        "only the detail branch learns, in less than half of the time",
    )
    average_decay: float = _option(0.998, "decay of the running average of the weights; 0 turns averaging off")
    validation_fraction: float = _option(
        0.15,
        "share of the patients kept for validation; 0, with --start-from, trains on all and keeps the calibration",
        "SHARE",
    )
    patient_pattern: str = _option(
        "",
        "regular expression for the names of files or, failing that, image_ids: its first group is the patient",
        "REGEX",
    )
    # Not by default: the vessels of an eye are as individual as a fingerprint, and releases are published.
    eye_fingerprints: bool = _option(
        False, "write coarse maps of the vessels, by which later runs recognise these eyes, to training.json"
    )
    choose_by: str = _option(
        "f1-and-stress",
        "score that the best epoch is chosen by: validation F1, or its mean with that of degraded photographs",
        choices=("f1-and-stress", "f1"),
    )
    stress_photographs: int = _option(
        20,
        "number of `test` photographs of each data set, of at most 1.5 megapixels, that the release is scored on also "
        "enlarged, softened, darkened and so on; 0 for none",
    )
    seed: int = _option(0, "seed of the weights, the validation split and the augmentation")
    preview_every: int = _option(5, "number of epochs between preview pictures")
    track: str = _option("", "project of a trackio dashboard that shows the curves; `trackio show` opens it")
    track_space: str = _option("", "Space on the Hugging Face Hub for that dashboard, in place of this machine")
    device: str = _option("cpu", "device of torch: cpu, cuda or cuda:N")
    workers: int = _option(0, "number of processes that make crops on the CPU; 0 makes them on the training device")
    threads: int = _option(0, "number of CPU threads of torch; 0 lets torch choose")

    def __post_init__(self) -> None:
        # JSON and argparse give lists.
        for name in ("dataset", "extra", "teacher", "unseen", "anatomy", "decoder_channels", "context_channels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_names()
        self._check_ranges()
        self._check_validation()
        self.config()
        self._check_crop_size()
        self._check_context()
        if not is_usable(self.device):
            raise TrainingError(f"--device is {self.device}, and torch sees no such device here. Use `--device cpu`.")

    def _check_names(self) -> None:
        if not self.dataset:
            raise TrainingError("No data set was named. Give one or more with --dataset, or `--dataset synthetic`.")
        try:
            re.compile(self.patient_pattern)
        except re.error as error:
            raise TrainingError(
                f"--patient-pattern {self.patient_pattern} is no regular expression ({error}). An example: ^(\\d+)_"
            ) from error
        if self.track_space and not self.track:
            raise TrainingError("--track-space needs --track, the project of the dashboard: add it.")
        names = [short_name(source) for source in (*self.dataset, *self.extra, *self.unseen)]
        if len(set(names)) < len(names):
            raise TrainingError(
                f"Two data sets have one name, among {', '.join(names)}. Rename a folder: scores are listed by name."
            )

    def _check_ranges(self) -> None:
        for name, option in self.__dataclass_fields__.items():
            choices = option.metadata["choices"]
            if choices and getattr(self, name) not in choices:
                raise TrainingError(
                    f"{option_name(name)} is {getattr(self, name)!r}, expected one of {', '.join(choices)}."
                )
        if self.epochs < (0 if self.start_from else 1):
            raise TrainingError(
                f"--epochs is {self.epochs}, expected 1 or more; or 0 with --start-from, which calibrates and scores a "
                "release at other input sizes."
            )
        positive = ("crop_size", "context_crop_size", "batch_size", "accumulate", "steps_per_epoch")
        for name in (*positive, "patience", "preview_every", "validate_every"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{option_name(name)} is {getattr(self, name)}, expected 1 or more.")
        if self.patience < min(self.validate_every, self.epochs):
            raise TrainingError(
                f"--patience is {self.patience}, expected {self.validate_every} (--validate-every) or more: the run "
                "would stop before an epoch is scored."
            )
        at_least_0 = ("seed", "workers", "threads", "stress_photographs", "detail_epochs", "context_epochs")
        for name in (*at_least_0, "weight_decay", "learning_rate", "dice_weight", "centreline_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TrainingError(f"{option_name(name)} is {getattr(self, name)}, expected 0 or more.")
        for name, most in (("threads", 1024), ("workers", 1024), ("seed", 2**63 - 1)):
            if getattr(self, name) > most:
                raise TrainingError(f"{option_name(name)} is {getattr(self, name)}, expected at most {most}.")
        for name in ("validation_fraction", "average_decay", "weak_augmentation_share"):
            if not 0 <= getattr(self, name) < 1:
                raise TrainingError(f"{option_name(name)} is {getattr(self, name)}, expected a share below 1.")

    def _check_validation(self) -> None:
        if not self.validation_fraction and not (self.start_from and self.epochs and self.schedule == "cosine"):
            raise TrainingError(
                "--validation-fraction is 0, expected more: there is nothing to choose a threshold by. It may be 0 "
                "only with --start-from RELEASE, whose threshold is then kept, one epoch or more, and --schedule "
                "cosine."
            )
        if not self.validation_fraction and self.detail_from:
            raise TrainingError(
                "--validation-fraction is 0, and --detail-from gives weights that the threshold of --start-from does "
                "not fit: leave one of them out."
            )

    def _check_crop_size(self) -> None:
        smallest, step = self.smallest_input_size or self.input_size, 2**self.encoder_depth
        if self.crop_size > smallest or self.crop_size % step:
            raise TrainingError(
                f"--crop-size is {self.crop_size}, expected a multiple of {step} up to the (smallest) input size of "
                f"{smallest}."
            )

    def _check_context(self) -> None:
        if self.context_size is None:
            for name in ("anatomy", "detail_from", "self_training", "context_epochs", "detail_epochs"):
                if getattr(self, name):
                    raise TrainingError(
                        f"{option_name(name)} needs a network of two looks: use --preset two-looks, or leave it out."
                    )
            return
        if self.self_training and not (self.start_from or self.context_epochs):
            raise TrainingError(
                "--self-training needs a network that tells arteries from veins: give --start-from RELEASE, or "
                "--context-epochs, after which the run tells them itself."
            )
        if self.context_epochs and 0 < self.epochs <= self.context_epochs + self.detail_epochs:
            raise TrainingError(
                f"--context-epochs and --detail-epochs are {self.context_epochs} and {self.detail_epochs}, expected "
                f"fewer than the {self.epochs} of --epochs together: in between, both branches learn."
            )
        if 0 < self.epochs <= self.detail_epochs and not self.start_from:
            raise TrainingError(
                f"--detail-epochs is {self.detail_epochs}, expected fewer than the {self.epochs} of --epochs: the "
                "context branch would never learn."
            )
        step = self.config().context_step
        if self.context_crop_size > self.context_size or self.context_crop_size % step:
            raise TrainingError(
                f"--context-crop-size is {self.context_crop_size}, expected a multiple of {step} up to the "
                f"context size of {self.context_size}."
            )
        if self.extra:
            raise TrainingError("--extra cannot be used with a network of two looks: leave it out.")

    def config(self) -> Config:
        """Return the configuration of the network: the options that a prediction depends on.

        Raises
        ------
        ConfigError
            If no network can be built from them.
        """
        # Only ImageNet weights expect ImageNet's normalisation. Without it, the 8-bit ONNX network takes the
        # photograph's own 8 bits.
        plain: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
        return Config(
            encoder=self.encoder,
            encoder_depth=self.encoder_depth,
            decoder_channels=self.decoder_channels,
            input_size=self.input_size,
            smallest_input_size=self.smallest_input_size,
            context_size=self.context_size,
            context_encoder=self.context_encoder or None,
            context_channels=self.context_channels,
            **(plain if self.encoder in (PLAIN, TWO_LOOKS) else {}),
        )


def option_name(field_name: str) -> str:
    """Return the command-line option of a field."""
    return f"--{field_name.replace('_', '-')}"


def short_name(source: str) -> str:
    """Return the last part of a path or Hub id."""
    return Path(source).name or source
