"""From the trained network to `model.onnx`: the same network in 8-bit integers, for ONNX Runtime on a CPU."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_static,
)
from torch import nn

from resegnet.geometry import as_network_input
from resegnet.model import ReSegNet

# What the first convolutions lose of thin vessels, no later one brings back. Seen on four photographs, mean difference
# from float32: all in integers 0.042, without the first 0.032, three 0.008, five 0.006, eight 0.004. They are few of
# all operations. The last ones may be integers: 0.042 without those.
FLOAT_CONVOLUTIONS = 8

# Of a photograph that is not normalised, which is then not rounded at all.
_OWN_BITS = {"rgb": [{"scale": np.array(1 / 255, np.float32), "zero_point": np.array(0, np.uint8)}]}


class _Probability(nn.Module):
    """The network with what `TorchNetwork` does after it."""

    def __init__(self, model: ReSegNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.model(rgb))[:, 0]


class _Photographs(CalibrationDataReader):
    def __init__(self, photographs: Sequence[np.ndarray]) -> None:
        self._left = iter(photographs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        pixels = next(self._left, None)
        return None if pixels is None else {"rgb": as_network_input(pixels)[None]}


def _free_size(path: Path) -> None:
    """Let an exported network take squares of any side that its stages can halve, in place.

    Only the decoder's doublings and the sides of input and output are noted in numbers. An export with symbolic sides
    would keep the encoder's paddings as computations of a quarter of the graph, though they are the same for all sides.
    """
    graph = (network := onnx.load(path)).graph
    unused = {name for node in graph.node if node.op_type == "Resize" for name in node.input[3:]}
    kept = [tensor for tensor in graph.initializer if tensor.name not in unused]
    del graph.initializer[:]
    twice = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice")
    graph.initializer.extend([*kept, twice])
    for node in graph.node:
        if node.op_type == "Resize":  # inputs: picture, region, scales, sizes
            node.input[:] = [node.input[0], "", twice.name]
    del graph.value_info[:]  # shapes between the layers
    for sides in (graph.input[0].type.tensor_type.shape.dim[2:], graph.output[0].type.tensor_type.shape.dim[1:]):
        for side in sides:
            side.dim_param = "S"
    onnx.save(network, path)


def write_onnx(model: ReSegNet, photographs: Sequence[np.ndarray], path: Path) -> None:
    """Export the network and quantise it (static, per channel) with the ranges that it shows on real photographs.

    The first `FLOAT_CONVOLUTIONS` stay in float32, but of a network that takes the photograph as it is: that begins
    with the photograph's own 8 bits.

    Weights are kept to 7 bits: with 8 the sums of two products overflow on processors without VNNI, and the result
    would depend on the machine.

    Parameters
    ----------
    model
        In float32; its weights stay as they are.
    photographs
        Some training photographs at their working sizes, (S, S, 3) uint8, of every camera.
    path
        File to write, one picture in and its probability out.
    """
    size = model.config.input_size
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own inner workings
        program = torch.onnx.export(
            _Probability(model).eval(),
            (torch.zeros(1, 3, size, size),),
            dynamo=True,
            opset_version=20,
            input_names=["rgb"],
            output_names=["probability"],
            external_data=False,
            verbose=False,
        )
        plain, prepared = Path(folder) / "plain.onnx", Path(folder) / "prepared.onnx"
        program.save(plain)
        if model.config.smallest_input_size is not None:
            _free_size(plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        raw = not model.config.normalises
        convolutions = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Conv"]
        quantize_static(
            prepared,
            path,
            _Photographs(photographs),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            nodes_to_exclude=[] if raw else convolutions[:FLOAT_CONVOLUTIONS],
            extra_options={
                # The mean of the photographs' ranges, not the widest: one odd photograph then shifts no other.
                "CalibMovingAverage": True,
                "CalibMovingAverageConstant": 0.2,
                "TensorQuantOverrides": _OWN_BITS if raw else {},
            },
        )
