"""The line from a photograph to its vessels. The file to read first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resegnet.config import Config
from resegnet.engine import ENGINES, OnnxNetwork, TorchNetwork
from resegnet.fov import find_fov
from resegnet.geometry import Geometry, as_network_input
from resegnet.image import read_image
from resegnet.quality import find_warnings
from resegnet.results.segmentation import Segmentation

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Segmenter:
    """Finds the vessels of a fundus photograph. Calls do not depend on one another, so threads may share one.

    `network` maps (N, 3, S, S) float32 RGB in [0, 1] to the vessel probability (N, S, S) float32; S is
    `config.input_size`, or for a smaller field less, down to `config.smallest_input_size`.

    Examples
    --------
    >>> segmenter = Segmenter.from_pretrained()
    >>> result = segmenter("eye.jpg")
    >>> result.mask.shape == result.image.shape[:2]
    True
    """

    network: Callable[[np.ndarray], np.ndarray]
    config: Config
    model: str = ""  # where the weights came from: a folder, or a Hub id and revision
    folder: Path | None = None  # the release, where its records lie beside the weights

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        revision: str | None = None,
        engine: str | None = None,
        device: str = "cpu",
        threads: int | None = None,
    ) -> Segmenter:
        """Load a release: a bundled one, a folder, or a model of the Hugging Face Hub.

        Parameters
        ----------
        name
            Folder with `config.json` and `model.safetensors`, or a Hub id such as `user/resegnet`. None is `bundled`;
            `bundled-cc-by` was trained without DRIVE, whose terms do not suit everybody.
        revision
            Branch, tag or commit on the Hub.
        engine
            What runs the network: `onnx` (ONNX Runtime, 8-bit integers, CPU only, 3 to 6 times as fast) or `torch`
            (float32, as it was trained). None takes `onnx` where the release has a `model.onnx` and `device` is `cpu`.
        device
            Where torch runs, `cpu` or `cuda`.
        threads
            Of the engine `onnx`; None takes all processors that the process may use.

        Raises
        ------
        resegnet.config.ConfigError, resegnet.hub.WeightsError
            For a release that cannot be used.
        ValueError
            If a revision is asked of a folder, or for an engine that there is not or that cannot use the device.
        OSError
            If there is no such folder and the model cannot be had from the Hub.
        """
        from resegnet.hub import BUNDLED_RELEASES, CONFIG_NAME, ONNX_NAME, check_hashes, find_release

        if engine not in (None, *ENGINES) or (engine == "onnx" and device != "cpu"):
            raise ValueError(f"Got engine {engine!r} on {device}, expected 'onnx' (on cpu only), 'torch' or None.")
        if device != "cpu":
            import torch

            if not (device.startswith("cuda") and torch.cuda.is_available()):
                raise ValueError(f"Got device {device!r}, and torch sees no such device here. Use device='cpu'.")
        folder, commit = find_release(BUNDLED_RELEASES["bundled"] if name is None else name, revision)
        if engine is None:
            engine = "onnx" if device == "cpu" and (folder / ONNX_NAME).is_file() else "torch"
        if engine == "onnx":
            config = Config.load(folder / CONFIG_NAME)
            check_hashes(folder)
            size = None if config.smallest_input_size else config.input_size
            network = OnnxNetwork(folder / ONNX_NAME, size, threads)
        else:
            from resegnet.model import ReSegNet

            model = ReSegNet.from_pretrained(folder).to(device)
            network, config = TorchNetwork(model), model.config
        label = "bundled" if name is None else str(name)
        if commit is not None:
            label += f"@{commit[:12]}" if revision in (None, commit) else f"@{revision} ({commit[:12]})"
        return cls(network, config, label, folder)

    def __call__(self, source: Any) -> Segmentation:
        """Segment one photograph.

        Parameters
        ----------
        source
            Path, bytes, binary file, PIL image or array, see `resegnet.image.read_image`.

        Raises
        ------
        resegnet.image.ImageError
            For anything that is no readable picture; its text is fit to be shown.
        """
        image = read_image(source)
        pixels, fov, geometry = prepare_input(image, self.config)
        probability = geometry.to_original(self.network(as_network_input(pixels)[None])[0])
        return Segmentation(
            image=image,
            probability=probability,
            fov=fov,
            threshold=self.config.threshold,
            warnings=tuple(find_warnings(image, fov)),
            model=self.model,
        )


def prepare_input(image: np.ndarray, config: Config) -> tuple[np.ndarray, np.ndarray, Geometry]:
    """What comes before the network, in training as in prediction.

    Parameters
    ----------
    image
        (H, W, 3) uint8 RGB.
    config
        States the side S of the network's square, px.

    Returns
    -------
    pixels, fov, geometry
        (S, S, 3) uint8 for `as_network_input`, the field of view (H, W) bool, and the way back.
    """
    fov = find_fov(image)
    geometry = Geometry.around(fov, config.input_size, config.smallest_input_size)
    return geometry.to_input(image), fov, geometry
