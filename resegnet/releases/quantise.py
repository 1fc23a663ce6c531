"""Quantisation: writes `model.onnx`, the trained network in 8-bit integers for ONNX Runtime on a CPU."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_static,
)
from torch import nn

from resegnet.config import ANATOMY, Config
from resegnet.engine import CONTEXT_INPUT
from resegnet.geometry import as_network_input
from resegnet.model import ReSegNet

# Number of convolutions at the input that stay in float32: thin vessels that they lose cannot be recovered later, and
# they are a small part of all operations. Mean difference from float32, measured on four photographs, with this many
# convolutions in float32: none 0.042, one 0.032, three 0.008, five 0.006, eight 0.004. Leaving out the last
# convolutions instead has no effect (0.042).
FLOAT_CONVOLUTIONS = 8

# Scale and zero point of an input in the photograph's own 8 bits, which therefore loses nothing.
_IN_8_BITS = [{"scale": np.array(1 / 255, np.float32), "zero_point": np.array(0, np.uint8)}]

# A photograph as the network's input: (S, S, 3) uint8, and for two looks the context (C, C, 3) uint8 beside it.
Look = np.ndarray | tuple[np.ndarray, np.ndarray]


class _Probability(nn.Module):
    """The network, followed by the sigmoid as in `TorchNetwork`."""

    def __init__(self, model: ReSegNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, rgb: torch.Tensor, *context: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        if not context:
            return torch.sigmoid(self.model(rgb))[:, 0]
        vessels, around = self.model(rgb, *context)
        return torch.sigmoid(vessels)[:, 0], torch.sigmoid(around)[:, 1:]


class _Photographs(CalibrationDataReader):
    """Feeds photographs to the calibration, one at a time."""

    def __init__(self, photographs: Sequence[Look]) -> None:
        self._remaining = iter(photographs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        looks = next(self._remaining, None)
        if looks is None:
            return None
        squares = (looks,) if isinstance(looks, np.ndarray) else looks
        return {
            name: as_network_input(square)[None] for name, square in zip(("rgb", CONTEXT_INPUT), squares, strict=False)
        }


def _allow_any_size(path: Path) -> None:
    """Rewrite an exported network in place, so that it accepts rectangles of any sides that its stages can halve.

    The exported file states fixed sizes in the decoder's resize nodes and in the shapes of input and output only. An
    export with symbolic sides would instead compute the encoder's paddings at run time, a quarter of the graph, though
    they are the same for all sides.
    """
    graph = (network := onnx.load(path)).graph
    resized = {node.output[0]: node for node in graph.node if node.op_type == "Resize"}
    shapes = {value.name: [side.dim_value for side in value.type.tensor_type.shape.dim] for value in graph.value_info}
    unused = {name for node in graph.node if node.op_type == "Resize" for name in node.input[3:]}
    kept = [tensor for tensor in graph.initializer if tensor.name not in unused]
    del graph.initializer[:]
    twice = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice")
    graph.initializer.extend([*kept, twice])
    for name, node in resized.items():  # inputs: picture, region, scales, sizes
        if shapes[name][2] == 2 * shapes[node.input[0]][2]:
            node.input[:] = [node.input[0], "", twice.name]
        else:
            _resize_and_cut(graph, node, channels=shapes[name][1])
    del graph.value_info[:]  # shapes between the layers
    for sides in (graph.input[0].type.tensor_type.shape.dim[2:], graph.output[0].type.tensor_type.shape.dim[1:]):
        for side, name in zip(sides, ("H", "W"), strict=True):
            side.dim_param = name
    onnx.save(network, path)


def _remove_traces(path: Path) -> None:
    """Remove the exporter's notes on each node: among them are stack traces, with paths of the machine that exports."""
    graph = (network := onnx.load(path)).graph
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    onnx.save(network, path)


def _resize_and_cut(graph: onnx.GraphProto, node: onnx.NodeProto, channels: int) -> None:
    """Let a resize node join the branches of two looks as `TwoLooks.forward` does, in place.

    It gives a square of half of the first input's longer side, and a slice cuts out the middle with half of its sides.
    """
    square, cut = "joined_square", node.output[0]
    node.input[:], node.output[:] = [node.input[0], "", "", "square_size"], [square]
    constants = {"two": [2], "one_with_channels": [1, channels], "rows_and_columns": [2, 3]}
    graph.initializer.extend(
        numpy_helper.from_array(np.array(values, np.int64), name) for name, values in constants.items()
    )
    before = [
        helper.make_node("Shape", [graph.input[0].name], ["full_sides"], start=2, end=4),
        helper.make_node("Div", ["full_sides", "two"], ["half_sides"]),
        helper.make_node("ReduceMax", ["half_sides"], ["longer_half"], keepdims=1),
        helper.make_node("Concat", ["one_with_channels", "longer_half", "longer_half"], ["square_size"], axis=0),
        helper.make_node("Sub", ["longer_half", "half_sides"], ["lacking"]),
        helper.make_node("Div", ["lacking", "two"], ["starts"]),
        helper.make_node("Add", ["starts", "half_sides"], ["ends"]),
    ]
    place = list(graph.node).index(node) + 1
    nodes = [*before, *graph.node]
    nodes.insert(len(before) + place, helper.make_node("Slice", [square, "starts", "ends", "rows_and_columns"], [cut]))
    del graph.node[:]
    graph.node.extend(nodes)


