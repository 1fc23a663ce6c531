"""How far apart two colours are to people who see colours differently."""

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab

# Machado et al. 2009, 10.1109/TVCG.2009.113, severity 1, on linear RGB.
EYES = {
    "usual": np.eye(3),
    "protanopic": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopic": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
    "tritanopic": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.3039],
    ],
}


def distance(one: tuple[int, int, int], other: tuple[int, int, int], eye: str) -> float:
    """CIEDE2000 of two colours as one of `EYES` sees them."""

    def seen(color: tuple[int, int, int]) -> np.ndarray:
        linear = (np.array(color) / 255) ** 2.2
        return rgb2lab(np.clip(EYES[eye] @ linear, 0, 1) ** (1 / 2.2))

    return float(deltaE_ciede2000(seen(one), seen(other)))
