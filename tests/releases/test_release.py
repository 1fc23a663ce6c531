"""Writing and verifying releases, and the bundled ones."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.stand_in import small_photographs
from support.synthetic import draw_fundus

from resegnet import Config, ReSegNet, Segmenter
from resegnet.errors import ArgumentError, ReleaseError
from resegnet.hub import BUNDLED_RELEASES
from resegnet.releases.datasheets import SOURCES
from resegnet.releases.quantise import onnx_metadata, write_onnx
from resegnet.releases.records import training_datasets, unrecorded_parent
from resegnet.releases.release import ANATOMY_NAME, release_files, sha256, verify_release, write_release, write_selftest

pytestmark = pytest.mark.usefixtures("quick_releases")

TINY = Config(encoder="resnet18", encoder_depth=3, decoder_channels=(8, 8, 4), input_size=64, threshold=0.4)


@pytest.mark.slow
def test_another_network_in_onnx_fails_the_self_test_even_with_a_fitting_hash(release):
    other = ReSegNet(TINY)
    with torch.no_grad():
        other.net.segmentation_head[0].bias += 1
    write_onnx(other, small_photographs(TINY.input_size), release / "model.onnx")
    store_hash(release, "model.onnx")
    with pytest.raises(ReleaseError, match=r"model\.onnx is off"):
        verify_release(release)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("written") / "release"
    return write_release(
        ReSegNet(TINY), {"made": "here"}, {"set": {"f1": 0.5}}, folder, small_photographs(TINY.input_size)
    )


@pytest.fixture
def release(written, tmp_path) -> Path:
    return shutil.copytree(written, tmp_path / "release")


def store_hash(release: Path, name: str) -> None:
    """Store the SHA-256 of an altered file, as somebody who alters a release on purpose would."""
    path = release / "selftest" / "expected.json"
    expected = json.loads(path.read_text())
    expected["sha256"][name] = sha256(release / name)
    path.write_text(json.dumps(expected))


@pytest.mark.slow
def test_a_release_verifies_and_loads(release, written):
    assert verify_release(release) < 1e-4
    segmenter = Segmenter.from_pretrained(release)
    assert segmenter.config == TINY
    assert json.loads((release / "metrics.json").read_text()) == {"set": {"f1": 0.5}}
    assert not list(written.parent.glob(".*.resegnet-*"))


@pytest.mark.slow
def test_the_onnx_file_says_how_it_is_used(release):
    session = onnxruntime.InferenceSession(release / "model.onnx", providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    (rgb,), (probability,) = session.get_inputs(), session.get_outputs()
    assert told["input"].startswith(f"{rgb.name}: (1, 3, S, S) float32") and "[0, 1]" in told["input"]
    assert told["output"].startswith(f"{probability.name}: (1, S, S) float32 in [0, 1]")
    numbers = [float(told[key]) for key in ("side_multiple", "smallest_side", "largest_side", "threshold")]
    assert numbers == [2**TINY.encoder_depth, TINY.input_size, TINY.input_size, TINY.threshold]
    sides = onnx_metadata(dataclasses.replace(TINY, input_size=128, smallest_input_size=64))
    assert (sides["smallest_side"], sides["largest_side"]) == ("64", "128")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["model.safetensors", "model.onnx", "config.json", "training.json", "selftest/expected.json"]
)
def test_a_missing_file_is_named(release, name):
    (release / name).unlink()
    with pytest.raises(ReleaseError, match=name.replace(".", "\\.")):
        verify_release(release)


@pytest.mark.slow
def test_a_wrong_folder_is_told_as_such(release, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(release, run / "release")
    for check, error in ((verify_release, ReleaseError), (Segmenter.from_pretrained, ArgumentError)):
        with pytest.raises(error, match=r"folder of a training run: give its release, .*run/release"):
            check(run)
    with pytest.raises(ReleaseError, match="There is no folder"):
        verify_release(tmp_path / "absent")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx", "config.json", "selftest/photograph.png"])
def test_a_flipped_bit_is_found(release, name):
    content = bytearray((release / name).read_bytes())
    content[len(content) // 2] ^= 1
    (release / name).write_bytes(content)
    with pytest.raises(ReleaseError, match="altered"):
        verify_release(release)


@pytest.mark.slow
def test_other_weights_fail_the_self_test_even_with_a_fitting_hash(release):
    path = release / "model.safetensors"
    tensors = load_file(path)
    tensors["net.segmentation_head.0.bias"] += 1
    save_file(tensors, path)
    store_hash(release, "model.safetensors")
    with pytest.raises(ReleaseError, match="self-test"):
        verify_release(release)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUNDLED_RELEASES)
def test_a_bundled_release_is_sound_and_finds_synthetic_vessels(name):
    assert verify_release(BUNDLED_RELEASES[name]) < 0.01
    assert (BUNDLED_RELEASES[name] / "model.safetensors").stat().st_size < 20e6
    segmenter = Segmenter.from_pretrained(name)
    assert segmenter.model == name
    scores = []
    for seed in (201, 202, 203):
        eye = draw_fundus(seed)
        result = segmenter(eye.image)
        hits = (result.mask & eye.vessels).sum()
        scores.append(2 * hits / (result.mask.sum() + eye.vessels.sum()))
    assert np.mean(scores) > 0.6


TWO_LOOKS = Config(
    encoder="two-looks",
    encoder_depth=2,
    decoder_channels=(16, 16),
    input_size=64,
    context_size=64,
    context_channels=(32, 16, 16),
    threshold=0.12,
)


@pytest.mark.slow
def test_the_self_test_covers_the_anatomy(tmp_path):
    torch.manual_seed(0)
    looks = [(photograph, photograph) for photograph in small_photographs(64)]
    folder = write_release(ReSegNet(TWO_LOOKS), {}, {}, tmp_path / "release", looks)
    assert ANATOMY_NAME in release_files(folder)
    assert verify_release(folder) < 1e-4
    with Image.open(folder / ANATOMY_NAME) as picture:
        planes = np.array(picture)
    assert planes.shape == (4 * 64, 64)
    planes[2 * 64 + 5 :, :] ^= 128  # disc and fovea of another network
    Image.fromarray(planes).save(folder / ANATOMY_NAME)
    with pytest.raises(ReleaseError, match=r"anatomy\.png was altered"):
        verify_release(folder)
    store_hash(folder, ANATOMY_NAME)
    with pytest.raises(ReleaseError, match="probability of disc is off"):
        verify_release(folder)
    (folder / ANATOMY_NAME).unlink()
    with pytest.raises(ReleaseError, match=r"anatomy\.png is missing"):
        verify_release(folder)
    expected = json.loads((folder / "selftest" / "expected.json").read_text())
    del expected["sha256"][ANATOMY_NAME]  # as in a release that was written before the anatomy was stored
    (folder / "selftest" / "expected.json").write_text(json.dumps(expected))
    assert verify_release(folder) < 1e-4
    write_selftest(folder)
    assert (folder / ANATOMY_NAME).is_file()
    assert verify_release(folder) < 1e-4


def test_bundled_is_the_default_and_bundled_cc_by_was_trained_on_cc_by_only():
    assert Segmenter.from_pretrained().model == "bundled"
    training = json.loads((BUNDLED_RELEASES["bundled-cc-by"] / "training.json").read_text())
    assert {SOURCES[name].terms for name in training_datasets(training)} == {"CC BY 4.0"}
    assert not unrecorded_parent(training)