def write_onnx(model: ReSegNet, photographs: Sequence[Look], path: Path) -> None:
    """Export the network and quantise it (static, per channel) by the ranges that it shows on real photographs.

    The first `FLOAT_CONVOLUTIONS` convolutions stay in float32, unless the network takes the photograph without
    normalisation: its input is then exact in 8 bits.

    Weights have 7 bits. With 8, sums of two products overflow on processors without VNNI, and the result would depend
    on the processor.

    Parameters
    ----------
    model
        Network in float32. It is not changed.
    photographs
        Training photographs of every camera, scaled as the network's input.
    path
        File to write. Input `rgb`: (1, 3, H, W) float32; output `probability`: (1, H, W) float32 in [0, 1]; only
        squares of one side unless the release has a `smallest_input_size`. For two looks also input `context`:
        (1, 3, C, C) float32; output `anatomy`: (1, 4, C, C) float32 in [0, 1]. The metadata of the file say so too (see
        `onnx_metadata`).
    """
    config = model.config
    names = ["rgb"] if config.context_size is None else ["rgb", CONTEXT_INPUT]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        exported, prepared = Path(folder) / "exported.onnx", Path(folder) / "prepared.onnx"
        _export(model, names, exported)
        quant_pre_process(exported, prepared, skip_symbolic_shape=True)
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
            nodes_to_exclude=convolutions[:FLOAT_CONVOLUTIONS] if config.normalises else [],
            extra_options={
                # Averages the ranges of the photographs. The widest range would let one odd photograph change all.
                "CalibMovingAverage": True,
                "CalibMovingAverageConstant": 0.2,
                "TensorQuantOverrides": {} if config.normalises else dict.fromkeys(names, _IN_8_BITS),
            },
        )

    network = onnx.load(path)
    helper.set_model_props(
        network, {entry.key: entry.value for entry in network.metadata_props} | onnx_metadata(config)
    )
    onnx.save(network, path)


def onnx_metadata(config: Config) -> dict[str, str]:
    """Return the metadata of `model.onnx`: all that a program needs to run it, beside finding the field of view.

    ONNX Runtime gives them as `session.get_modelmeta().custom_metadata_map`.
    """
    context = {}
    if config.context_size is not None:
        size = config.context_size
        context = {
            "context_input": f"{CONTEXT_INPUT}: (1, 3, {size}, {size}) float32, the same square scaled to {size} px",
            "context_output": f"anatomy: (1, 4, {size}, {size}) float32 in [0, 1]: {', '.join(ANATOMY)}",
        }
    return {
        "input": "rgb: (1, 3, S, S) float32, RGB in [0, 1], 8-bit values divided by 255",
        "output": "probability: (1, S, S) float32 in [0, 1], sigmoid included",
        "side_multiple": str(2**config.encoder_depth),
        "smallest_side": str(config.smallest_input_size or config.input_size),
        "largest_side": str(config.input_size),
        "threshold": str(config.threshold),
        "use": "cut out the square around the field of view, scale it only if its side is out of range, scale the "
        "probability back; a pixel is a vessel where the probability reaches the threshold",
        **context,
    }


def _export(model: ReSegNet, names: list[str], path: Path) -> None:
    """Write the network, followed by the sigmoid, as ONNX in float32 with inputs of these names."""
    config = model.config
    sides = [config.input_size]
    if config.context_size is not None:
        sides.append(config.context_size)
        if config.smallest_input_size is not None and config.input_size == 2 * config.context_size:
            # At another side, the resize between the branches cannot be taken for a doubling.
            sides[0] -= 2**config.encoder_depth
    program = torch.onnx.export(
        _Probability(model).eval(),
        tuple(torch.zeros(1, 3, side, side) for side in sides),
        dynamo=True,
        opset_version=20,
        input_names=names,
        output_names=["probability", "anatomy"][: len(names)],
        external_data=False,
        verbose=False,
    )
    assert program is not None  # only an export with `dynamo=False` returns None
    program.save(path)
    _remove_traces(path)
    if config.smallest_input_size is not None:
        _allow_any_size(path)
