"""Pictures of what the network finds, written during training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from resegnet.io import png, write_atomically
from resegnet.learning.crops import WorkingSample
from resegnet.learning.run import Run

_MAX_ROWS = 4


def write_preview(run: Run, samples: Sequence[WorkingSample], path: Path) -> None:
    """Write a picture with one row per validation photograph: photograph, reference, probability.

    Parameters
    ----------
    run
        Provides the averaged weights.
    samples
        Validation photographs, at least one. At most four are shown, spread evenly so that every data set is seen.
    path
        PNG file to write.
    """
    rows = []
    for index in np.linspace(0, len(samples) - 1, min(_MAX_ROWS, len(samples))).astype(int):
        sample = samples[index]
        probability = np.round(run.predict(sample) * 255).astype(np.uint8)
        maps = [np.repeat(grey[:, :, None], 3, axis=2) for grey in (sample.vessels, probability)]
        side = run.model.config.input_size
        rows.append(np.asarray(Image.fromarray(np.hstack([sample.pixels, *maps])).resize((3 * side, side))))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, png(np.vstack(rows)))
