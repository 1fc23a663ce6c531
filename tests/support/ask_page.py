"""Start the page without torch, from the repository and from a downloaded Space, and look at what it finds.

`.ci/run` calls it in an environment with the extra `app` alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from gradio_client import Client, handle_file
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.hub_server import HubServer  # noqa: E402

NET, SPACE = "someone/net", "someone/demo"

# Publishes the release in the folder argv[1], and a Space that serves it. `push_to_hub.py` would run the weights too.
PUBLISH = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from resegnet.publishing.publish import release_contents, upload_release
from resegnet.publishing.space import publish_space, space_contents
root = Path({str(ROOT)!r})
contents = release_contents(Path(sys.argv[1]), {NET!r}, None, root / "examples", space_id={SPACE!r})
commit = upload_release(contents, {NET!r})
publish_space(space_contents(root, {NET!r}, commit), {SPACE!r}, {NET!r}, commit, private=False)
"""

# Downloads the Space as a stranger would, to the folder argv[1].
DOWNLOAD = f"""
import sys
from huggingface_hub import snapshot_download
snapshot_download({SPACE!r}, repo_type="space", local_dir=sys.argv[1])
"""


def ask(folder: Path, environment: dict[str, str]) -> tuple[str, float]:
    """Start `app.py` in a folder, and segment a photograph there.

    Returns
    -------
    model : str
        The release that answered.
    share : float
        Share of the photograph that is vessel.
    """
    server = subprocess.Popen(
        [sys.executable, "app.py"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        # With the extra `mcp`, gradio writes first.
        words = next((line for line in server.stdout if line.startswith("The page is at")), "It has ended").split()
        assert words[0] == "The", words
        with tempfile.TemporaryDirectory() as downloads:
            client = Client(words[4], verbose=False, analytics_enabled=False, download_files=downloads)
            photograph = handle_file(ROOT / "examples" / "retina_cc0.jpg")
            _, mask, _, numbers = client.predict(photograph, api_name="/segment")
            client.close()
            return numbers["model"], float(np.asarray(Image.open(mask)).astype(bool).mean())
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Raise AssertionError if a page does not start, or finds no vessels."""
    assert find_spec("torch") is None
    model, share = ask(ROOT, dict(os.environ))
    assert model == "bundled" and 0.02 < share < 0.2, (model, share)
    print(f"The page answers; {share:.1%} of the photograph is vessel.")
    with tempfile.TemporaryDirectory() as folder, HubServer(Path(folder) / "hub") as hub:
        hub.run(PUBLISH, ROOT / "resegnet" / "releases" / "bundled", home=Path(folder) / "publisher")
        hub.run(DOWNLOAD, Path(folder) / "space", home=Path(folder) / "stranger", token=None)
        assert not (Path(folder) / "space" / "resegnet" / "learning").exists()
        variables = hub.repos[f"spaces/{SPACE}"]["variables"]
        found = ask(Path(folder) / "space", hub.environment(Path(folder) / "stranger", None, **variables))
        assert found == (variables["RESEGNET_MODEL"][: len(NET) + 13], share), found
        assert hub.unknown == []
    print("The Space answers the same from its downloaded folder.")


if __name__ == "__main__":
    main()
