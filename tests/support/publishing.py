"""A tiny release, and the scripts that publish and load it in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from resegnet import Config, ReSegNet
from resegnet.releases.release import write_release
from support import PATIENCE_S
from support.stand_in import small_photographs

ROOT = Path(__file__).parents[2]
PHOTOGRAPH = ROOT / "examples" / "synthetic_orange.jpg"
NET, SPACE = "someone/net", "someone/demo"

# Loads a release and segments a photograph, as another person would: in a new process, with an empty cache.
LOAD = """
import sys
import numpy as np
from resegnet import Segmenter
segmenter = Segmenter.from_pretrained(sys.argv[1], revision=sys.argv[2] or None)
np.save(sys.argv[3], segmenter(sys.argv[4]).probability)
print(segmenter.model)
"""


def write_tiny(folder, threshold=0.5, seed=0):
    import torch

    torch.manual_seed(seed)
    config = Config(encoder="resnet18", encoder_depth=3, decoder_channels=(8, 8, 8), input_size=64, threshold=threshold)
    training = {"options": {"dataset": ["synthetic"]}, "threshold_fitted_on": "drawn eyes"}
    return write_release(ReSegNet(config).eval(), training, {}, folder, small_photographs(64))


# Attempts that follow each other at once. `test_the_hub_is_asked_again_when_it_says` tests the waits between them.
AT_ONCE = "import resegnet.hub; resegnet.hub._WAITS_S = (0, 0, 0)"

# Publishes without the model card and its pictures, which take most of the time. Arguments: name, folder and tag of
# each release.
PUBLISH = (
    f"{AT_ONCE}\n"
    + """
import sys
from pathlib import Path
from resegnet.errors import PublishError
from resegnet.publishing.publish import tag_release, upload_release, verify_download
steps = iter(sys.argv[1:])
for name, folder, tag in zip(steps, steps, steps):
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    contents["README.md"] = b"---\\nlibrary_name: resegnet\\n---\\n"
    try:
        commit = upload_release(contents, name, revision=tag or None)
        if tag:
            tag_release(name, tag, commit)
        verify_download(name, tag or commit)
        print(commit)
    except PublishError as error:
        print(error)
"""
)


def push(hub, home, release, *options, token="hf_someone"):
    """Run `push_to_hub.py` in a new process; return its exit status and its output."""
    start = f"{AT_ONCE}; import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", start, "push_to_hub.py", "--release", release, "--repo-id", NET, *options]
    process = subprocess.run(
        command, cwd=ROOT, env=hub.environment(home, token), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert "hf_someone" not in process.stdout + process.stderr  # the token is never printed
    assert "Traceback" not in process.stderr
    return process.returncode, process.stdout + process.stderr


def load(hub, home, out, revision="", **options):
    return hub.run(LOAD, NET, revision, out, PHOTOGRAPH, home=home, **options).strip()


def command(hub, home, *arguments, status=0, **options):
    """Run a command of this repository in a new process; return its output, or its error output if it fails."""
    process = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=hub.environment(home, **options),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert process.returncode == status, process.stderr
    return process.stderr if status else process.stdout


# Runs several steps in one process, and prints the error of each.
STEPS = """
import sys
from huggingface_hub import HfApi
from resegnet.learning.prepare import publish
from resegnet.errors import PublishError
from resegnet.publishing.publish import upload_release
from resegnet.publishing.space import publish_space
api = HfApi()
ours = {"README.md": b"---\\nsdk: gradio\\ntags: [resegnet]\\n---\\n", "app.py": b"1"}
def release(**options):
    upload_release(ours, "someone/net", **options)
def space(commit="0" * 40, private=False):
    publish_space(ours, "someone/net", "someone/net", commit, private=private)
def data(name="chase_db1", **options):
    publish(sys.argv[1], name, "someone/net", **options)
def create(**options):
    for kind in ("model", "dataset", "space"):
        api.create_repo("someone/net", repo_type=kind, space_sdk="gradio" if kind == "space" else None, **options)
def tell(step, **options):
    try:
        step(**options)
        print("done")
    except PublishError as error:
        print(error)
"""
