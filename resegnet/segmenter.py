"""The steps from a photograph to its vessels, composed into one callable. Read this file first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resegnet.config import Config
from resegnet.engine import ENGINES, Network, OnnxNetwork, TorchNetwork, TwoLookNetwork
from resegnet.errors import ArgumentError, require_torch, short_repr
from resegnet.fov import FieldOfView, find_field_of_view
from resegnet.geometry import Geometry, as_network_input
from resegnet.image import ImageSource, read_picture
from resegnet.quality import BURNED_IN, find_warnings
from resegnet.results.anatomy import Anatomy
from resegnet.results.segmentation import Segmentation
from resegnet.softness import Edges, measure_edges, smaller_side


@dataclass(frozen=True)
class Segmenter:
    """Finds the vessels of a fundus photograph.

    Calls are independent of one another, so threads may share one segmenter. It can be pickled, for example to send it
    to other processes: the engine `torch` takes its weights along, the engine `onnx` reads them from its file again.

    Attributes
    ----------
    network
        Maps RGB, (N, 3, S, S) float32 in [0, 1], to the vessel probability, (N, S, S) float32 in [0, 1]. S is
        `config.input_size`, or for a smaller field less, down to `config.smallest_input_size`. A network of two looks
        has `look_twice` for this, see `resegnet.engine.TorchNetwork`.
    config
        The settings that a prediction depends on.
    model
        Name of the release: that of a bundled one, a folder, or a Hub id and revision.
    folder
        The folder of the release, which holds its records beside the weights. None for a network of your own.
    anatomy
        False leaves out arteries, veins, optic disc, fovea and eye, which a network of two looks tells too.

    Examples
    --------
    >>> segmenter = Segmenter.from_pretrained()
    >>> result = segmenter("eye.jpg")
    >>> result.mask.shape == result.image.shape[:2]
    True
    """

    network: Network
    config: Config
    model: str = ""
    folder: Path | None = None
    anatomy: bool = True

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        revision: str | None = None,
        engine: str | None = None,
        device: str = "cpu",
        threads: int | None = None,
        anatomy: bool = True,
    ) -> Segmenter:
        """Load a release: a bundled one, a folder, or a model of the Hugging Face Hub.

        Parameters
        ----------
        name
            `bundled`, which None stands for; `bundled-vessels`, which finds vessels alone, in less time;
            `bundled-cc-by`, trained without DRIVE, whose terms restrict its use; a folder with `config.json` and
            `model.safetensors`; or a Hub id such as `user/resegnet`.
        revision
            Branch, tag or commit on the Hub.
        engine
            Program that runs the network: `onnx` (ONNX Runtime, 8-bit integers, CPU only, 3 to 6 times as fast) or
            `torch` (float32, as it was trained). None takes `onnx` if the release has a `model.onnx` and `device` is
            `cpu`, else `torch`.
        device
            Device for torch: `cpu`, or `cuda` or `cuda:N` for a GPU.
        threads
            Number of threads of the network. None takes all processors that the process may use. For the engine `torch`
            the number holds for all that PyTorch does in the process.
        anatomy
            False leaves out arteries, veins, optic disc, fovea and eye, which a network of two looks tells too.

        Raises
        ------
        ConfigError, WeightsError
            If the release cannot be used.
        ArgumentError
            If the engine is unknown or cannot use the device, torch does not see the device, or a revision is given for
            a folder.
        MissingExtraError
            If the engine is `torch`, which is not installed.
        OSError
            If there is no such folder and the model cannot be downloaded from the Hub.
        """
        # The Hub's client takes longer to import than the rest of the package.
        from resegnet.hub import BUNDLED_RELEASES, CONFIG_NAME, ONNX_NAME, check_hashes, find_release

        if engine not in (None, *ENGINES) or (engine == "onnx" and device != "cpu"):
            raise ArgumentError(
                f"Got engine {engine!r} on {device}, expected 'onnx' (on cpu only), 'torch' or None: choose one."
            )
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise ArgumentError(f"threads is {short_repr(threads)}, expected a whole number of at least 1, or None.")
        device = str(device)  # a `torch.device` too
        if device != "cpu":
            require_torch(f"the device {device!r}")
            from resegnet.model import is_usable

            if not is_usable(device):
                raise ArgumentError(
                    f"Got device {device!r}, but torch sees no such device here; expected 'cpu', or 'cuda' or 'cuda:N' "
                    "for a GPU: use 'cpu'."
                )
        folder, commit = find_release(BUNDLED_RELEASES["bundled"] if name is None else name, revision)
        if engine is None:
            engine = "onnx" if device == "cpu" and (folder / ONNX_NAME).is_file() else "torch"
        config = Config.load(folder / CONFIG_NAME)
        network: Network
        if engine == "onnx":
            check_hashes(folder)
            size = None if config.smallest_input_size else config.input_size
            network = OnnxNetwork(folder / ONNX_NAME, size, threads, context_size=config.context_size)
        else:
            require_torch("the engine 'torch'")
            import torch

            from resegnet.model import ReSegNet

            if threads is not None:
                torch.set_num_threads(threads)
            network = TorchNetwork(ReSegNet.from_pretrained(folder).to(device))
        label = "bundled" if name is None else str(name)
        if commit is not None:
            label += f"@{commit[:12]}" if revision in (None, commit) else f"@{revision} ({commit[:12]})"
        return cls(network, config, label, folder, anatomy)

    @property
    def tells_anatomy(self) -> bool:
        """True if results have arteries, veins, disc and fovea."""
        return self.anatomy and self.config.context_size is not None

    def __call__(self, source: ImageSource) -> Segmentation:
        """Segment one photograph; at two sizes, with the mean as result, if it has more pixels than detail or its
        vessels are too few to tell, see `resegnet.softness.smaller_side`.

        Parameters
        ----------
        source
            Path, bytes, binary file, Pillow image or array, see `resegnet.image.read_image`.

        Raises
        ------
        ImageError
            If the source is not a readable picture. Its message can be shown to a user.
        """
        picture = read_picture(source)
        image = picture.pixels
        pixels, fov, geometry = prepare_input(image, self.config)
        context = prepare_context(image, geometry, self.config)
        found, planes = predict(self.network, pixels, context)
        probability = geometry.to_original(found)
        edges = measure_edges(image[..., 1], (probability >= self.config.threshold) & fov.mask, fov.diameter)
        side = second_size(self.config, edges, geometry)
        if side is not None:
            smaller = geometry.with_input_size(side)
            again, _ = predict(self.network, smaller.to_input(image), context)
            probability += smaller.to_original(again)
            probability /= 2
        anatomy = None
        if planes is not None and self.anatomy:
            small = geometry.with_input_size(planes.shape[-1])
            anatomy = Anatomy(planes * small.to_input(fov.mask), small)
        return Segmentation(
            image=image,
            probability=probability,
            fov=fov.mask,
            threshold=self.config.threshold,
            warnings=(
                *([BURNED_IN] if picture.burned_in else []),
                *find_warnings(image, fov, (probability >= self.config.threshold) & fov.mask, edges),
            ),
            model=self.model,
            anatomy=anatomy,
            um_per_px=picture.um_per_px,
        )


def second_size(config: Config, edges: Edges | None, geometry: Geometry) -> int | None:
    """Return the side of the square, px, for a second segmentation of a soft photograph; None if it needs none."""
    if config.smallest_input_size is None:  # a network of one size
        return None
    scale = geometry.input_size / geometry.box[2]
    return smaller_side(edges, geometry.input_size, scale, config.smallest_input_size)


def predict(network: Network, pixels: np.ndarray, context: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Run the network on one photograph.

    Parameters
    ----------
    network
        Of one look, or of two if there is a `context`.
    pixels, context
        From `prepare_input` and `prepare_context`.

    Returns
    -------
    probability
        (S, S) float32, of vessels.
    anatomy
        (4, C, C) float32, probability of `resegnet.config.ANATOMY`; None for a network of one look.
    """
    rows = _filled_rows(pixels) if getattr(network, "takes_rectangles", False) else slice(0, len(pixels))
    rgb = as_network_input(pixels[rows])[None]
    probability = np.zeros(pixels.shape[:2], np.float32)
    if context is None:
        probability[rows] = network(rgb)[0]
        return probability, None
    if not isinstance(network, TwoLookNetwork):
        raise ArgumentError(f"Got {network!r} for a release of two looks, expected a network with `look_twice`.")
    vessels, anatomy = network.look_twice(rgb, as_network_input(context)[None])
    probability[rows] = vessels[0]
    return probability, anatomy[0]


