"""Damaged and malicious ONNX files of a release: one clear error, no other file read."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.refusals import refusal

from resegnet import Segmenter
from resegnet.engine import OnnxNetwork
from resegnet.errors import WeightsError

pytestmark = pytest.mark.usefixtures("quick_releases")


def network(nodes: list, outputs: list[int], weights: list = (), side: int = 64) -> bytes:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, outputs)],
        list(weights),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def constant(name: str, values: list) -> onnx.TensorProto:
    kind = TensorProto.INT64 if isinstance(values[0], int) else TensorProto.FLOAT
    return helper.make_tensor(name, kind, [len(values)], values)


def answers(value: float) -> bytes:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[1], keepdims=0),
        helper.make_node("Mul", ["m", "zero"], ["z"]),
        helper.make_node("Add", ["z", "value"], ["y"]),
    ]
    return network(nodes, [1, 64, 64], [constant("zero", [0.0]), constant("value", [value])])


@pytest.mark.slow
def test_onnx_reads_no_other_files(unhashed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    size = 64 * 64 * 4
    (tmp_path / "secret").write_bytes(np.full(64 * 64, 0.25, "f4").tobytes())
    (unhashed / "secret").write_bytes(np.full(64 * 64, 0.25, "f4").tobytes())
    for location in ("secret", "./secret", "../secret", str(tmp_path / "secret"), "/etc/passwd"):
        weights = TensorProto(name="w", data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
        weights.dims.extend([1, 64, 64])
        for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
            weights.external_data.add(key=key, value=value)
        (unhashed / "model.onnx").write_bytes(
            network([helper.make_node("Identity", ["w"], ["y"])], [1, 64, 64], [weights])
        )
        assert "model.onnx" in refusal(unhashed, "onnx", WeightsError)


@pytest.mark.slow
def test_onnx_cut_or_flipped(whole, tmp_path):
    data = (whole / "model.onnx").read_bytes()
    path = tmp_path / "model.onnx"
    random = np.random.default_rng(6)
    picture = random.random((1, 3, 64, 64), np.float32)
    contents = [data[: len(data) * part // 10] for part in range(10)]
    for _ in range(40):
        altered = bytearray(data)
        for at in random.integers(len(data), size=4):
            altered[at] ^= 1 << random.integers(8)
        contents.append(bytes(altered))
    refused = 0
    for content in contents:
        path.write_bytes(content)
        try:
            probability = OnnxNetwork(path, 64, threads=1)(picture)
        except WeightsError:
            refused += 1
        else:
            assert probability.shape == (1, 64, 64) and probability.min() >= 0 and probability.max() <= 1
    assert refused >= 10


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 2.0])
def test_onnx_whose_output_is_not_a_probability_is_refused(value, unhashed, drawn):
    (unhashed / "model.onnx").write_bytes(answers(0.5))
    assert Segmenter.from_pretrained(unhashed)(drawn.image).probability.max() == 0.5
    (unhashed / "model.onnx").write_bytes(answers(value))
    with pytest.raises(WeightsError, match="one probability for each pixel"):
        Segmenter.from_pretrained(unhashed)(drawn.image)


@pytest.mark.slow
def test_onnx_of_other_shapes(unhashed):
    mean = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=1)
    for content in (network([mean], [1, 1, 64, 64]), network([mean], [1, 1, 32, 32], side=32)):
        (unhashed / "model.onnx").write_bytes(content)
        assert "model.onnx" in refusal(unhashed, "onnx", WeightsError)


@pytest.mark.slow
def test_onnx_that_fails_during_inference_is_told(unhashed, drawn):
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Mul", ["s", "many"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["vast"]),
        helper.make_node("ReduceMean", ["vast"], ["y"], axes=[1], keepdims=0),
    ]
    many = constant("many", [1, 10**6, 10**4, 10**4])
    (unhashed / "model.onnx").write_bytes(network(nodes, [1, 64, 64], [many]))
    with pytest.raises(WeightsError, match=r"model\.onnx"):
        Segmenter.from_pretrained(unhashed)(drawn.image)
