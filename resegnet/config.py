"""Everything, besides the weights, that a prediction depends on."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

FORMAT_VERSION = 1


class ConfigError(ValueError):
    """A configuration that no ReSegNet can be built from; the text says what to change."""


@dataclass(frozen=True)
class Config:
    """What `config.json` beside `model.safetensors` holds. It alone rebuilds the network and the line round it.

    Raises
    ------
    ConfigError
        If a value has the wrong type or lies outside its range.
    """

    format_version: int = FORMAT_VERSION
    encoder: str = "resnet34"  # a name that segmentation_models_pytorch knows; `tu-` names come from timm
    encoder_depth: int = 5  # stages of the encoder, each halves the picture
    # Coarse to fine, one for each stage. With one fewer, the last step to full size is a pixel shuffle, not a stage.
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    input_size: int = 768  # px, side of the square that the field of view is scaled to
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of RGB in [0, 1]; ImageNet's
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    threshold: float = 0.5  # fitted on validation eyes at the end of training

    def __post_init__(self) -> None:
        for name in ("decoder_channels", "mean", "std"):  # JSON brings lists
            value = getattr(self, name)
            if not isinstance(value, list | tuple):
                raise ConfigError(f"config: {name} is {value!r}, expected a list of numbers.")
            object.__setattr__(self, name, tuple(value))
        if self.format_version != FORMAT_VERSION:
            raise ConfigError(
                f"config: format_version is {self.format_version!r}, this package reads {FORMAT_VERSION}. "
                "Upgrade with `pip install --upgrade resegnet`, or load an older revision of the model."
            )
        _check(isinstance(self.encoder, str) and self.encoder != "", "encoder", self.encoder, "a name")
        _check(_whole(self.encoder_depth, 3, 5), "encoder_depth", self.encoder_depth, "3, 4 or 5")
        _check(
            len(self.decoder_channels) in (self.encoder_depth, self.encoder_depth - 1)
            and all(_whole(c, 1, 4096) for c in self.decoder_channels),
            "decoder_channels",
            self.decoder_channels,
            f"{self.encoder_depth} whole numbers from 1 to 4096, one for each encoder stage, or one fewer",
        )
        step = 2**self.encoder_depth
        _check(
            _whole(self.input_size, 64, 4096) and self.input_size % step == 0,
            "input_size",
            self.input_size,
            f"a multiple of {step} from 64 to 4096",
        )
        _check(len(self.mean) == 3 and all(map(_finite, self.mean)), "mean", self.mean, "three numbers")
        _check(
            len(self.std) == 3 and all(_finite(s) and s > 0 for s in self.std),
            "std",
            self.std,
            "three positive numbers",
        )
        _check(_finite(self.threshold) and 0 < self.threshold < 1, "threshold", self.threshold, "a number in (0, 1)")

    @classmethod
    def from_dict(cls, values: object) -> Config:
        """Build from plain values; a missing or unknown key is refused, since it would change a prediction unseen.

        Raises
        ------
        ConfigError
            If `values` is not such a mapping, or a value is unusable.
        """
        if not isinstance(values, dict):
            raise ConfigError(f"config: got {type(values).__name__}, expected an object of named values.")
        # The version first: a newer format may have other keys, and the remedy is then an upgrade.
        if values.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
            cls(format_version=values["format_version"])
        expected = {field.name for field in dataclasses.fields(cls)}
        unknown, missing = sorted(set(values) - expected), sorted(expected - set(values))
        if unknown or missing:
            raise ConfigError(
                f"config: unknown keys {unknown}, missing keys {missing}; this is not the config.json of a ReSegNet "
                f"release of format {FORMAT_VERSION}."
            )
        return cls(**values)

    @classmethod
    def load(cls, path: str | Path) -> Config:
        """Read a `config.json`.

        Raises
        ------
        ConfigError
            If the file cannot be read, is no JSON, or holds an unusable value.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: cannot be read as JSON ({error}); expected a ReSegNet config.json.") from error
        return cls.from_dict(values)

    def to_json(self) -> str:
        """The text of `config.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def _check(good: bool, name: str, value: object, expected: str) -> None:
    if not good:
        raise ConfigError(f"config: {name} is {value!r}, expected {expected}.")


def _whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
