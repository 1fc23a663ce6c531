"""The sentence of a release that is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from resegnet import Segmenter


def refusal(folder: Path, engine: str | None, error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        Segmenter.from_pretrained(folder, engine=engine)
    assert len(str(caught.value)) < 800
    return str(caught.value)
