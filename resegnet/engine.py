"""The two engines that run the network: torch, as trained, and ONNX Runtime, three to six times as fast on a CPU.

Both map numpy arrays: RGB, (N, 3, S, S) float32 in [0, 1], to the vessel probability, (N, S, S) float32 in [0, 1].
Both can be pickled.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resegnet.errors import WeightsError, first_line, short_repr

if TYPE_CHECKING:
    from resegnet.model import ReSegNet

ENGINES = ("onnx", "torch")


def processors() -> int:
    """Count the processors that this process may use; a container may have fewer than its machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class TorchNetwork:
    """Runs a `ReSegNet` on numpy arrays, on the device that holds it. On CUDA it computes in bfloat16.

    Pickled, it takes its weights along.
    """

    def __init__(self, model: ReSegNet) -> None:
        import torch

        # channels_last is about 1.4 times as fast on a CPU (measured).
        self._model = model.to(memory_format=torch.channels_last)
        self._device = next(model.parameters()).device

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Return the probability, (N, S, S) float32, of RGB, (N, 3, S, S) float32 in [0, 1]."""
        import torch

        self._model.eval()
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"),
        ):
            batch = torch.from_numpy(rgb).to(self._device, memory_format=torch.channels_last)
            return torch.sigmoid(self._model(batch).float())[:, 0].cpu().numpy()


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

    Raises
    ------
    WeightsError
        If the file is missing, cannot be read, has another SHA-256, or takes another input size.
    """

    def __init__(
        self, path: str | Path, input_size: int | None, threads: int | None = None, sha256: str | None = None
    ) -> None:
        import onnxruntime

        self._path = Path(path).absolute()  # another process may have another working folder
        self._input_size, self._threads = input_size, threads
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
            (self._input,), (output,) = self._session.get_inputs(), self._session.get_outputs()
        except Exception as error:  # ONNX Runtime raises a class of its own for each fault
            raise WeightsError(
                f"{path}: cannot be loaded ({first_line(error)}); expected the model.onnx of a "
                'release. Download it again, or use engine="torch".'
            ) from error
        # A side that may vary has a name in place of a number.
        sides = [side if isinstance(side, int) else None for side in (*self._input.shape[2:], *output.shape[1:])]
        if self._input.shape[1:2] != [3] or sides != [input_size] * 4:
            raise WeightsError(
                f"{path}: makes {short_repr(output.shape)} of {short_repr(self._input.shape)}, the config.json "
                f'beside it states {input_size or "a range of"} px. Download the release again, or use engine="torch".'
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return OnnxNetwork, (self._path, self._input_size, self._threads, self._sha256)

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Return the probability, (N, S, S) float32, of RGB, (N, 3, S, S) float32 in [0, 1].

        Raises
        ------
        WeightsError
            If the file holds a network that cannot be computed or does not give probabilities.
        """
        # One by one, since a batch is no faster on a CPU and takes N times the memory.
        try:
            answers = [self._session.run(None, {self._input.name: picture[None]})[0] for picture in rgb]
        except Exception as error:  # ONNX Runtime raises a class of its own for each fault
            raise WeightsError(
                f"{self._path}: cannot be computed ({first_line(error)}); expected the network of a release. "
                'Download it again, or use engine="torch".'
            ) from error
        probability = np.concatenate(answers)
        if probability.shape != (len(rgb), *rgb.shape[2:]) or not (probability.min() >= 0 and probability.max() <= 1):
            raise WeightsError(
                f"{self._path}: does not give one probability for each pixel; expected the network of a release. "
                'Download it again, or use engine="torch".'
            )
        return probability
