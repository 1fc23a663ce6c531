"""The losses that training minimises."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def bce_dice_loss(
    logits: torch.Tensor, vessels: torch.Tensor, field: torch.Tensor, dice_weight: float = 1.0
) -> torch.Tensor:
    """Return binary cross-entropy plus weighted Dice loss, inside the field of view.

    Dice (Milletari et al. 2016, doi:10.1109/3DV.2016.79) is computed over the batch, not per crop, because the quotient
    of a crop with hardly any vessel varies wildly. It is lowest for probabilities of 0 and 1, not for the true ones.

    Parameters
    ----------
    logits
        (N, 1, H, W) float32.
    vessels, field
        References and fields of view, (N, 1, H, W) float32 in [0, 1], with soft borders.
    dice_weight
        Weight of the Dice loss, >= 0.

    Returns
    -------
    loss
        Scalar, >= 0.
    """
    bce = F.binary_cross_entropy_with_logits(logits, vessels, weight=field, reduction="sum") / field.sum().clamp(min=1)
    probability = torch.sigmoid(logits) * field
    vessels = vessels * field
    dice = (2 * (probability * vessels).sum() + 1) / (probability.sum() + vessels.sum() + 1)
    return bce + dice_weight * (1 - dice)


def centreline_loss(logits: torch.Tensor, centrelines: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
    """Return the share of the centrelines that is missed.

    A thin vessel counts as much as a wide one of the same length. This is the skeleton recall loss (Kirchhoff et al.
    2024, arXiv:2404.03010), computed over the batch.

    Parameters
    ----------
    logits
        (N, 1, H, W) float32.
    centrelines, field
        Centrelines of the references, three pixels wide, and fields of view, (N, 1, H, W) float32 in [0, 1].

    Returns
    -------
    loss
        Scalar, 0 to 1.
    """
    centrelines = centrelines * field
    return 1 - ((torch.sigmoid(logits) * centrelines).sum() + 1) / (centrelines.sum() + 1)


def kinds_loss(logits: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of arteries and of veins on the pixels of labelled vessels.

    Parameters
    ----------
    logits, kinds
        (N, 2, H, W) float32: arteries, veins; `kinds` in [0, 1], soft at their borders, 0 where unknown.

    Returns
    -------
    loss
        Scalar, >= 0.
    """
    known = kinds.amax(dim=1, keepdim=True)
    shares = (kinds / known.clamp(min=1 / 255)).clamp(0, 1)
    bce = F.binary_cross_entropy_with_logits(logits, shares, reduction="none")
    # A crop with hardly a labelled pixel must not count as much as one full of vessels.
    return (bce * known).sum() / (2 * known.sum()).clamp(min=200)


def spot_loss(logits: torch.Tensor, spot: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of a small spot, weighted by pixel.

    Parameters
    ----------
    logits, spot, weight
        (N, 1, H, W) float32; `spot` in [0, 1], `weight` >= 0.

    Returns
    -------
    loss
        Scalar, >= 0.
    """
    bce = F.binary_cross_entropy_with_logits(logits, spot, reduction="none")
    return (bce * weight).sum() / weight.sum().clamp(min=1)
