"""Numbers measured on a segmentation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from resegnet.segmenter import Segmentation


def measure(segmentation: Segmentation) -> dict[str, float]:
    """Measure the vessels at the segmentation's own threshold.

    Returns
    -------
    dict
        `field_area_px` and `vessel_area_px`: pixels of the photograph in the field of view, and of vessels in
        it. `vessel_density`: their share, in [0, 1]; nan without a field of view. It depends on the camera's
        angle of view and on how wide the model draws a vessel: compare photographs of one camera and one
        model only.
    """
    field_area = int(np.count_nonzero(segmentation.fov))
    vessel_area = int(np.count_nonzero(segmentation.mask))
    return {
        "field_area_px": field_area,
        "vessel_area_px": vessel_area,
        "vessel_density": vessel_area / field_area if field_area else math.nan,
    }
