"""The configuration of a release: everything, besides the weights, that a prediction depends on."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resegnet.errors import ConfigError, first_line, short_repr
from resegnet.io import read_json

FORMAT_VERSION = 2
# Keys that version 2 added, with the values that a file of version 1 stands for.
_ADDED_KEYS: dict[str, Any] = {"context_size": None, "context_encoder": None, "context_channels": ()}
PLAIN = "plain"  # the `encoder` that stands for `resegnet.unet.PlainUNet`
TWO_LOOKS = "two-looks"  # the `encoder` that stands for `resegnet.two_looks.TwoLooks`
ANATOMY = ("artery", "vein", "disc", "fovea")  # what two looks find besides the vessels, in this order
_ENCODER = re.compile(r"[\w.-]{1,100}", re.ASCII)  # excludes "hf-hub:user/name", which timm would download


@dataclass(frozen=True)
class Config:
    """The content of `config.json` beside `model.safetensors`; with the weights it is all that a prediction needs.

    Attributes
    ----------
    format_version
        Version of the format of the file.
    encoder
        Name of an encoder that `segmentation_models_pytorch` knows (names with `tu-` come from timm), `PLAIN` or
        `TWO_LOOKS`.
    encoder_depth
        Number of stages of the encoder, each of which halves the picture; or of levels of the plain network, or of the
        detail branch of two looks.
    decoder_channels
        Number of channels of each stage of the decoder, coarse to fine. With one fewer than `encoder_depth`, the last
        step to full size is a pixel shuffle instead of a stage.
    input_size
        Side of the square to which the field of view is scaled, px.
    smallest_input_size
        If given, a field of view between this and `input_size` is not scaled: the square is cut out of the photograph,
        pixel for pixel. px.
    mean, std
        Normalisation of RGB in [0, 1]; the default is ImageNet's.
    threshold
        Probability from which a pixel is a vessel. Training fits it on validation photographs.
    context_size
        Side of the square to which the whole field of view is scaled for the context branch, px. None without two
        looks.
    context_encoder
        Name of the encoder of the context branch, as `encoder` names those of `segmentation_models_pytorch`. None for
        residual blocks, or without two looks.
    context_channels
        Number of channels of each level of the context branch, coarse to fine; with an encoder, of each level of the
        decoder, the last at half of the side. Empty without two looks.

    Raises
    ------
    ConfigError
        If a value has the wrong type or lies outside its range.
    """

    format_version: int = FORMAT_VERSION
    encoder: str = "resnet34"
    encoder_depth: int = 5
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    input_size: int = 768
    smallest_input_size: int | None = None
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    threshold: float = 0.5
    context_size: int | None = None
    context_encoder: str | None = None
    context_channels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("decoder_channels", "mean", "std", "context_channels"):  # JSON holds lists
            value = getattr(self, name)
            if not isinstance(value, list | tuple):
                raise ConfigError(f"config: {name} is {short_repr(value)}, expected a list of numbers.")
            object.__setattr__(self, name, tuple(value))
        if self.format_version != FORMAT_VERSION:
            raise ConfigError(
                f"config: format_version is {short_repr(self.format_version)}, expected 1 to {FORMAT_VERSION}. "
                "Install a newer version of ReSegNet, or load an older revision of the model."
            )
        _check(
            isinstance(self.encoder, str) and _ENCODER.fullmatch(self.encoder) is not None,
            "encoder",
            self.encoder,
            "a name of letters, digits and ._-",
        )
        fewest = 2 if self.encoder == TWO_LOOKS else 3
        _check(_is_whole(self.encoder_depth, fewest, 5), "encoder_depth", self.encoder_depth, f"{fewest} to 5")
        _check(
            len(self.decoder_channels) in (self.encoder_depth, self.encoder_depth - 1)
            and all(_is_whole(c, 1, 1024) for c in self.decoder_channels),
            "decoder_channels",
            self.decoder_channels,
            f"{self.encoder_depth} whole numbers from 1 to 1024, one for each encoder stage, or one fewer",
        )
        _check(
            # Fewer than 16 make oneDNN write out of bounds in training (github.com/uxlfoundation/oneDNN/issues/6035).
            self.encoder not in (PLAIN, TWO_LOOKS)
            or (len(self.decoder_channels) == self.encoder_depth and min(self.decoder_channels) >= 16),
            "decoder_channels",
            self.decoder_channels,
            f"{self.encoder_depth} of them, each 16 or more, for the plain network and two looks",
        )
        self._check_context()
        step = 2**self.encoder_depth
        _check(
            _is_whole(self.input_size, 64, 4096) and self.input_size % step == 0,
            "input_size",
            self.input_size,
            f"a multiple of {step} from 64 to 4096",
        )
        _check(
            self.smallest_input_size is None
            or (_is_whole(self.smallest_input_size, 64, self.input_size) and self.smallest_input_size % step == 0),
            "smallest_input_size",
            self.smallest_input_size,
            f"null or a multiple of {step} from 64 to the input_size of {self.input_size}",
        )
        _check(len(self.mean) == 3 and all(map(_is_moderate, self.mean)), "mean", self.mean, "three numbers")
        _check(
            len(self.std) == 3 and all(_is_moderate(s) and s > 1e-6 for s in self.std),
            "std",
            self.std,
            "three positive numbers",
        )
        _check(
            _is_moderate(self.threshold) and 0 < self.threshold < 1, "threshold", self.threshold, "a number in (0, 1)"
        )

    def _check_context(self) -> None:
        """Check the settings of the context branch."""
        if self.encoder != TWO_LOOKS:
            expected = f"its default unless encoder is {TWO_LOOKS}"
            _check(self.context_size is None, "context_size", self.context_size, expected)
            _check(self.context_encoder is None, "context_encoder", self.context_encoder, expected)
            _check(self.context_channels == (), "context_channels", self.context_channels, expected)
            return
        _check(
            self.context_encoder is None
            or (isinstance(self.context_encoder, str) and _ENCODER.fullmatch(self.context_encoder) is not None),
            "context_encoder",
            self.context_encoder,
            "null or a name of letters, digits and ._-",
        )
        fewest_levels, most = (3, 7) if self.context_encoder is None else (2, 4)
        _check(
            fewest_levels <= len(self.context_channels) <= most
            and all(_is_whole(c, 16, 1024) for c in self.context_channels),
            "context_channels",
            self.context_channels,
            f"{fewest_levels} to {most} whole numbers from 16 to 1024",
        )
        step = self.context_step
        _check(
            isinstance(self.context_size, int)
            and _is_whole(self.context_size, 64, 4096)
            and self.context_size % step == 0,
            "context_size",
            self.context_size,
            f"a multiple of {step} from 64 to 4096",
        )

    @classmethod
    def from_dict(cls, values: object) -> Config:
        """Build from the values of a parsed `config.json`.

        Raises
        ------
        ConfigError
            If `values` is not a mapping, a value is unusable, or a key is missing or unknown: ignoring it would change
            predictions without a word.
        """
        if not isinstance(values, dict):
            raise ConfigError(f"config: got {type(values).__name__}, expected an object of named values.")
        # The version is checked first: a newer format may have other keys, and the remedy is then an upgrade.
        version = values.get("format_version", FORMAT_VERSION)
        if version not in (1, FORMAT_VERSION):
            cls(format_version=version)
        added = _ADDED_KEYS if version == 1 else {}
        expected = {field.name for field in dataclasses.fields(cls)} - added.keys()
        unknown, missing = sorted(set(values) - expected), sorted(expected - set(values))
        if unknown or missing:
            raise ConfigError(
                f"config: unknown keys {short_repr(unknown)}, missing keys {missing}; expected the config.json of a "
                f"ReSegNet release of format {version}: check that this is the right file."
            )
        return cls(**{**values, **added, "format_version": FORMAT_VERSION})

    @classmethod
    def load(cls, path: str | Path) -> Config:
        """Read a `config.json`.

        Raises
        ------
        ConfigError
            If the file cannot be read, is not JSON, or holds an unusable value.
        """
        try:
            values = read_json(path)
        except FileNotFoundError as error:
            raise ConfigError(
                f"{Path(path).parent} holds no {Path(path).name}; expected the folder of a release: check the path."
            ) from error
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path}: cannot be read as JSON ({_reason(error)}); expected a ReSegNet config.json: check the path."
            ) from error
        return cls.from_dict(values)

    @property
    def context_step(self) -> int:
        """Number of px that the side of the context is a multiple of."""
        return 2 ** (len(self.context_channels) + (-1 if self.context_encoder is None else 1))

    @property
    def normalises(self) -> bool:
        """True if `mean` and `std` change the input."""
        return any(self.mean) or any(value != 1 for value in self.std)

    @property
    def network(self) -> str:
        """Kind of the network, as text for people."""
        named = {PLAIN: "plain U-Net", TWO_LOOKS: "U-Net of two looks"}
        return named.get(self.encoder, f"U-Net, encoder {self.encoder}")

    @property
    def input_sides(self) -> str:
        """Side of the network's square in px, as text for people, such as `896` or `640 to 1280`."""
        return f"{self.smallest_input_size} to {self.input_size}" if self.smallest_input_size else str(self.input_size)

    def to_json(self) -> str:
        """Return the text of `config.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def _reason(error: Exception) -> str:
    """Return the reason without the path, which an OSError repeats."""
    return getattr(error, "strerror", None) or first_line(error)


def _check(good: bool, name: str, value: object, expected: str) -> None:
    if not good:
        raise ConfigError(f"config: {name} is {short_repr(value)}, expected {expected}.")


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_moderate(value: object) -> bool:
    """Tell whether a value from a file is a number, and neither nan nor so large that it would overflow float32."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6
