"""The line from a photograph to its vessels. The file to read first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resegnet.config import Config
from resegnet.engine import ENGINES, OnnxNetwork, TorchNetwork
from resegnet.fov import find_fov
from resegnet.geometry import Geometry, as_network_input
from resegnet.image import read_image
from resegnet.quality import find_warnings

if TYPE_CHECKING:
    from resegnet.results.compare import Comparison


@dataclass(frozen=True)
class Segmentation:
    """The vessels of one photograph; every array is in the photograph's own frame, pixel for pixel."""

    image: np.ndarray  # (H, W, 3) uint8 RGB, as it was read
    probability: np.ndarray  # (H, W) float32 in [0, 1]
    fov: np.ndarray  # (H, W) bool, True inside the field of view
    threshold: float
    warnings: tuple[str, ...] = ()  # what a user should know about the photograph
    model: str = ""  # where the weights came from

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool: probability at or above the threshold, inside the field of view."""
        return (self.probability >= self.threshold) & self.fov

    def at(self, threshold: float) -> Segmentation:
        """The same result at another threshold in [0, 1], without a second forward pass.

        Raises
        ------
        ValueError
            If `threshold` is outside [0, 1].
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold is {threshold}, expected a number from 0 to 1.")
        return replace(self, threshold=float(threshold))

    def overlay(self, **options: Any) -> np.ndarray:
        """The photograph with its vessels painted over, (H, W, 3) uint8; see `resegnet.results.render.overlay`."""
        from resegnet.results.render import overlay

        return overlay(self.image, self.mask, **options)

    def measure(self, um_per_px: float | None = None) -> dict[str, float]:
        """Numbers of the vessels, see `resegnet.results.measure.measure_mask`."""
        from resegnet.results.measure import measure

        return measure(self, um_per_px)

    def calibre_map(self) -> np.ndarray:
        """What is measured, (H, W, 3) uint8: centrelines by calibre; see `resegnet.results.render.calibre_map`."""
        from resegnet.results.render import calibre_map

        return calibre_map(self.image, self.mask, self.fov)

    def compare(self, tracing: Any) -> Comparison:
        """Scores and error map against a person's tracing, see `resegnet.results.compare.compare`."""
        from resegnet.results.compare import compare

        return compare(self, tracing)

    def save(self, folder: str | Path, name: str = "photograph") -> dict[str, Path]:
        """Write mask, probability, overlay and a summary, see `resegnet.results.export.save`."""
        from resegnet.results.export import save

        return save(self, folder, name)


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
        from resegnet.hub import CONFIG_NAME, ONNX_NAME, SHIPPED, check_hashes, find_release

        if engine not in (None, *ENGINES) or (engine == "onnx" and device != "cpu"):
            raise ValueError(f"Got engine {engine!r} on {device}, expected 'onnx' (on cpu only), 'torch' or None.")
        if device != "cpu":
            import torch

            if not (device.startswith("cuda") and torch.cuda.is_available()):
                raise ValueError(f"Got device {device!r}, and torch sees no such device here. Use device='cpu'.")
        folder, commit = find_release(SHIPPED["bundled"] if name is None else name, revision)
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
        pixels, fov, geometry = prepare(image, self.config)
        probability = geometry.to_original(self.network(as_network_input(pixels)[None])[0])
        return Segmentation(
            image=image,
            probability=probability,
            fov=fov,
            threshold=self.config.threshold,
            warnings=tuple(find_warnings(image, fov)),
            model=self.model,
        )


def prepare(image: np.ndarray, config: Config) -> tuple[np.ndarray, np.ndarray, Geometry]:
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
