"""A release of a tiny network, to be damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from support.exports import quick_releases
from support.stand_in import small_photographs

from resegnet import Config, ReSegNet
from resegnet.releases.release import write_release

TINY = Config(encoder="resnet18", encoder_depth=3, decoder_channels=(8, 8, 4), input_size=64)


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("whole") / "release"
    with quick_releases():  # the fixture of that name lasts for one module, and would start after this one
        return write_release(ReSegNet(TINY), {}, {}, folder, small_photographs(TINY.input_size))


@pytest.fixture
def release(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "release")


@pytest.fixture
def unhashed(release) -> Path:
    """Copy the release without its SHA-256, as the author of a malicious release would leave them out."""
    (release / "selftest" / "expected.json").unlink()
    return release
