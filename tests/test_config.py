"""A configuration survives JSON, and refuses values that cannot be used."""

from __future__ import annotations

import json

import pytest

from resegnet.config import Config
from resegnet.errors import ConfigError


def test_survives_the_way_through_json(tmp_path):
    config = Config(encoder="resnet18", encoder_depth=3, decoder_channels=(8, 4, 2), input_size=128, threshold=0.37)
    (tmp_path / "config.json").write_text(config.to_json())
    assert Config.load(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input_size": 500}, "multiple of 32"),
        ({"smallest_input_size": 100}, "null or a multiple of 32"),
        ({"smallest_input_size": 1024}, "to the input_size of 768"),
        ({"smallest_input_size": True}, "smallest_input_size is True"),
        ({"input_size": True}, "input_size is True"),
        ({"input_size": 2**30}, "to 4096"),
        ({"decoder_channels": [8, 4]}, "one for each encoder stage"),
        ({"decoder_channels": 8}, "decoder_channels is 8"),
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"std": [0.1, 0.0, 0.1]}, "std"),
        ({"encoder": ""}, "encoder"),
        ({"encoder_depth": 9}, "encoder_depth"),
        ({"format_version": 3}, "Install a newer version"),
        ({"format_version": 3, "novelty": 1}, "Install a newer version"),
        ({"novelty": 1}, "unknown keys ['novelty']"),
        ({"format_version": 1}, "unknown keys ['context_channels', 'context_encoder', 'context_size']"),
        ({"context_size": 64}, "unless encoder is two-looks"),
        ({"context_encoder": "resnet18"}, "unless encoder is two-looks"),
        ({"encoder": "two-looks", "context_encoder": "a/b"}, "context_encoder is 'a/b'"),
        ({"encoder": "two-looks"}, "context_channels is ()"),
        ({"encoder": "two-looks", "context_channels": [32, 32, 32], "context_size": 65}, "multiple of 4"),
    ],
)
def test_refuses_what_would_change_a_prediction_unseen(change, words):
    values = json.loads(Config().to_json()) | change
    with pytest.raises(ConfigError) as caught:
        Config.from_dict(values)
    assert words in str(caught.value)


def test_reads_a_file_of_version_1():
    config = Config(encoder="resnet18", threshold=0.37)
    values = json.loads(config.to_json())
    for added in ("context_size", "context_encoder", "context_channels"):
        del values[added]
    assert Config.from_dict(values | {"format_version": 1}) == config


def test_refuses_a_missing_key():
    values = json.loads(Config().to_json())
    del values["threshold"]
    with pytest.raises(ConfigError, match="missing keys \\['threshold'\\]"):
        Config.from_dict(values)


@pytest.mark.parametrize("text", ["", "[]", "{", '"a"', "[" * 100_000])
def test_refuses_a_file_that_is_no_config(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError):
        Config.load(tmp_path / "config.json")