def _filled_rows(pixels: np.ndarray) -> slice:
    """Rows of a square, (S, S, 3) uint8, that the network has to see; it saves time where the frame cuts the field off.

    Equally many rows are left out at the top and at the bottom, a multiple of 32 in all, as the stages of the network
    halve the sides. At least 16 black rows stay, since the padding of a convolution disturbs its last pixels.
    """
    filled = np.flatnonzero(pixels.any(axis=(1, 2)))
    if not len(filled):
        return slice(0, len(pixels))
    spare = min(int(filled[0]), len(pixels) - 1 - int(filled[-1])) - 16
    left_out = max(spare // 16 * 16, 0)
    return slice(left_out, len(pixels) - left_out)


def prepare_context(image: np.ndarray, geometry: Geometry, config: Config) -> np.ndarray | None:
    """Scale the box round the field to the second look, (C, C, 3) uint8; None for a network of one look."""
    return None if config.context_size is None else geometry.with_input_size(config.context_size).to_input(image)


def prepare_input(image: np.ndarray, config: Config) -> tuple[np.ndarray, FieldOfView, Geometry]:
    """Crop and scale a photograph for the network, in training as in prediction.

    Parameters
    ----------
    image
        (H, W, 3) uint8 RGB.
    config
        Holds the side S of the network's square, px.

    Returns
    -------
    pixels
        (S, S, 3) uint8, for `as_network_input`.
    fov
        The field of view, in the photograph's frame.
    geometry
        The transform between the two frames.
    """
    fov = find_field_of_view(image)
    geometry = Geometry.around(fov.mask, config.input_size, config.smallest_input_size)
    return geometry.to_input(image), fov, geometry
