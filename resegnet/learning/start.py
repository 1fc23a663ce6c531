"""The weights that a training run starts from: a release, or an encoder's from elsewhere."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from resegnet.config import PLAIN, Config
from resegnet.errors import TrainingError, first_line
from resegnet.hub import CONFIG_NAME, TRAINING_NAME, find_release
from resegnet.model import ReSegNet
from resegnet.releases.records import as_list, as_number, as_object, training_runs

logger = logging.getLogger(__name__)


def load_release(model: ReSegNet, source: str) -> None:
    """Take over the weights of a release (folder or Hub id) of the same encoder.

    What of the decoder has another shape there, or is not there, starts from random weights, and the log tells it.

    Raises
    ------
    TrainingError
        If it cannot be had, is of another encoder, or normalises photographs in another way.
    """
    try:
        donor = ReSegNet.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise TrainingError(f"--start-from {source}: {first_line(error)}") from error
    own, given = model.state_dict(), donor.state_dict()
    fit = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    left = [name for name in own if name not in fit]
    if donor.config.encoder != model.config.encoder or any(name.startswith("net.encoder.") for name in left):
        raise TrainingError(
            f"--start-from {source}: its encoder is {donor.config.encoder} of depth {donor.config.encoder_depth}, this "
            f"run's {model.config.encoder} of depth {model.config.encoder_depth}. Give a release of the same encoder."
        )
    if (donor.config.mean, donor.config.std) != (model.config.mean, model.config.std):
        raise TrainingError(
            f"--start-from {source}: it normalises photographs by mean {donor.config.mean} and std {donor.config.std}, "
            f"this run by {model.config.mean} and {model.config.std}. Give a release that `train.py` made."
        )
    model.load_state_dict(own | fit)
    if left:
        logger.info("%d of %d tensors start from random weights, %s first", len(left), len(own), left[0])


def earlier_record(source: str) -> dict[str, Any]:
    """What a release that was gone on from notes of its own training; empty where that is not known."""
    try:
        folder, _ = find_release(source)
        return as_object(json.loads((folder / TRAINING_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def known_photographs(source: str) -> set[str]:
    """Ids of the photographs that a release and those it went on from were trained on, as far as they are on record."""
    return {str(name) for run in training_runs(earlier_record(source)) for name in as_list(run.get("train_ids"))}


def calibration_of(source: str, config: Config) -> tuple[float, float, float]:
    """Slope and offset that a release's logits were scaled by, and its threshold: what it learned of validation eyes.

    Raises
    ------
    TrainingError
        If it notes none, or is not of the decoder of `config`, parts of which would start from random weights.
    """
    scaled = as_object(earlier_record(source).get("logits_scaled"))
    slope, offset = (as_number(scaled.get(name)) for name in ("slope", "offset"))
    if not slope or offset is None:
        raise TrainingError(
            f"--validation-fraction 0: {source} does not note how it was calibrated. Give --start-from a release that "
            "`train.py` made, or keep eyes back for validation."
        )
    folder, _ = find_release(source)
    donor = Config.load(folder / CONFIG_NAME)
    if donor.decoder_channels != config.decoder_channels:
        raise TrainingError(
            f"--validation-fraction 0: {source} has the decoder channels {donor.decoder_channels}, this run "
            f"{config.decoder_channels}, for which its calibration says nothing. Give it the same --decoder-channels."
        )
    return slope, offset, donor.threshold


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
    if config.encoder == PLAIN:
        raise TrainingError(
            f"--encoder-weights {source}: the plain network has none but its own. Start from random weights, "
            "--encoder-weights none, or from a release, --start-from."
        )
    if source == "imagenet":
        import segmentation_models_pytorch as smp

        try:
            # smp takes True for the encoders that come from timm, and warns of any name.
            weights = True if config.encoder.startswith("tu-") else "imagenet"
            donor = smp.encoders.get_encoder(config.encoder, depth=config.encoder_depth, weights=weights)
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise TrainingError(
                f"ImageNet weights for {config.encoder} cannot be had ({first_line(error)}). Connect to the "
                "Hub, give a file with --encoder-weights FILE, or start from random weights: --encoder-weights none."
            ) from error
        model.net.encoder.load_state_dict(donor.state_dict())
        return
    path = Path(source)
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise many kinds for a bad file
        raise TrainingError(
            f"--encoder-weights {source}: cannot be read ({first_line(error)}). Expected `imagenet`, `none`, "
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
