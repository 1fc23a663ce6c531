"""A small U-Net that works at the photograph's full size; `Config.encoder` calls it "plain"."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F


class PlainUNet(nn.Module):
    """U-Net of residual blocks, without pretrained weights, whose first level has the photograph's full size.

    The encoders of `segmentation_models_pytorch` begin by halving the picture, which loses the finest vessels, a pixel
    or two wide. Few weights are enough at full size: Galdran et al. 2022, doi:10.1038/s41598-022-09675-y. The level at
    full size has one convolution on each side only, since it takes most of the time.

    Parameters
    ----------
    channels
        Number of channels of each level, coarse to fine, as in `Config.decoder_channels`. Each level has twice the side
        of the one before.
    beside
        Number of channels of the features that another network adds to the level of half the side; 0 for none.
    """

    def __init__(self, channels: Sequence[int], beside: int = 0) -> None:
        super().__init__()
        fine, *coarser = reversed(channels)
        widths = [fine, *coarser]
        self.down = nn.ModuleList(
            [convolution(3, fine), *(Residual(*pair, stride=2) for pair in zip(widths, coarser, strict=False))]
        )
        self.beside: nn.Conv2d | None = None
        if beside:
            self.beside = nn.Conv2d(beside, widths[1], 1, bias=False)
            nn.init.zeros_(self.beside.weight)  # weights of a network without them give the same result to begin with
        # The number of channels is reduced before the side is doubled, which is cheaper than after it.
        self.narrow = nn.ModuleList(nn.Conv2d(wide, thin, 1) for thin, wide in zip(widths, coarser, strict=False))
        self.up = nn.ModuleList([convolution(2 * fine, fine), *(Residual(2 * width, width) for width in coarser[:-1])])
        self.segmentation_head = nn.Sequential(nn.Conv2d(fine, 1, 1))

    def forward(self, picture: torch.Tensor, beside: torch.Tensor | None = None) -> torch.Tensor:
        """Return the logits of RGB.

        Parameters
        ----------
        picture
            (N, 3, S, S) float32; S is a multiple of 2 ** (levels - 1).
        beside
            Features of the same place, (N, beside, S / 2, S / 2), if the network was built for them.

        Returns
        -------
        logits
            (N, 1, S, S).
        """
        levels = [picture]
        for block in self.down:
            features = block(levels[-1])
            if beside is not None and self.beside is not None and len(levels) == 2:
                features = features + self.beside(beside)
            levels.append(features)
        features = levels.pop()
        for narrow, block in zip(reversed(self.narrow), reversed(self.up), strict=True):
            features = F.interpolate(narrow(features), scale_factor=2.0, mode="bilinear")
            features = block(torch.cat([features, levels.pop()], dim=1))
        return self.segmentation_head(features)


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Build a 3 x 3 convolution from `inputs` to `outputs` channels, with batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a 1 x 1 shortcut: He et al. 2016, doi:10.1109/CVPR.2016.90."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.main = nn.Sequential(
            *convolution(inputs, outputs, stride),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features of the input's side, or of half of it with a stride of 2."""
        return F.relu(self.main(features) + self.shortcut(features))
