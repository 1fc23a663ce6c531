"""The two engines that run the network: torch, as trained, and ONNX Runtime, three to six times as fast on a CPU.

Both are functions of numpy arrays: (N, 3, S, S) float32 RGB in [0, 1] to the vessel probability, (N, S, S) float32.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from resegnet.errors import short_repr

if TYPE_CHECKING:
    from resegnet.model import ReSegNet

ENGINES = ("onnx", "torch")


def processors() -> int:
    """Processors that this process may use; a container has fewer than its machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class TorchNetwork:
    """A `ReSegNet` as a function of numpy arrays; on CUDA it computes in bfloat16."""

    def __init__(self, model: ReSegNet) -> None:
        import torch

        self._torch = torch
        # channels_last is about 1.4 times as fast on a CPU (measured).
        self._model = model.to(memory_format=torch.channels_last)
        self._device = next(model.parameters()).device

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """(N, 3, S, S) float32 in [0, 1] to (N, S, S) float32 probability."""
        torch = self._torch
        self._model.eval()
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"),
        ):
            batch = torch.from_numpy(rgb).to(self._device, memory_format=torch.channels_last)
            return torch.sigmoid(self._model(batch).float())[:, 0].cpu().numpy()


class OnnxNetwork:
    """The `model.onnx` of a release as a function of numpy arrays, by ONNX Runtime on the CPU; torch is not needed.

    Parameters
    ----------
    path
        The file.
    input_size
        Side S that the release's config states; None where it states a range.
    threads
        None takes as many as the process may use.

    Raises
    ------
    resegnet.hub.WeightsError
        If the file is missing, cannot be read, or is of another input size.
    """

    def __init__(self, path: str | Path, input_size: int | None, threads: int | None = None) -> None:
        import onnxruntime

        from resegnet.errors import WeightsError, first_line
        from resegnet.hub import ONNX_NAME

        options = onnxruntime.SessionOptions()
        # Its own choice counts the machine's cores, not the processors that this process may use.
        options.intra_op_num_threads = threads or processors()
        options.log_severity_level = 3
        # Weights that the file wants to take from other files are sought where there is nothing, not in the folder that
        # the program was started in.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        try:
            # Read here, so that no data beside the file is ever looked up.
            if not Path(path).is_file():  # to open a pipe or a device could take for ever
                raise OSError("there is no such file")
            self._session = onnxruntime.InferenceSession(
                Path(path).read_bytes(), options, providers=["CPUExecutionProvider"]
            )
            (self._input,), (output,) = self._session.get_inputs(), self._session.get_outputs()
        except Exception as error:  # ONNX Runtime has a class for each of its faults, below Exception
            raise WeightsError(
                f"{path}: cannot be loaded ({first_line(error)}); expected the {ONNX_NAME} of a "
                'release. Download it again, or use engine="torch".'
            ) from error
        # Of a range, the sides have a name in place of a number.
        sides = [side if isinstance(side, int) else None for side in (*self._input.shape[2:], *output.shape[1:])]
        if self._input.shape[1:2] != [3] or sides != [input_size] * 4:
            raise WeightsError(
                f"{path}: makes {short_repr(output.shape)} of {short_repr(self._input.shape)}, the config.json "
                f'beside it states {input_size or "a range of"} px. Download the release again, or use engine="torch".'
            )
        self._path = path

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """(N, 3, S, S) float32 in [0, 1] to (N, S, S) float32 probability."""
        from resegnet.errors import WeightsError, first_line

        # One by one: a batch is no faster on a CPU and takes N times the memory.
        try:
            answers = [self._session.run(None, {self._input.name: picture[None]})[0] for picture in rgb]
        except Exception as error:  # as above
            raise WeightsError(
                f"{self._path}: cannot be computed ({first_line(error)}); expected the network of a release. "
                'Download it again, or use engine="torch".'
            ) from error
        probability = np.concatenate(answers)
        if probability.shape != (len(rgb), *rgb.shape[2:]) or not (probability.min() >= 0 and probability.max() <= 1):
            raise WeightsError(
                f"{self._path}: gives what is no probability for each pixel; expected the network of a release. "
                'Download it again, or use engine="torch".'
            )
        return probability
