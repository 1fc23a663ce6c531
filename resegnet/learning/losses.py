"""What training minimises."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def bce_dice_loss(
    logits: torch.Tensor, vessels: torch.Tensor, field: torch.Tensor, dice_weight: float = 1.0
) -> torch.Tensor:
    """Binary cross-entropy plus weighted Dice loss, inside the field of view.

    Dice (Milletari et al. 2016, doi:10.1109/3DV.2016.79) is taken over the batch, not per crop: a crop with hardly a
    vessel in it would make its own quotient jump. It is least for answers of 0 and 1, not for the true shares.

    Parameters
    ----------
    logits, vessels, field
        (N, 1, H, W) float32; `vessels` and `field` in [0, 1], soft at their borders.
    dice_weight
        Of the Dice loss, >= 0.

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
    """Share of the centre lines that is missed, so that a thin vessel counts as much as a wide one of its length.

    Skeleton recall loss (Kirchhoff et al. 2024, arXiv:2404.03010), over the batch.

    Parameters
    ----------
    logits, centrelines, field
        (N, 1, H, W) float32; `centrelines`, three pixels wide, and `field` in [0, 1].

    Returns
    -------
    loss
        Scalar, 0 to 1.
    """
    centrelines = centrelines * field
    return 1 - ((torch.sigmoid(logits) * centrelines).sum() + 1) / (centrelines.sum() + 1)
