"""A small U-Net that works at the photograph's full size, for `Config.encoder` "plain"."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F


class PlainUNet(nn.Module):
    """U-Net of residual blocks, without weights from elsewhere; its first level is as large as the photograph.

    The encoders of `segmentation_models_pytorch` begin by halving the picture, which is where the finest vessels, of a
    pixel or two, go. That few weights are enough at full size: Galdran et al. 2022, doi:10.1038/s41598-022-09675-y.
    That level is thin, of one convolution on each side, since it takes most of the time.

    Parameters
    ----------
    channels
        Of the levels, coarse to fine, as in `Config.decoder_channels`; each level has twice the side of the one before.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        fine, *coarser = reversed(channels)
        widths = [fine, *coarser]
        self.down = nn.ModuleList(
            [_convolution(3, fine), *(_Residual(*pair, stride=2) for pair in zip(widths, coarser, strict=False))]
        )
        # Fewer channels before a picture is doubled, not after it.
        self.narrow = nn.ModuleList(nn.Conv2d(wide, thin, 1) for thin, wide in zip(widths, coarser, strict=False))
        self.up = nn.ModuleList(
            [_convolution(2 * fine, fine), *(_Residual(2 * width, width) for width in coarser[:-1])]
        )
        self.segmentation_head = nn.Sequential(nn.Conv2d(fine, 1, 1))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Logits (N, 1, S, S) of (N, 3, S, S) float32; S is a multiple of 2 ** (levels - 1)."""
        levels = [picture]
        for block in self.down:
            levels.append(block(levels[-1]))
        features = levels.pop()
        for narrow, block in zip(reversed(self.narrow), reversed(self.up), strict=True):
            features = F.interpolate(narrow(features), scale_factor=2.0, mode="bilinear")
            features = block(torch.cat([features, levels.pop()], dim=1))
        return self.segmentation_head(features)


def _convolution(given: int, made: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(given, made, 3, stride, padding=1, bias=False), nn.BatchNorm2d(made), nn.ReLU(inplace=True)
    )


class _Residual(nn.Module):
    def __init__(self, given: int, made: int, stride: int = 1) -> None:
        super().__init__()
        self.main = nn.Sequential(
            *_convolution(given, made, stride), nn.Conv2d(made, made, 3, padding=1, bias=False), nn.BatchNorm2d(made)
        )
        self.shortcut = nn.Sequential(nn.Conv2d(given, made, 1, stride, bias=False), nn.BatchNorm2d(made))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return F.relu(self.main(features) + self.shortcut(features))
