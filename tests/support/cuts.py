"""Kills work at random moments and goes on with it: `python tests/cuts.py train|publish SEED CUTS ARGUMENT ...`.

A process of its own that has everything imported and one thread only, so that every piece of work is a fork of it,
there at once, and a kill is a real one. After each it looks at what is left. Prints a line of JSON at the end.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path


def start(work: Callable[[], None]) -> int:
    """Let a child do it; its exit status is 0 if it came to its end."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(status)


def cut(child: int, after_s: float) -> bool:
    """Kill the child after that time; False if it had come to its end before."""
    end = time.monotonic() + after_s
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0, "it failed, instead of going on"
            return False
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


def finish(child: int) -> None:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "it failed, instead of going on"


def train_cuts(seed: int, cuts: int, dataset: str, folder: str) -> list[str]:
    """Train in `folder`, each run cut again and again until it is done, but for `folder/whole`. Gives their names."""
    import torch

    from resegnet.learning.options import TrainingOptions
    from resegnet.learning.training import train
    from resegnet.releases.release import verify_release
    from support.exports import quick_releases, trace_now

    torch.set_num_threads(1)
    options = TrainingOptions(
        dataset=(dataset,),
        encoder="plain",
        encoder_weights="none",
        encoder_depth=3,
        decoder_channels=(16, 16, 16),
        input_size=64,
        crop_size=32,
        steps_per_epoch=2,
        epochs=4,
        preview_every=1,
        stress_photographs=1,
        threads=1,
    )
    trace_now(options.config())

    def attempt(out: Path) -> Callable[[], None]:
        def work() -> None:
            with quick_releases():
                train(options, out, resume=(out / "checkpoint.pt").exists())

        return work

    def look_at(out: Path) -> None:
        """Whatever has its final name is whole."""
        for path in out.glob("*.pt"):
            torch.load(path, weights_only=True)
        for path in out.glob("*.json"):
            json.loads(path.read_text())
        for path in out.glob("previews/*.png"):
            assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), path
        if (out / "release").exists():
            verify_release(out / "release")

    began = time.monotonic()
    finish(start(attempt(Path(folder, "whole"))))
    took = time.monotonic() - began
    chance, done = random.Random(seed), 0
    while cuts:
        out = Path(folder, str(done // 2))  # each is finished twice: again in the place of its own release
        if cut(start(attempt(out)), chance.uniform(0, took)):
            cuts -= 1
        else:
            done += 1
        look_at(out)
    finish(start(attempt(Path(folder, str(done // 2)))))
    return [str(number) for number in range(done // 2 + 1)]


def publish_cuts(seed: int, cuts: int, release: str, repo_id: str) -> list[str]:
    """Publish a release to a new repository again and again, each cut until it is done. Gives the repositories."""
    from resegnet.publishing.publish import tag_release, upload_release, verify_download
    from resegnet.segmenter import Segmenter

    Segmenter.from_pretrained(release, engine="torch")  # likewise
    files = [path for path in Path(release).rglob("*") if path.is_file()]
    contents = {path.relative_to(release).as_posix(): path.read_bytes() for path in files}
    contents["README.md"] = b"---\nlibrary_name: resegnet\n---\n"

    def attempt(number: int) -> Callable[[], None]:
        def work() -> None:
            name = f"{repo_id}{number}"
            tag_release(name, "v1", upload_release(contents, name, revision="v1"))
            verify_download(name, "v1")

        return work

    began = time.monotonic()
    finish(start(attempt(0)))
    took = time.monotonic() - began
    chance, number = random.Random(seed), 1
    while cuts:
        if cut(start(attempt(number)), chance.uniform(0, took)):
            cuts -= 1
        else:
            number += 1
    finish(start(attempt(number)))
    return [f"{repo_id}{k}" for k in range(number + 1)]


if __name__ == "__main__":
    _, job, seed, cuts, *arguments = sys.argv
    print(json.dumps({"train": train_cuts, "publish": publish_cuts}[job](int(seed), int(cuts), *arguments)))
