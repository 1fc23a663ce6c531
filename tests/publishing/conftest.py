"""A tiny release, and model cards."""

from __future__ import annotations

import json

import pytest
from support.cards import RECORDS
from support.publishing import write_tiny

from resegnet.publishing.card import model_card


@pytest.fixture(scope="session")
def bundled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundled")
    for name, record in RECORDS.items():
        (folder / f"{name}.json").write_text(json.dumps(record))
    return model_card(folder, "someone/resegnet", "v1.0.0")


@pytest.fixture
def card(tmp_path):
    """Return a function that writes the card of the bundled records, or of others in their place."""

    def render(repo_id="someone/resegnet", revision="v1.0.0", pictures=None, space_id=None, **records):
        for name, record in (RECORDS | records).items():
            (tmp_path / f"{name}.json").write_text(record if isinstance(record, str) else json.dumps(record))
        return model_card(tmp_path, repo_id, revision, pictures, space_id=space_id)

    return render


@pytest.fixture(scope="session")
def release(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("runs") / "best")
