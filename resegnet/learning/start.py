"""The weights that a training run starts from: those of a release, or of an encoder alone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from huggingface_hub import constants
from huggingface_hub.utils import get_session
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from resegnet.config import PLAIN, TWO_LOOKS, Config
from resegnet.errors import ResegnetError, TrainingError, first_line
from resegnet.hub import CONFIG_NAME, WEIGHTS_NAME, check_hashes
from resegnet.learning.parents import ParentRelease
from resegnet.model import ReSegNet

_HUB_ANSWERS_S = 6.0

logger = logging.getLogger(__name__)


def load_release(model: ReSegNet, parent: ParentRelease, whole: bool) -> None:
    """Load the weights of a release that has the same encoder, in place.

    Tensors of the decoder that the release lacks, or has in another shape, keep their random weights, and the log says
    so.

    Parameters
    ----------
    model
        Network to change.
    parent
        The release.
    whole
        Whether the release must have all tensors, because none is learned or calibrated anew.

    Raises
    ------
    TrainingError
        If the release cannot be loaded, has another encoder, lacks tensors that it must have, or normalises photographs
        in another way.
    """
    donor, given = _read_release("--start-from", parent)
    own = model.state_dict()
    fitting = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    missing = [name for name in own if name not in fitting]
    if donor.encoder != model.config.encoder or any(name.startswith("net.encoder.") for name in missing):
        raise TrainingError(
            f"--start-from {parent.source}: its encoder is {donor.encoder} of depth "
            f"{donor.encoder_depth}, this run's {model.config.encoder} of depth {model.config.encoder_depth}. "
            f"Give a release of the same encoder, or --encoder {donor.encoder} by hand or by a preset."
        )
    if any(name.startswith("net.context.encoder.") for name in missing):
        raise TrainingError(
            f"--start-from {parent.source}: its context branch has the encoder {donor.context_encoder or 'plain'}, "
            f"this run's {model.config.context_encoder or 'plain'}. Give a release of the same, or the other "
            "--context-encoder."
        )
    if whole and missing:
        raise TrainingError(
            f"--start-from {parent.source} lacks {len(missing)} of {len(own)} tensors of this network, such as "
            f"{missing[0]}, and with --epochs 0 or --validation-fraction 0 they would stay random or uncalibrated. "
            "Give a release of the same network."
        )
    if (donor.mean, donor.std) != (model.config.mean, model.config.std):
        raise TrainingError(
            f"--start-from {parent.source}: it normalises photographs by mean {donor.mean} and std "
            f"{donor.std}, this run by {model.config.mean} and {model.config.std}. Give a release that "
            "`train.py` made."
        )
    model.load_state_dict(own | fitting)
    if missing:
        logger.info("%d of %d tensors start from random weights, such as %s", len(missing), len(own), missing[0])


def load_detail(model: ReSegNet, parent: ParentRelease) -> None:
    """Load the weights of a plain network into the detail branch of two looks, in place.

    Raises
    ------
    TrainingError
        If the release cannot be loaded, or has another network than the detail branch.
    """
    donor, given = _read_release("--detail-from", parent)
    if (donor.encoder, donor.decoder_channels) != (PLAIN, model.config.decoder_channels):
        raise TrainingError(
            f"--detail-from {parent.source}: its network is {donor.encoder} with the channels "
            f"{donor.decoder_channels}, expected {PLAIN} with {model.config.decoder_channels}. Give such a release."
        )
    detail = model.net.get_submodule("detail")
    detail.load_state_dict(detail.state_dict() | {name.removeprefix("net."): tensor for name, tensor in given.items()})


def _read_release(option: str, parent: ParentRelease) -> tuple[Config, dict[str, torch.Tensor]]:
    """Read the configuration and the tensors of a release."""
    try:
        config = Config.load(parent.folder / CONFIG_NAME)
        check_hashes(parent.folder)
        return config, load_file(parent.folder / WEIGHTS_NAME)
    except (ResegnetError, SafetensorError, OSError) as error:
        raise TrainingError(f"{option} {parent.source}: {first_line(error)}.") from error


def load_encoder_weights(model: ReSegNet, source: str) -> None:
    """Load weights into the encoder, in place.

    Parameters
    ----------
    model
        Network to change.
    source
        `imagenet` (those of segmentation_models_pytorch, from the Hub), `none` (random weights stay), or a file of
        tensors. The tensors of a file are matched by name. Those of a .pth file with other names are matched in order,
        because collections name the weights of one network differently.

    Raises
    ------
    TrainingError
        If the weights cannot be had, a tensor of the encoder is missing, or a shape does not fit.
    """
    if source == "none":
        return
    config = model.config
    if config.encoder == PLAIN or (config.encoder == TWO_LOOKS and config.context_encoder is None):
        raise TrainingError(
            f"--encoder-weights {source}: there are no such weights for the network {config.encoder}. Start "
            "from random weights, --encoder-weights none, or from a release, --start-from."
        )
    weights = _imagenet_weights(model) if source == "imagenet" else _weights_from_file(model, Path(source))
    _encoder(model).load_state_dict(weights)


def _encoder(model: ReSegNet) -> nn.Module:
    """Return the part of the network that pretrained weights are for."""
    return model.net.get_submodule("encoder" if model.config.context_encoder is None else "context.encoder")


def _imagenet_weights(model: ReSegNet) -> dict[str, torch.Tensor]:
    import segmentation_models_pytorch as smp

    config = model.config
    name, depth = config.encoder, config.encoder_depth
    if config.context_encoder is not None:
        name, depth = config.context_encoder, len(config.context_channels) + 1
    try:
        # For an encoder from timm, smp expects True and warns about any name.
        weights = True if name.startswith("tu-") else "imagenet"
        with _no_retries_without_hub():
            donor = smp.encoders.get_encoder(name, depth=depth, weights=weights)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise TrainingError(
            f"ImageNet weights for {name} cannot be had ({first_line(error)}). Connect to the "
            "Hub, give a file with --encoder-weights FILE, or start from random weights: --encoder-weights none."
        ) from error
    return donor.state_dict()


@contextmanager
def _no_retries_without_hub() -> Iterator[None]:
    """Let huggingface_hub work offline if the Hub does not answer within seconds: it would retry for minutes.

    Weights that were downloaded before are still found.
    """
    answers: list[object] = []

    def ask() -> None:
        with suppress(Exception):  # any failure means that there is no Hub; the caller's own request tells which
            answers.append(get_session().head(constants.ENDPOINT, timeout=_HUB_ANSWERS_S))

    # In a thread, because the timeout does not hold for looking up the address.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_HUB_ANSWERS_S)
    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = offline or not answers
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def _weights_from_file(model: ReSegNet, path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise many kinds for a bad file
        raise TrainingError(
            f"--encoder-weights {path} cannot be read ({first_line(error)}). Expected `imagenet`, `none`, "
            "or a file of tensors."
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise TrainingError(
            f"--encoder-weights {path} holds more than named tensors. Save a plain state_dict of the encoder."
        )
    own = _encoder(model).state_dict()
    if not set(own) <= set(tensors) and path.suffix != ".safetensors":  # safetensors keeps no order
        tensors = dict(zip(own, tensors.values(), strict=False))
    unfit = [name for name in own if name not in tensors or tensors[name].shape != own[name].shape]
    if unfit:
        encoder = model.config.context_encoder or model.config.encoder
        raise TrainingError(
            f"--encoder-weights {path}: {len(unfit)} of {len(own)} tensors of {encoder} are missing or have another "
            f"shape, such as {unfit[0]}. Give a file that belongs to this encoder."
        )
    return {name: tensors[name] for name in own}
