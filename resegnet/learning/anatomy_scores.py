"""Scores of arteries, veins, optic disc and fovea on validation photographs, in the context's frame."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from resegnet.config import ANATOMY
from resegnet.learning.anatomy import AnatomySample
from resegnet.model import ReSegNet
from resegnet.two_looks import TwoLooks

DISC_DIAMETER = 0.148  # of the median disc, in sides of the square round the field (54 photographs of IDRiD)


def count_kinds(anatomy: np.ndarray, context: np.ndarray) -> tuple[int, int]:
    """Count the vessel pixels of one kind, and those among them whose kind is told right.

    Parameters
    ----------
    anatomy
        Probability of `resegnet.config.ANATOMY`, (4, C, C).
    context
        Planes of `WorkingSample.context`, (7, C, C) uint8.

    Returns
    -------
    right, known
        Numbers of pixels. Both are 0 for a photograph without labels.
    """
    arteries, veins = context[5] > 127, context[6] > 127
    known = arteries != veins
    artery, vein = (anatomy[ANATOMY.index(name)] for name in ("artery", "vein"))
    return int(np.count_nonzero(((artery > vein) == arteries) & known)), int(np.count_nonzero(known))


def score_centres(model: ReSegNet, samples: Iterable[AnatomySample]) -> dict[str, float]:
    """Find disc and fovea where their probability is highest, and score the places.

    Returns
    -------
    scores
        `disc` and `fovea`: share of the photographs whose place is within half a disc diameter of the labelled centre.
        One that is labelled nowhere is left out.
    """
    net = model.net
    assert isinstance(net, TwoLooks)
    model.eval()
    near: dict[str, list[bool]] = {"disc": [], "fovea": []}
    for sample in samples:
        rgb = torch.from_numpy(sample.planes[:3]).float()[None] / 255
        with torch.inference_mode():
            _, logits = net.look_around(model.normalised(rgb.to(model.mean.device)))
        side = sample.planes.shape[-1]
        for name, centre in (("disc", sample.disc_centre), ("fovea", sample.fovea_centre)):
            if centre is not None:
                plane = _smooth(logits[0, 1 + ANATOMY.index(name)].float())
                place = np.array(divmod(int(plane.argmax()), side)) + 0.5
                near[name].append(bool(np.hypot(*(place - centre)) < DISC_DIAMETER / 2 * side))
    return {name: float(np.mean(found)) for name, found in near.items() if found}


def _smooth(logits: torch.Tensor) -> torch.Tensor:
    """Return the probability averaged over about a fovea, so that one odd pixel decides nothing; (C, C)."""
    width = round(0.04 * len(logits)) // 2 * 2 + 1
    probability = torch.sigmoid(logits)[None, None]
    return torch.nn.functional.avg_pool2d(probability, width, 1, width // 2, count_include_pad=False)[0, 0]
