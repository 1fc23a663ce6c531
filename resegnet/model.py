"""The network: a U-Net from RGB to logits, and the files of its weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import segmentation_models_pytorch as smp
import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from resegnet.config import PLAIN, TWO_LOOKS, Config
from resegnet.errors import ConfigError, WeightsError, first_line
from resegnet.hub import CONFIG_NAME, WEIGHTS_NAME, check_hashes, find_release
from resegnet.io import write_atomically
from resegnet.two_looks import TwoLooks
from resegnet.unet import PlainUNet


class ReSegNet(nn.Module, PyTorchModelHubMixin, library_name="resegnet"):
    """U-Net, plain or with an encoder of `segmentation_models_pytorch`, that normalises its input itself.

    Ronneberger et al. 2015, doi:10.1007/978-3-319-24574-4_28. It is built with random weights: `from_pretrained` loads
    those of a release, and starting from ImageNet's is a training choice (`resegnet.learning.start`).

    Parameters
    ----------
    config
        The architecture and the normalisation.

    Raises
    ------
    ConfigError
        If `segmentation_models_pytorch` cannot build the encoder.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.net = _build(config)
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)

    def forward(
        self, rgb: torch.Tensor | None, context: torch.Tensor | None = None, places: torch.Tensor | None = None
    ) -> Any:
        """Return the logits of the vessels, and for two looks also those of the context branch.

        Parameters
        ----------
        rgb
            (N, 3, S, S) float32 in [0, 1]; 2 ** encoder_depth divides S. None, of two looks, leaves the detail branch
            out.
        context, places
            For two looks, see `resegnet.two_looks.TwoLooks.forward`; `context` in [0, 1].

        Returns
        -------
        logits
            (N, 1, S, S). For two looks the pair of these, or None, and the logits of the context branch, (M, 5, C, C).
        """
        detail = None if rgb is None else self.normalised(rgb)
        return self.net(detail) if context is None else self.net(detail, self.normalised(context), places)

    def look_around(self, context: torch.Tensor) -> torch.Tensor:
        """Return the logits of the context branch, (N, 5, C, C), of (N, 3, C, C) float32 in [0, 1]."""
        return cast(TwoLooks, self.net).look_around(self.normalised(context))[1]

    def normalised(self, rgb: torch.Tensor) -> torch.Tensor:
        """Return what the network without normalisation takes, (N, 3, S, S), of RGB in [0, 1]."""
        return (rgb - self.mean) / self.std if self.config.normalises else rgb

    def _save_pretrained(self, save_directory: Path) -> None:
        save_weights(self, save_directory / WEIGHTS_NAME)
        (save_directory / CONFIG_NAME).write_text(self.config.to_json(), encoding="utf-8")

    @classmethod
    def from_pretrained(  # type: ignore[override]  # without the mixin's **model_kwargs, which would change the network
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> ReSegNet:
        """Load a folder or a model of the Hub strictly, ready to predict.

        The mixin's own method is not used, since it drops unknown keys of the configuration, leaves missing tensors
        random and falls back to pickles.

        Parameters
        ----------
        pretrained_model_name_or_path
            Folder, `bundled`, `bundled-vessels`, `bundled-cc-by`, or Hub id such as `user/resegnet`.
        revision, cache_dir, force_download, local_files_only, token
            As in `resegnet.hub.find_release`.

        Raises
        ------
        ConfigError, WeightsError
            If the configuration or the weights cannot be used.
        OSError
            If there is no such folder and the model cannot be downloaded from the Hub.
        ArgumentError
            If a revision is given for a folder.
        """
        folder, _ = find_release(
            pretrained_model_name_or_path,
            revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
        config = Config.load(folder / CONFIG_NAME)
        check_hashes(folder)
        weights = folder / WEIGHTS_NAME
        # A small config.json can describe a network of any size. Before memory is taken for it, its weights must exist.
        try:
            with torch.device("meta"):
                size = sum(tensor.numel() for tensor in cls(config).parameters())
        except ConfigError:  # the mit_ encoders compute with tensors while they are built; they are small
            size = 0
        if weights.is_file() and weights.stat().st_size < 2 * size:
            raise WeightsError(
                f"{weights} is too small for the network of {size / 1e6:.0f} million weights that the {CONFIG_NAME} "
                "beside it states: download the release again."
            )
        model = cls(config)
        load_weights(model, weights)
        return model.eval()


def is_usable(device: str) -> bool:
    """Tell whether torch can compute on a device: "cpu", or "cuda" or "cuda:N" with a GPU of that number."""
    named = re.fullmatch(r"cuda(?::(\d+))?", device)
    return device == "cpu" or (named is not None and int(named[1] or 0) < torch.cuda.device_count())


def _build(config: Config) -> nn.Module:
    """Build the network with random weights."""
    if config.encoder == PLAIN:
        return PlainUNet(config.decoder_channels)
    if config.encoder == TWO_LOOKS:
        return TwoLooks(config.context_channels, config.decoder_channels, config.context_encoder)
    return _build_encoder_unet(config)


def _build_encoder_unet(config: Config) -> nn.Module:
    """Build a U-Net of `segmentation_models_pytorch` with random weights.

    Raises
    ------
    ConfigError
        If it cannot build the encoder.
    """
    shuffled = len(config.decoder_channels) < config.encoder_depth
    try:
        net = smp.Unet(
            config.encoder,
            encoder_weights=None,
            encoder_depth=config.encoder_depth,
            decoder_channels=(*config.decoder_channels, 1) if shuffled else config.decoder_channels,
        )
    except Exception as error:  # each encoder raises another kind of error
        raise ConfigError(
            f"Cannot build a U-Net with encoder {config.encoder} ({first_line(error)}); expected {PLAIN}, a name "
            "that segmentation_models_pytorch.encoders.get_encoder_names() lists, or `tu-` before a timm name."
        ) from error
    if shuffled:
        # The stage at full size costs by far the most and has no encoder features to add. Without it, each pixel at
        # half the size gives four logits, which are rearranged to the full size: Shi et al. 2016,
        # doi:10.1109/CVPR.2016.207. The kernel is 1 x 1, since a 3 x 3 kernel with so few outputs would take a tenth
        # of the time of the whole network.
        net.decoder.blocks = net.decoder.blocks[:-1]
        net.segmentation_head = nn.Sequential(
            nn.Conv2d(config.decoder_channels[-1], 4, kernel_size=1), nn.PixelShuffle(2)
        )
    return net


def scale_logits(model: ReSegNet, slope: float, offset: float) -> None:
    """Change the last convolution in place so that the network returns slope * logit + offset."""
    with torch.no_grad():
        head = model.net.segmentation_head
        assert isinstance(head, nn.Sequential)
        last = head[0]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        last.weight.mul_(slope)
        last.bias.mul_(slope).add_(offset)


def round_to_half(model: nn.Module) -> None:
    """Round the convolution kernels to float16, in place, as `save_weights` with `half` stores them."""
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim == 4:
                tensor.copy_(tensor.half())


def save_weights(model: nn.Module, path: Path, half: bool = False) -> None:
    """Write the weights as safetensors.

    Parameters
    ----------
    model
        The network.
    path
        The file.
    half
        Store the convolution kernels as float16. Other tensors stay float32, since the running variances of batch
        normalisation may lie outside the range of float16.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    tensors = {
        name: (tensor.half() if half and tensor.ndim == 4 else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }
    write_atomically(path, save(tensors))  # `save_file` would make the file readable for its owner only


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file strictly: every tensor of the model, no other, each of the same shape.

    Raises
    ------
    WeightsError
        If the file is missing or not safetensors, does not fit the model, or holds nan or infinity. The model must then
        not be used, since some of its tensors may have been replaced.
    """
    try:
        if not path.is_file():  # opening a pipe or a device could block for ever
            raise OSError("there is no such file")
        tensors = load_file(path)
        wanted = model.state_dict()
        for name in tensors.keys() & wanted.keys():
            if tensors[name].is_floating_point() != wanted[name].is_floating_point():
                raise RuntimeError(f"{name} is of type {tensors[name].dtype}")
            if not tensors[name].float().isfinite().all():
                raise RuntimeError(f"{name} holds nan or infinity")
        model.load_state_dict(tensors, strict=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise WeightsError(
            f"{path}: the weights cannot be loaded ({first_line(error)}); expected the {WEIGHTS_NAME} that belongs to "
            "the config.json beside it. Download or train the model again."
        ) from error
