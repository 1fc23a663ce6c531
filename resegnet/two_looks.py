"""A network of two looks, for `Config.encoder` "two-looks": the whole field small, and every pixel at full size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.nn import functional as F

from resegnet.config import ANATOMY
from resegnet.unet import PlainUNet, Residual, convolution

PASSED_CHANNELS = 16  # from the context branch to the detail branch


class TwoLooks(nn.Module):
    """A deep branch sees the field of view at one fixed size, a `PlainUNet` the photograph's own pixels.

    The context branch sees every eye at the same scale, so that a vessel of 40 blurred pixels and one of 4 sharp
    pixels look alike to it. It hands its features to the detail branch, which places the walls. Coarse to fine as in
    W-Net: Galdran et al. 2022, doi:10.1038/s41598-022-09675-y. Arteries, veins, optic disc and fovea need context and
    no fine pixels, and come from the same features.

    The context branch decodes to half of its input's side, and gives four logits for each of these pixels: Shi et al.
    2016, doi:10.1109/CVPR.2016.207. Layers at full size would take most of the time, for reading and writing.

    Parameters
    ----------
    context_channels, detail_channels
        Channels of the levels of each branch, coarse to fine; each level has twice the side of the one before. The
        finest level has the side of the branch's input; that of the context half of it with an encoder.
    context_encoder
        Encoder of the context branch, as in `Config.context_encoder`.
    """

    def __init__(
        self, context_channels: Sequence[int], detail_channels: Sequence[int], context_encoder: str | None = None
    ) -> None:
        super().__init__()
        self.context: nn.Module
        if context_encoder is None:
            half = context_channels[-2]
            self.context = _ContextBranch(context_channels)
        else:
            half = context_channels[-1]
            self.context = _EncoderBranch(context_encoder, context_channels)
        self.passed = nn.Conv2d(half, PASSED_CHANNELS, 1)
        logits = nn.Conv2d(half, 4 * (1 + len(ANATOMY)), 1)
        # Most pixels are no vessel. To begin with that spares the first steps.
        nn.init.constant_(logits.bias, -2.0)  # type: ignore[arg-type]
        self.context_head = nn.Sequential(logits, nn.PixelShuffle(2))
        self.detail = PlainUNet(detail_channels, beside=PASSED_CHANNELS)

    @property
    def segmentation_head(self) -> nn.Sequential:
        """Last layer of the detail branch."""
        return self.detail.segmentation_head

    def look_around(self, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (N, 16, C / 2, C / 2) and logits (N, 5, C, C), vessel and `ANATOMY`, of (N, 3, C, C) float32."""
        features = self.context(context)
        return self.passed(features), self.context_head(features)

    def look_closely(self, detail: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Vessel logits (N, 1, S, S) of (N, 3, S, S) float32 and features (N, 16, S / 2, S / 2) of the same place."""
        return self.detail(detail, features)

    def forward(
        self, detail: torch.Tensor | None, context: torch.Tensor, places: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Return vessel logits at full size, and the logits of the context branch.

        Parameters
        ----------
        detail
            (N, 3, S, S) float32. Without `places` it may lack rows, equally many at the top and at the bottom. None
            leaves the detail branch out.
        context
            (M, 3, C, C) float32, M >= N. The first N show the surroundings of `detail`.
        places
            (N, 2, 3) float32, where each of `detail` lies in its context, in the terms of
            `torch.nn.functional.affine_grid`. None where both show one and the same square, as in prediction.

        Returns
        -------
        vessels
            Logits (N, 1, S, S), or None.
        context_logits
            (M, 5, C, C): vessel, then `ANATOMY`.
        """
        features, logits = self.look_around(context)
        if detail is None:
            return None, logits
        height, width = detail.shape[-2] // 2, detail.shape[-1] // 2
        if places is None:
            side = max(height, width)
            placed = F.interpolate(features, size=(side, side), mode="bilinear")
            top, left = (side - height) // 2, (side - width) // 2
            placed = placed[:, :, top : top + height, left : left + width]
        else:
            placed = sample_squares(features[: len(detail)].float(), places, (height, width))
        return self.look_closely(detail, placed), logits


def sample_squares(planes: torch.Tensor, places: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Sample a square out of each of (N, K, C, C), bilinear, to (N, K, *size); `places` as in `TwoLooks.forward`."""
    grid = F.affine_grid(places, [len(planes), 1, *size], align_corners=False)
    return F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)


class _EncoderBranch(nn.Module):
    """Encoder and decoder of `segmentation_models_pytorch`, from a picture to features of half its side."""

    def __init__(self, encoder: str, channels: Sequence[int]) -> None:
        super().__init__()
        # Its last stage would decode to full size; it is left out.
        net = smp.Unet(encoder, encoder_depth=len(channels) + 1, encoder_weights=None, decoder_channels=(*channels, 1))
        self.encoder, self.decoder = net.encoder, net.decoder
        self.decoder.blocks = self.decoder.blocks[:-1]

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Return the features of RGB in [0, 1]; pretrained encoders expect a mean of about 0."""
        if not torch.is_autocast_enabled("cpu"):
            return self.decoder(self.encoder(2 * picture - 1))
        # On a CPU, convolutions of single channels are slower in bfloat16: 0.44 instead of 0.33 s for a training step.
        with torch.autocast("cpu", enabled=False):
            features = self.encoder(2 * picture - 1)
        return self.decoder(features)


class _ContextBranch(nn.Module):
    """Down through residual blocks and up again, from a picture to features of half its side.

    Parameters
    ----------
    channels
        Number of channels of each level, coarse to fine. Each level has twice the side of the one before.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        fine_to_coarse = channels[::-1]
        pairs = list(pairwise(fine_to_coarse))
        self.down = nn.ModuleList(
            [convolution(3, fine_to_coarse[0]), *(Residual(thin, wide, stride=2) for thin, wide in pairs)]
        )
        # The number of channels is reduced before the side is doubled, which is cheaper than after it.
        self.narrow = nn.ModuleList(nn.Conv2d(wide, thin, 1) for thin, wide in pairs[1:])
        self.up = nn.ModuleList(Residual(2 * thin, thin) for thin, _ in pairs[1:])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the features of the level of half the side."""
        levels: list[torch.Tensor] = []
        for block in self.down:
            features = block(features)
            levels.append(features)
        features = levels.pop()
        for narrow, block in zip(reversed(self.narrow), reversed(self.up), strict=True):
            features = F.interpolate(narrow(features), scale_factor=2.0, mode="bilinear")
            features = block(torch.cat([features, levels.pop()], dim=1))
        return features
