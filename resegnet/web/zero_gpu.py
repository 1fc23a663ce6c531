"""ZeroGPU of the Hugging Face Hub: a Space borrows a GPU for the seconds that the network runs."""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from resegnet.engine import TorchNetwork
from resegnet.errors import require
from resegnet.segmenter import Segmenter

# Longest time for one photograph, seconds. The Hub looks whether a visitor's quota has all of it left before it lends
# the GPU, and lends sooner for less. Two CPU cores need less than a second; the first call also moves the weights.
LENT_S = 10


class LentGpuNetwork:
    """Runs a network inside the one function for which ZeroGPU lends a GPU. Elsewhere `spaces` changes nothing.

    ZeroGPU runs that function in a process of its own, and sends arguments and results as numpy arrays.

    Parameters
    ----------
    network
        Of one look or of two.

    Raises
    ------
    MissingExtraError
        If the package `spaces` is not installed.
    """

    takes_rectangles = TorchNetwork.takes_rectangles

    def __init__(self, network: TorchNetwork) -> None:
        require("spaces", "a page on ZeroGPU")
        import spaces

        @spaces.GPU(duration=LENT_S)
        def run(*looks: np.ndarray) -> list[np.ndarray]:
            return network.run(*looks)

        self._run = run

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Run a network of one look, see `resegnet.engine.TorchNetwork`."""
        return self._run(rgb)[0]

    def look_twice(self, rgb: np.ndarray, context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run a network of two looks, see `resegnet.engine.TorchNetwork.look_twice`."""
        probability, anatomy = self._run(rgb, context)
        return probability, anatomy


def is_zero_gpu() -> bool:
    """Tell whether this process runs in a Space on ZeroGPU, by the variable that the Hub sets there."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def load_for_zero_gpu(name: str | None, revision: str | None) -> Segmenter:
    """Load a release whose network runs on the GPU that ZeroGPU lends.

    Call this in the main thread, before anything imports torch: there `spaces` stands in for CUDA until a GPU is lent.

    Parameters
    ----------
    name, revision
        As in `Segmenter.from_pretrained`, which tells the errors too.
    """
    require("spaces", "a page on ZeroGPU")
    import spaces  # noqa: F401

    segmenter = Segmenter.from_pretrained(name, revision=revision, engine="torch", device="cuda")
    assert isinstance(segmenter.network, TorchNetwork)
    return dataclasses.replace(segmenter, network=LentGpuNetwork(segmenter.network))
