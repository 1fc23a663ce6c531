"""The two engines that run the network: torch, as trained, and ONNX Runtime, three to six times as fast on a CPU.

Both map numpy arrays: RGB, (N, 3, S, S) float32 in [0, 1], to the vessel probability, (N, S, S) float32 in [0, 1].
Both can be pickled.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from resegnet.config import ANATOMY
from resegnet.errors import WeightsError, first_line, short_repr

if TYPE_CHECKING:
    import torch

    from resegnet.model import ReSegNet

ENGINES = ("onnx", "torch")
CONTEXT_INPUT = "context"  # name of the second input of two looks in `model.onnx`


def processors() -> int:
    """Count the processors that this process may use; a container may have fewer, or a share of their time."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min(count, processor_quota(Path("/sys/fs/cgroup"))))


def processor_quota(cgroup: Path) -> float:
    """Return how many processors' time a container may use, as `docker run --cpus` or Kubernetes limit it.

    Parameters
    ----------
    cgroup
        Where Linux shows the limits of control groups, of version 2 (`cpu.max`) or 1 (`cpu/cpu.cfs_quota_us`).

    Returns
    -------
    quota
        More than 0; infinity without a limit, and where it cannot be read.
    """
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        share = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # other systems have no such files; "max" is no number
        return math.inf
    return share if share > 0 else math.inf  # version 1 writes -1 for no limit


def cpu_has_fast_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware.

    Training then takes half the time of float32 (measured on Zen 4), and bfloat16 needs no scaling of the loss.
    """
    import torch

    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.8 does not have it
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


class Network(Protocol):
    """A network of one look on numpy arrays."""

    def __call__(self, rgb: np.ndarray, /) -> np.ndarray:
        """Return the probability, (N, S, S) float32, of RGB, (N, 3, S, S) float32 in [0, 1]."""
        ...


@runtime_checkable
class TwoLookNetwork(Protocol):
    """A network of two looks on numpy arrays."""

    def look_twice(self, rgb: np.ndarray, context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the vessels and the anatomy, see `TorchNetwork.look_twice`."""
        ...


class TorchNetwork:
    """Runs a `ReSegNet` on numpy arrays, on the device that holds it.

    On CUDA, or if asked for, it computes in bfloat16.

    Pickled, it takes its weights along.
    """

    takes_rectangles = True

    def __init__(self, model: ReSegNet, bfloat16: bool = False) -> None:
        import torch

        # channels_last is about 1.4 times as fast on a CPU (measured).
        self._model = model.to(memory_format=torch.channels_last)
        self._bfloat16 = bfloat16

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Return the probability, (N, S, S) float32, of RGB, (N, 3, S, S) float32 in [0, 1]."""
        return self.run(rgb)[0]

    def look_twice(self, rgb: np.ndarray, context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run a network of two looks.

        Parameters
        ----------
        rgb, context
            (N, 3, S, S) and (N, 3, C, C) float32 in [0, 1], one square of the photograph at two scales.

        Returns
        -------
        probability
            (N, S, S) float32, of vessels.
        anatomy
            (N, 4, C, C) float32, the probability of each of `resegnet.config.ANATOMY`.
        """
        probability, anatomy = self.run(rgb, context)
        return probability, anatomy

    def look_around(self, context: np.ndarray) -> np.ndarray:
        """Run the context branch alone: the `anatomy` of `look_twice`."""
        return self._compute(lambda context: [self._model.look_around(context)[:, 1:]], context)[0]

    def run(self, *looks: np.ndarray) -> list[np.ndarray]:
        """Return the vessel probability, and for two looks that of the anatomy, see `look_twice`."""

        def logits(*looks: torch.Tensor) -> list[torch.Tensor]:
            found = self._model(*looks)
            return [found[:, 0]] if len(looks) == 1 else [found[0][:, 0], found[1][:, 1:]]

        return self._compute(logits, *looks)

    def _compute(self, logits: Callable[..., list[torch.Tensor]], *looks: np.ndarray) -> list[np.ndarray]:
        """Return the probabilities of the logits that a function finds in the looks."""
        import torch

        self._model.eval()
        device = next(self._model.parameters()).device  # asked each time: ZeroGPU moves the weights when it lends a GPU
        bfloat16 = self._bfloat16 or device.type == "cuda"
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            batches = [torch.from_numpy(look).to(device, memory_format=torch.channels_last) for look in looks]
            return [torch.sigmoid(part.float()).cpu().numpy() for part in logits(*batches)]


