"""A network of two looks, for `Config.encoder` "two-looks": the whole field small, and every pixel at full size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from resegnet.config import ANATOMY
from resegnet.unet import Residual, convolution

PASSED_CHANNELS = 16  # from the context branch to the detail branch


class TwoLooks(nn.Module):
    """A deep branch sees the field of view at one fixed size, a thin one the photograph's own pixels.

    The context branch sees every eye at the same scale, so that a vessel of 40 blurred pixels and one of 4 sharp
    pixels look alike to it. It hands its features to the detail branch, which needs few levels to place the walls.
    Coarse to fine as in W-Net: Galdran et al. 2022, doi:10.1038/s41598-022-09675-y. Arteries, veins, optic disc and
    fovea need context and no fine pixels, and come from the same features.

    Parameters
    ----------
    context_channels, detail_channels
        Channels of the levels of each branch, coarse to fine; each level has twice the side of the one before. The
        context branch decodes to half of its input's side; the features join the detail branch at half of its side.
    """

    def __init__(self, context_channels: Sequence[int], detail_channels: Sequence[int]) -> None:
        super().__init__()
        self.context = _Branch(context_channels, 3, decoded=len(context_channels) - 1)
        half = context_channels[-2]
        self.passed = nn.Conv2d(half, PASSED_CHANNELS, 1)
        # Four logits for each pixel of half the side: Shi et al. 2016, doi:10.1109/CVPR.2016.207.
        self.context_head = nn.Sequential(nn.Conv2d(half, 4 * (1 + len(ANATOMY)), 1), nn.PixelShuffle(2))
        # Most pixels are no vessel. To begin with that spares the first steps.
        nn.init.constant_(self.context_head[0].bias, -2.0)  # type: ignore[arg-type]
        fine, *coarser = reversed(detail_channels)
        self.stem = convolution(3, fine)
        self.detail = _Branch((*reversed(coarser),), fine, len(coarser), joined=PASSED_CHANNELS, first_stride=2)
        self.narrow = nn.Conv2d(coarser[0], fine, 1)
        self.up = convolution(2 * fine, fine)
        self.segmentation_head = nn.Sequential(nn.Conv2d(fine, 1, 1))
        nn.init.constant_(self.segmentation_head[0].bias, -2.0)  # type: ignore[arg-type]

    def look_around(self, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (N, 16, C / 2, C / 2) and logits (N, 5, C, C), vessel and `ANATOMY`, of (N, 3, C, C) float32."""
        features = self.context(context)
        return self.passed(features), self.context_head(features)

    def look_closely(self, detail: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Vessel logits (N, 1, S, S) of (N, 3, S, S) float32 and features (N, 16, S / 2, S / 2) of the same place."""
        fine = self.stem(detail)
        found = self.narrow(self.detail(fine, features))
        found = F.interpolate(found, scale_factor=2.0, mode="bilinear")
        return self.segmentation_head(self.up(torch.cat([found, fine], dim=1)))

    def forward(
        self, detail: torch.Tensor, context: torch.Tensor, places: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return vessel logits at full size, and the logits of the context branch.

        Parameters
        ----------
        detail
            (N, 3, S, S) float32.
        context
            (M, 3, C, C) float32, M >= N. The first N show the surroundings of `detail`.
        places
            (N, 2, 3) float32, where each of `detail` lies in its context, in the terms of
            `torch.nn.functional.affine_grid`. None where both show one and the same square, as in prediction.

        Returns
        -------
        vessels
            Logits (N, 1, S, S).
        context_logits
            (M, 5, C, C): vessel, then `ANATOMY`.
        """
        features, logits = self.look_around(context)
        half = (detail.shape[-2] // 2, detail.shape[-1] // 2)
        if places is None:
            placed = F.interpolate(features, size=half, mode="bilinear")
        else:
            placed = sample_squares(features[: len(detail)].float(), places, half)
        return self.look_closely(detail, placed), logits


def sample_squares(planes: torch.Tensor, places: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Sample a square out of each of (N, K, C, C), bilinear, to (N, K, *size); `places` as in `TwoLooks.forward`."""
    grid = F.affine_grid(places, [len(planes), 1, *size], align_corners=False)
    return F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)


class _Branch(nn.Module):
    """Down through residual blocks and up again, from a picture or features to features.

    Parameters
    ----------
    channels
        Number of channels of each level, coarse to fine. Each level has twice the side of the one before.
    inputs
        Number of channels of the input.
    joined
        Number of channels of the features that join the finest level; 0 if none do.
    decoded
        Number of levels that the way up reaches. With one fewer than `channels`, the output has half the input's side.
    first_stride
        2 if the finest level has half of the input's side already.
    """

    def __init__(
        self, channels: Sequence[int], inputs: int, decoded: int, joined: int = 0, first_stride: int = 1
    ) -> None:
        super().__init__()
        fine, *coarser = reversed(channels)
        pairs = list(zip([fine, *coarser], coarser, strict=False))
        first = convolution(inputs, fine) if first_stride == 1 else Residual(inputs, fine, stride=first_stride)
        self.down = nn.ModuleList([first, *(Residual(thin, wide, stride=2) for thin, wide in pairs)])
        self.join = Residual(fine + joined, fine) if joined else None
        pairs = pairs[len(channels) - decoded :]
        # The number of channels is reduced before the side is doubled, which is cheaper than after it.
        self.narrow = nn.ModuleList(nn.Conv2d(wide, thin, 1) for thin, wide in pairs)
        self.up = nn.ModuleList(Residual(2 * thin, thin) for thin, _ in pairs)

    def forward(self, features: torch.Tensor, joined: torch.Tensor | None = None) -> torch.Tensor:
        """Return the features of the finest level that is decoded."""
        levels: list[torch.Tensor] = []
        for block in self.down:
            features = block(features)
            if self.join is not None and joined is not None and not levels:
                features = self.join(torch.cat([features, joined], dim=1))
            levels.append(features)
        features = levels.pop()
        for narrow, block in zip(reversed(self.narrow), reversed(self.up), strict=True):
            features = F.interpolate(narrow(features), scale_factor=2.0, mode="bilinear")
            features = block(torch.cat([features, levels.pop()], dim=1))
        return features
