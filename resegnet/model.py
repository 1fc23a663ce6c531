"""The network: a U-Net that takes plain RGB and gives logits."""

from __future__ import annotations

from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from resegnet.config import PLAIN, Config
from resegnet.errors import ConfigError, WeightsError, first_line
from resegnet.hub import CONFIG_NAME, WEIGHTS_NAME, check_hashes, find_release
from resegnet.io import write_atomically
from resegnet.unet import PlainUNet


class ReSegNet(nn.Module, PyTorchModelHubMixin, library_name="resegnet", license="mit"):
    """U-Net, plain or with an encoder of `segmentation_models_pytorch`; the normalisation is part of it.

    Ronneberger et al. 2015, doi:10.1007/978-3-319-24574-4_28. Always built with random weights: a release brings its
    own, and ImageNet's are a training choice (`resegnet.learning.start`).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.net = PlainUNet(config.decoder_channels) if config.encoder == PLAIN else _unet_of(config)
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        """Logits (N, 1, S, S) of `rgb` (N, 3, S, S) float32 in [0, 1]; S is a multiple of 2 ** encoder_depth."""
        return self.net((rgb - self.mean) / self.std if self.config.normalises else rgb)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_weights(self, save_directory / WEIGHTS_NAME)
        (save_directory / CONFIG_NAME).write_text(self.config.to_json(), encoding="utf-8")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> ReSegNet:
        """Load a folder or a model of the Hub, strictly, ready to predict.

        In place of the mixin's own, which drops unknown keys of the config, leaves missing tensors random and falls
        back to pickles. Arguments as in `resegnet.hub.find_release`.

        Raises
        ------
        resegnet.config.ConfigError, resegnet.hub.WeightsError
            For a configuration or weights that cannot be used.
        OSError
            If there is no such folder and the model cannot be had from the Hub.
        ValueError
            If a revision is asked of a folder.
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
        # A small config.json can ask for a network of any size. Its weights must be there before memory is taken.
        try:
            with torch.device("meta"):
                size = sum(tensor.numel() for tensor in cls(config).parameters())
        except ConfigError:  # the mit_ encoders reckon with tensors while they are built; they are small
            size = 0
        if weights.is_file() and weights.stat().st_size < 2 * size:
            raise WeightsError(
                f"{weights} is too small for the network of {size / 1e6:.0f} million weights that the {CONFIG_NAME} "
                "beside it states: download the release again."
            )
        model = cls(config)
        load_weights(model, weights)
        return model.eval()


def _unet_of(config: Config) -> nn.Module:
    """A U-Net of `segmentation_models_pytorch`, random weights.

    Raises
    ------
    ConfigError
        For an encoder that it cannot build.
    """
    shuffled = len(config.decoder_channels) < config.encoder_depth
    try:
        net = smp.Unet(
            config.encoder,
            encoder_weights=None,
            encoder_depth=config.encoder_depth,
            decoder_channels=(*config.decoder_channels, 1) if shuffled else config.decoder_channels,
        )
    except Exception as error:  # each encoder refuses in its own way what it cannot do
        raise ConfigError(
            f"Cannot build a U-Net with encoder {config.encoder} ({first_line(error)}); expected {PLAIN}, a name "
            "that segmentation_models_pytorch.encoders.get_encoder_names() lists, or `tu-` before a timm name."
        ) from error
    if shuffled:
        # The stage at full size is the dearest by far and has no encoder features to add. Without it, four logits
        # for each pixel of half the size become the full size: Shi et al. 2016, doi:10.1109/CVPR.2016.207. They
        # come from that pixel alone: a 3 x 3 kernel of so few outputs takes a tenth of the whole network's time.
        net.decoder.blocks = net.decoder.blocks[:-1]
        net.segmentation_head = nn.Sequential(
            nn.Conv2d(config.decoder_channels[-1], 4, kernel_size=1), nn.PixelShuffle(2)
        )
    return net


def scale_logits(model: ReSegNet, slope: float, offset: float) -> None:
    """Let the network give slope * logit + offset, in place: the last convolution takes both on."""
    with torch.no_grad():
        last = model.net.segmentation_head[0]
        last.weight.mul_(slope)
        last.bias.mul_(slope).add_(offset)


def round_to_half(model: nn.Module) -> None:
    """Round the convolution kernels to float16, in place, as `save_weights` with `half` stores them."""
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim == 4:
                tensor.copy_(tensor.half())


def save_weights(model: nn.Module, path: Path, half: bool = False) -> None:
    """Write the weights as safetensors; with `half`, convolution kernels as float16.

    Only kernels are halved: the running variances of batch normalisation may lie outside float16's range.
    """
    tensors = {
        name: (tensor.half() if half and tensor.ndim == 4 else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }
    write_atomically(path, save(tensors))  # `save_file` lets nobody but its user read the file


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file strictly: every tensor of the model, no other, each of its shape.

    Raises
    ------
    WeightsError
        If the file is missing, no safetensors, does not fit, or holds nan or infinity; the model is then not to be
        used.
    """
    try:
        if not path.is_file():  # to open a pipe or a device could take for ever
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