class OnnxNetwork:
    """Runs the `model.onnx` of a release on numpy arrays, by ONNX Runtime on the CPU; torch is not needed.

    Pickled, it is the path and the SHA-256 of the file, which must still be there, unchanged, when it is unpickled.

    Parameters
    ----------
    path
        The file.
    input_size
        Side S that the release's config states; None if it states a range.
    threads
        Number of threads. None takes as many as the process may use processors.
    sha256
        The expected SHA-256 of the file, as hexadecimal text. None accepts any.
    context_size
        Side of the second square of two looks; None for a network of one look.

    Raises
    ------
    WeightsError
        If the file is missing, cannot be read, has another SHA-256, or takes another input size.

    Attributes
    ----------
    takes_rectangles
        Whether squares may lack rows, see `resegnet.segmenter.predict`. False for a file with one name for both
        sides, such as that of `bundled-vessels`.
    """

    def __init__(
        self,
        path: str | Path,
        input_size: int | None,
        threads: int | None = None,
        sha256: str | None = None,
        context_size: int | None = None,
    ) -> None:
        import onnxruntime

        self._path = Path(path).absolute()  # another process may have another working folder
        self._input_size, self._threads, self._context_size = input_size, threads, context_size
        options = onnxruntime.SessionOptions()
        # Left alone, ONNX Runtime counts the machine's cores, not the processors that this process may use.
        options.intra_op_num_threads = threads or processors()
        options.log_severity_level = 3
        # A file can refer to weights in other files. They are looked up in a place that holds none, not in the working
        # folder.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        try:
            if not self._path.is_file():  # opening a pipe or a device could block for ever
                raise OSError("there is no such file")
            content = self._path.read_bytes()
            self._sha256 = hashlib.sha256(content).hexdigest()
            if sha256 not in (None, self._sha256):
                raise OSError("it is not the file that was pickled")
            # Given bytes, not a path, ONNX Runtime never looks up data beside the file.
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            self._input, *others = self._session.get_inputs()
            output, *other_outputs = self._session.get_outputs()
            expected = []
            if context_size is not None:
                expected = [(CONTEXT_INPUT, [1, 3, *[context_size] * 2], [1, len(ANATOMY), *[context_size] * 2])]
            if [(one.name, one.shape, two.shape) for one, two in zip(others, other_outputs, strict=True)] != expected:
                raise ValueError(f"its second look is not {expected[0] if expected else 'absent'}")
        except Exception as error:  # ONNX Runtime raises a class of its own for each fault
            raise WeightsError(
                f"{path}: cannot be loaded ({first_line(error)}); expected the model.onnx of a "
                'release. Download it again, or use engine="torch".'
            ) from error
        # A side that may vary has a name in place of a number.
        self.takes_rectangles = len({side for side in self._input.shape[2:] if isinstance(side, str)}) == 2
        sides = [side if isinstance(side, int) else None for side in (*self._input.shape[2:], *output.shape[1:])]
        if self._input.shape[1:2] != [3] or sides != [input_size] * 4:
            raise WeightsError(
                f"{path}: makes {short_repr(output.shape)} of {short_repr(self._input.shape)}, the config.json "
                f'beside it states {input_size or "a range of"} px. Download the release again, or use engine="torch".'
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return OnnxNetwork, (
            self._path,
            self._input_size,
            self._threads,
            self._sha256,
            self._context_size,
        )

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Return the probability, (N, S, S) float32, of RGB, (N, 3, S, S) float32 in [0, 1].

        Raises
        ------
        WeightsError
            If the file holds a network that cannot be computed or does not give probabilities.
        """
        return self._run([{self._input.name: picture[None]} for picture in rgb], [rgb.shape[2:]])[0]

    def look_twice(self, rgb: np.ndarray, context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run a network of two looks, see `TorchNetwork.look_twice`.

        Raises
        ------
        WeightsError
            If the file holds a network that cannot be computed or does not give probabilities.
        """
        looks = zip(rgb, context, strict=True)
        probability, anatomy = self._run(
            [{self._input.name: detail[None], CONTEXT_INPUT: around[None]} for detail, around in looks],
            [rgb.shape[2:], (len(ANATOMY), *context.shape[2:])],
        )
        return probability, anatomy

    def _run(self, inputs: list[dict[str, np.ndarray]], shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
        """Return the outputs of N inputs, (N, *shape) each."""
        # One by one, since a batch is no faster on a CPU and takes N times the memory.
        try:
            answers = [self._session.run(None, names) for names in inputs]
        except Exception as error:  # ONNX Runtime raises a class of its own for each fault
            raise WeightsError(
                f"{self._path}: cannot be computed ({first_line(error)}); expected the network of a release. "
                'Download it again, or use engine="torch".'
            ) from error
        outputs = [np.concatenate(parts) for parts in zip(*answers, strict=True)]
        if [output.shape for output in outputs] != [(len(inputs), *shape) for shape in shapes] or not all(
            output.min() >= 0 and output.max() <= 1 for output in outputs
        ):
            raise WeightsError(
                f"{self._path}: does not give one probability for each pixel; expected the network of a release. "
                'Download it again, or use engine="torch".'
            )
        return outputs
