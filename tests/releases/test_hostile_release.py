"""Damaged and malicious releases: one clear error, nothing executed, nothing loaded in part."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper
from safetensors.torch import load_file, save_file
from support.stand_in import small_photographs

from resegnet import Config, ConfigError, ReSegNet, Segmenter
from resegnet.engine import OnnxNetwork
from resegnet.errors import ReleaseError, WeightsError
from resegnet.hub import BUNDLED_RELEASES, sha256
from resegnet.model import load_weights
from resegnet.releases.records import as_number, read_record
from resegnet.releases.release import verify_release, write_release

pytestmark = pytest.mark.usefixtures("quick_releases")

TINY = Config(encoder="resnet18", encoder_depth=3, decoder_channels=(8, 8, 4), input_size=64)
JSON = {
    "empty": "",
    "no JSON": "<html>",
    "list": "[]",
    "number": "3",
    "deep": '{"a":' * 100_000,
    "deep list": "[" * 100_000,
    "megabytes": '{"a": "' + "x" * 11_000_000 + '"}',
    "long number": '{"a": ' + "9" * 10_000 + "}",
    "twice": '{"sha256": {}, "sha256": {}}',
    "NUL": "\0" * 100,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("whole") / "release"
    return write_release(ReSegNet(TINY), {}, {}, folder, small_photographs(TINY.input_size))


@pytest.fixture
def release(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "release")


@pytest.fixture
def unhashed(release) -> Path:
    """Copy the release without its SHA-256, as the author of a malicious release would leave them out."""
    (release / "selftest" / "expected.json").unlink()
    return release


def refusal(folder: Path, engine: str | None, error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        Segmenter.from_pretrained(folder, engine=engine)
    assert len(str(caught.value)) < 800
    return str(caught.value)


def peak_mb() -> float:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


# --- hashes


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnx", "torch"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.onnx"])
def test_one_flipped_bit_of_the_bundled_release_is_refused_by_both_engines(name, engine, tmp_path):
    folder = shutil.copytree(BUNDLED_RELEASES["bundled"], tmp_path / "copy")
    noted = json.loads((folder / "selftest" / "expected.json").read_text())["sha256"]
    assert noted[name] == sha256(folder / name)
    content = bytearray((folder / name).read_bytes())
    content[len(content) * 2 // 3] ^= 1
    (folder / name).write_bytes(content)
    assert name in refusal(folder, engine, ConfigError if name == "config.json" else WeightsError)


@pytest.mark.slow
@pytest.mark.parametrize("content", JSON.values(), ids=JSON)
def test_unreadable_hashes_are_refused(content, release):
    (release / "selftest" / "expected.json").write_text(content)
    assert "expected.json" in refusal(release, "onnx", WeightsError)
    with pytest.raises(ReleaseError, match=r"expected\.json"):
        verify_release(release)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [{"tolerance": 10**400}, {"tolerance": float("inf")}, {"tolerance": "x"}, {"onnx_tolerance": None}, {"sha256": 7}],
    ids=str,
)
def test_a_self_test_that_could_not_fail_is_refused(change, release):
    path = release / "selftest" / "expected.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ReleaseError, match=r"expected\.json"):
        verify_release(release)


@pytest.mark.slow
def test_a_network_without_a_hash_is_refused(release):
    path = release / "selftest" / "expected.json"
    expected = json.loads(path.read_text())
    del expected["sha256"]["model.onnx"]
    path.write_text(json.dumps(expected))
    assert "model.onnx" in refusal(release, "onnx", WeightsError)


# --- config.json


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnx", "torch"])
@pytest.mark.parametrize("content", JSON.values(), ids=JSON)
def test_an_unreadable_config_is_refused(content, engine, unhashed):
    (unhashed / "config.json").write_text(content)
    assert "config" in refusal(unhashed, engine, ConfigError)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 10**400},
        {"mean": [0, 0, 10**400]},
        {"std": [1e-3, 1, 10**400]},
        {"input_size": 10**400},
        {"input_size": [64]},
        {"encoder": "x" * 1_000_000},
        {"encoder": ["resnet18"]},
        {"encoder": "tu-../../x"},
        {"encoder": "tu-hf-hub:somebody/pickled"},
        {"encoder": "tu-hf_hub:somebody/pickled"},
        {"encoder": "tu-local-dir:/tmp"},
        {"encoder": "tu-resnet18\n"},
        {"encoder": "os.system"},
        {"encoder": "__class__"},
        {"encoder": "tu-vit_base_patch16_224.mae"},
        {"decoder_channels": [8] * 100_000},
        {"decoder_channels": {"0": 8}},
        {"format_version": "9" * 1_000_000},
        {"format_version": [[[]]]},
        {f"key {i}": i for i in range(10_000)},
    ],
    ids=lambda change: str(change)[:40],
)
def test_an_impossible_config_is_refused(change, unhashed, monkeypatch):
    def reach_out(*_, **__):
        pytest.fail("timm asked the Hub or the disk for a model")

    monkeypatch.setattr(timm.models._factory, "load_model_config_from_hf", reach_out)
    monkeypatch.setattr(timm.models._factory, "load_model_config_from_path", reach_out)
    path = unhashed / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert refusal(unhashed, "torch", ConfigError).isprintable()


@pytest.mark.slow
def test_a_network_of_any_size_takes_no_memory_without_its_weights(unhashed):
    path = unhashed / "config.json"
    large = {"encoder": "tu-convnext_xlarge", "decoder_channels": [1024, 1024, 1024]}  # 1.5 GB
    path.write_text(json.dumps(json.loads(path.read_text()) | large))
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_mb()
    assert "too small" in refusal(unhashed, "torch", WeightsError)
    assert peak_mb() - before < 200


# --- weights


def with_header(header: bytes, body: bytes = b"\0" * 64, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def spoil_tensor(path: Path, value: torch.Tensor | float) -> None:
    tensors = load_file(path)
    bias = tensors["net.segmentation_head.0.bias"]
    tensors["net.segmentation_head.0.bias"] = value if isinstance(value, torch.Tensor) else bias + value
    save_file(tensors, path)


ENTRY = '"net.segmentation_head.0.bias":{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}'
HEADERS = {
    "endless header": with_header(b"{}", length=2**63),
    "header of 100 MB": with_header(b"{}", length=10**8),
    "header beyond the file": with_header(b"{}", length=10_000),
    "overlapping": with_header(f"{{{ENTRY % (0, 4)},{(ENTRY % (2, 6)).replace('bias', 'other')}}}".encode()),
    "backwards": with_header(f"{{{ENTRY % (8, 4)}}}".encode()),
    "beyond the end": with_header(f"{{{ENTRY % (0, 2**40)}}}".encode()),
    "too few bytes": with_header(f"{{{(ENTRY % (0, 4)).replace('[1]', '[1000000,1000000]')}}}".encode()),
    "overflowing shape": with_header(f"{{{(ENTRY % (0, 4)).replace('[1]', '[4294967296,4294967296]')}}}".encode()),
    "unknown type": with_header((ENTRY % (0, 4)).replace("F32", "PICKLE").join("{}").encode()),
    "deep header": with_header(b'{"a":' * 100_000),
    "no header": b"",
    "html": b"<html>" * 100,
}


@pytest.mark.slow
@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_weights_whose_header_lies(content, unhashed):
    path = unhashed / "model.safetensors"
    path.write_bytes(content.ljust(path.stat().st_size, b"\0"))
    assert "model.safetensors" in refusal(unhashed, "torch", WeightsError)


@pytest.mark.slow
def test_weights_cut_or_flipped_anywhere_in_their_header(unhashed):
    path = unhashed / "model.safetensors"
    data = path.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    random = np.random.default_rng(5)
    config = Config.load(unhashed / "config.json")
    model = ReSegNet(config).eval()
    for part in range(10):
        path.write_bytes(data[: len(data) * part // 10])
        with pytest.raises(WeightsError):
            load_weights(model, path)
    for at in random.integers(end, size=60):
        altered = bytearray(data)
        altered[at] ^= 1 << random.integers(8)
        path.write_bytes(altered)
        try:  # some flips are harmless: a space for a tab, another name in the metadata
            load_weights(model, path)
        except WeightsError:
            continue


@pytest.mark.slow
@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=torch.complex64)],
    ids=str,
)
def test_weights_of_another_type_or_not_finite_are_refused(value, unhashed):
    spoil_tensor(unhashed / "model.safetensors", value)
    assert "segmentation_head.0.bias" in refusal(unhashed, "torch", WeightsError)


class Executed:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx", "config.json", "selftest/expected.json"])
@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_pickles_are_never_executed(name, kind, release, tmp_path):
    trap = Executed(tmp_path / "executed")
    stream = io.BytesIO()
    if kind == "pickle":
        pickle.dump(trap, stream)
    else:
        torch.save({"net.mean": trap}, stream)
    if name != "selftest/expected.json":
        (release / "selftest" / "expected.json").unlink()
    (release / name).write_bytes(stream.getvalue().ljust(1_000_000, b"\0"))
    refusal(release, "onnx" if name == "model.onnx" else "torch", (ConfigError, WeightsError))
    with pytest.raises(ReleaseError):
        verify_release(release)
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(trap))
    assert (tmp_path / "executed").exists(), "the trap itself does not work"


# --- pipes, folders, devices and links in place of files


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.onnx", "selftest/expected.json"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "loop", "nowhere"])
def test_a_pipe_or_device_in_place_of_a_file_does_not_block(name, kind, release):
    if name != "selftest/expected.json":
        (release / "selftest" / "expected.json").unlink()
    path = release / name
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path)
        case "nowhere":
            path.symlink_to(release / "not there")
    engine = "onnx" if name == "model.onnx" else "torch"
    refusal(release, engine, (ConfigError, WeightsError))
    with pytest.raises(ReleaseError):
        verify_release(release)


@pytest.mark.slow
def test_an_error_shows_nothing_of_the_target_of_a_link(unhashed, tmp_path):
    (tmp_path / "secret").write_text("password: 1234")
    for name, engine in (("config.json", "torch"), ("model.onnx", "onnx"), ("model.safetensors", "torch")):
        kept = (unhashed / name).read_bytes()
        (unhashed / name).unlink()
        (unhashed / name).symlink_to(tmp_path / "secret")
        assert "1234" not in refusal(unhashed, engine, (ConfigError, WeightsError))
        (unhashed / name).unlink()
        (unhashed / name).write_bytes(kept)


# --- model.onnx


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


# --- records


@pytest.mark.parametrize("content", [text for name, text in JSON.items() if name != "twice"])
def test_records_that_cannot_be_read(content, tmp_path):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(ReleaseError, match=r"metrics\.json") as caught:
        read_record(tmp_path / "metrics.json")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("inf"), True, "1", None, [1]])
def test_values_that_are_not_finite_numbers(value):
    assert as_number(value) is None
