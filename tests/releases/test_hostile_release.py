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
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from support.refusals import refusal

from resegnet import Config, ConfigError, ReSegNet
from resegnet.errors import ReleaseError, WeightsError
from resegnet.hub import BUNDLED_RELEASES, sha256
from resegnet.model import load_weights
from resegnet.releases.records import as_number, read_record
from resegnet.releases.release import verify_release

pytestmark = pytest.mark.usefixtures("quick_releases")

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
    refused = 0
    for at in random.integers(end, size=60):
        altered = bytearray(data)
        altered[at] ^= 1 << random.integers(8)
        path.write_bytes(altered)
        try:  # some flips are harmless: a space for a tab, another name in the metadata
            load_weights(model, path)
        except WeightsError:
            refused += 1
    assert refused > 30


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
