"""A segmented photograph, encoded for the browser."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from resegnet.results.segmentation import Segmentation
from resegnet.web.layers import Shapes, find_shapes
from resegnet.web.levels import count_levels, pack, probability_levels, slider_stops

# For the screen only; downloads are PNG. Colour is kept at full resolution, because the thinnest vessels are one pixel
# wide. A photograph of 3504 x 2336 px takes 0.8 MB and 0.04 s; as PNG it would take 9 MB and 1 s.
JPEG_QUALITY, JPEG_SUBSAMPLING = 85, 0


@dataclass(frozen=True)
class Encoded:
    """A segmented photograph, encoded for the browser; see `resegnet.web.messages.ShownPhotograph`."""

    photograph: bytes  # JPEG
    levels: bytes  # packed
    counts: list[int]
    stops: list[float]
    fitted: int
    model: str
    height: int  # px
    width: int
    um_per_px: float | None
    warnings: list[str]
    has_kinds: bool
    shapes: Shapes


def encode(result: Segmentation, model: str) -> Encoded:
    """Encode a result at the fitted threshold of the model of this name."""
    jpeg = BytesIO()
    Image.fromarray(result.image).save(jpeg, "JPEG", quality=JPEG_QUALITY, subsampling=JPEG_SUBSAMPLING)
    stops = slider_stops(result.threshold)
    levels = probability_levels(result, stops)
    height, width = result.image.shape[:2]
    return Encoded(
        photograph=jpeg.getvalue(),
        levels=pack(levels),
        counts=count_levels(levels[result.fov], stops),
        stops=stops,
        fitted=stops.index(result.threshold),
        model=model,
        height=height,
        width=width,
        um_per_px=result.um_per_px,
        warnings=list(result.warnings),
        has_kinds=result.anatomy is not None,
        shapes=find_shapes(result),
    )
