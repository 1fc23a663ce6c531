"""Shared by the tests: drawn photographs, a network that needs no weights, the place of the real photographs."""

from __future__ import annotations

import os
from pathlib import Path

# Before anything imports the hub client: no test but those marked `network` may reach out.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import pytest
from support.stand_in import DarkOnGreen
from support.synthetic import draw_fundus

from resegnet import Config, Segmenter

REAL = Path(__file__).parents[2] / "shared" / "data"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of processes for `-n auto`: two, and none besides pytest's own for a few chosen tests."""
    chosen = config.option.keyword or any(".py" in argument for argument in config.args)
    return 0 if chosen else 2  # more need more memory: each loads torch


def pytest_make_parametrize_id(val: object) -> str | None:
    """Shorten the names of tests whose parameter is a whole file or a long text; one had a name of 11 MB."""
    if isinstance(val, str | bytes) and len(val) > 40:
        return ascii(val[:40])
    if isinstance(val, int) and abs(val) > 10**40:
        return f"{str(val)[:40]}..."
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not REAL.is_dir():
        for item in items:
            if item.get_closest_marker("data"):
                item.add_marker(pytest.mark.skip(reason=f"no real photographs in {REAL}"))


@pytest.fixture(scope="session")
def real() -> Path:
    """Folder of the real photographs; only for tests marked `data`."""
    return REAL


@pytest.fixture(scope="module")
def network():
    """A network that needs no weights."""
    return DarkOnGreen()


@pytest.fixture(scope="module")
def segmenter(network):
    """Round that network, for tests of the page; its threshold lies between two steps of the slider."""
    return Segmenter(network, Config(input_size=256, threshold=0.6137), "a/model@v1")


@pytest.fixture(scope="module")
def url(segmenter, tmp_path_factory):
    """Address of the running page, round the test module's own `segmenter`."""
    import app
    from resegnet.web.layout import launch_options  # brings gradio along, which most tests do not need

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        page = app.build_app(segmenter)
        _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **launch_options())
        yield address
        page.close()


@pytest.fixture(scope="module")
def quick_releases():
    """For modules that write many releases of tiny networks: what does not depend on the weights is computed once."""
    from support.exports import quick_releases  # brings torch along, which many tests do not need

    with quick_releases():
        yield


@pytest.fixture(scope="session")
def drawn():
    """A drawn photograph with its exact truth."""
    return draw_fundus(3)


@pytest.fixture
def hub(tmp_path):
    """Start a Hub for one test."""
    from support.hub_server import HubServer

    with HubServer(tmp_path / "hub") as server:
        yield server
