"""Files to publish on the Hub on loopback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Create a folder like a release: text files, and 2 MB of weights, half of which compress well."""
    folder = tmp_path_factory.mktemp("release")
    (folder / "selftest").mkdir()
    (folder / "config.json").write_text('{"threshold": 0.4}\n')
    (folder / "README.md").write_text("---\nlicense: mit\npipeline_tag: image-segmentation\n---\nA net.\n")
    (folder / "selftest" / "expected.json").write_text("{}")
    weights = np.random.default_rng(0).normal(size=250_000).astype(np.float32)
    ramp = np.linspace(0, 1, 250_000, dtype=np.float32)
    (folder / "model.safetensors").write_bytes(np.concatenate([weights, ramp]).tobytes())
    return folder
