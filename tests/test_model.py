"""Weights are saved and loaded strictly, and the network normalises its input."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from resegnet.config import Config
from resegnet.engine import TorchNetwork
from resegnet.errors import ConfigError
from resegnet.model import ReSegNet, WeightsError, load_weights, round_to_half, save_weights, scale_logits

TINY = Config(encoder="resnet18", encoder_depth=3, decoder_channels=(8, 8, 4), input_size=64)


def predict(model: ReSegNet) -> np.ndarray:
    rgb = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    return TorchNetwork(model)(rgb)


@pytest.fixture(scope="module")
def tiny() -> ReSegNet:
    torch.manual_seed(0)
    return ReSegNet(TINY).eval()


def test_saved_and_loaded_it_predicts_the_same(tmp_path, tiny):
    tiny.save_pretrained(tmp_path)
    assert "license" not in (tmp_path / "README.md").read_text()  # that of the weights follows from their data
    assert {"config.json", "model.safetensors"} <= {path.name for path in tmp_path.iterdir()}
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1  # both files have the same permissions
    loaded = ReSegNet.from_pretrained(tmp_path)
    assert loaded.config == TINY
    assert not loaded.training
    assert np.array_equal(predict(loaded), predict(tiny))


def test_normalisation_is_inside(tiny):
    grey = torch.full((1, 3, 64, 64), 0.5)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (TINY.mean, TINY.std))
    with torch.no_grad():
        assert torch.equal(tiny(grey), tiny.net((grey - mean) / std))


def test_half_precision_is_rounding_done_beforehand(tmp_path, tiny):
    rounded = ReSegNet(TINY)
    rounded.load_state_dict(tiny.state_dict())
    round_to_half(rounded)
    save_weights(tiny, tmp_path / "half.safetensors", half=True)
    loaded = ReSegNet(TINY)
    load_weights(loaded, tmp_path / "half.safetensors")
    assert np.array_equal(predict(loaded), predict(rounded))
    assert np.abs(predict(loaded) - predict(tiny)).max() < 0.01
    save_weights(tiny, tmp_path / "full.safetensors")
    half, full = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "full"))
    assert half < 0.55 * full


def damage_missing(tensors):
    del tensors["net.segmentation_head.0.bias"]


def damage_extra(tensors):
    tensors["net.more"] = torch.zeros(1)


def damage_shape(tensors):
    tensors["net.segmentation_head.0.bias"] = torch.zeros(2)


@pytest.mark.parametrize("damage", [damage_missing, damage_extra, damage_shape])
def test_weights_that_do_not_fit_are_refused(tmp_path, tiny, damage):
    tiny.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    damage(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        ReSegNet.from_pretrained(tmp_path)


def test_truncated_weights_and_pickles_are_refused(tmp_path, tiny):
    tiny.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError):
        ReSegNet.from_pretrained(tmp_path)
    torch.save(tiny.state_dict(), path)
    with pytest.raises(WeightsError):
        ReSegNet.from_pretrained(tmp_path)
    path.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError):
        ReSegNet.from_pretrained(tmp_path)


def test_an_unknown_key_of_the_config_is_refused(tmp_path, tiny):
    tiny.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"input_sise": 512}))
    with pytest.raises(ConfigError, match="input_sise"):
        ReSegNet.from_pretrained(tmp_path)
    path.unlink()
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        ReSegNet.from_pretrained(tmp_path)


def test_a_plain_network_has_a_level_at_full_size_and_comes_back_as_it_was(tmp_path):
    torch.manual_seed(0)
    model = ReSegNet(Config(encoder="plain", encoder_depth=3, decoder_channels=(32, 16, 16), input_size=64)).eval()
    assert next(part for part in model.modules() if isinstance(part, torch.nn.Conv2d)).stride == (1, 1)
    rgb = torch.rand(2, 3, 64, 48)
    with torch.inference_mode():
        logits = model(rgb)
        assert logits.shape == (2, 1, 64, 48)
        model.save_pretrained(tmp_path)
        assert torch.equal(ReSegNet.from_pretrained(tmp_path)(rgb), logits)
    for unfit in ((16, 16), (16, 16, 8)):
        with pytest.raises(ConfigError, match="3 of them, each 16 or more"):
            Config(encoder="plain", encoder_depth=3, decoder_channels=unfit, input_size=64)


def test_an_unknown_encoder_is_refused():
    with pytest.raises(ValueError, match="no_such_net"):
        ReSegNet(Config(encoder="no_such_net"))


@pytest.mark.parametrize("decoder_channels", [(8, 8, 4), (8, 8)], ids=["stages", "shuffle"])
def test_logits_are_scaled_by_the_weights(decoder_channels):
    model = ReSegNet(
        Config(encoder="resnet18", encoder_depth=3, decoder_channels=decoder_channels, input_size=64)
    ).eval()
    rgb = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        before = model(rgb)
        scale_logits(model, 0.7, -0.4)
        torch.testing.assert_close(model(rgb), 0.7 * before - 0.4)
