"""Publish a release on the Hugging Face Hub, and a Space that serves it; see `python push_to_hub.py --help`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from resegnet.arguments import path_argument
from resegnet.errors import PublishError, ResegnetError, first_line, has_torch, require_torch

ROOT = Path(__file__).parent


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the script."""
    parser = argparse.ArgumentParser(
        description="Publish a release on the Hugging Face Hub: verify it, upload it in one commit, tag it, then "
        "download it again and verify the download. The token comes from HF_TOKEN, or from `hf auth login`.",
        epilog="Begin with --dry-run: it needs no account. If a step fails, run the same command again. See "
        "docs/publishing.md.",
    )
    parser.add_argument(
        "--release", type=path_argument, required=True, metavar="DIR", help="release, such as runs/first/release"
    )
    parser.add_argument(
        "--repo-id", required=True, metavar="USER/NAME", help="model repository, created if it does not exist"
    )
    parser.add_argument("--revision", metavar="TAG", help="tag of this version, such as v1.0.0; never moved")
    parser.add_argument("--private", action="store_true", help="create model and Space as private ones")
    parser.add_argument("--space-id", metavar="USER/NAME", help="also publish a Space that serves this version")
    parser.add_argument(
        "--space-hardware",
        choices=("cpu-basic", "zero-a10g"),
        help="hardware of the Space: cpu-basic needs a paid plan of the Hub; zero-a10g (ZeroGPU) borrows a GPU for "
        "each photograph, and a free account may have two such Spaces (default: what the Space has, or cpu-basic)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="verify, print the files, the model card and the README of the Space, and send nothing",
    )
    return parser


class _StepError(Exception):
    """A step failed; the message says which, what was done before, and why."""


@contextmanager
def _step(outcome: str) -> Iterator[None]:
    """Turn an error that the user can mend into a `_StepError` that begins with the outcome so far."""
    try:
        yield
    except BrokenPipeError:  # of our own output
        raise
    except (ResegnetError, HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error) if isinstance(error, ResegnetError) else first_line(error)
        if getattr(error, "temporary", False):
            reason += "\nThe Hub keeps what was sent: run the same command again to continue."
        raise _StepError(f"{outcome}: {reason}") from error


def main(argv: list[str] | None = None) -> int:
    """Publish a release.

    Returns
    -------
    int
        Exit status: 0 for success, 1 if the release or its Space could not be published.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # the card has characters that not every terminal has
    try:
        _publish(build_parser().parse_args(argv))
        sys.stdout.flush()
    except BrokenPipeError:  # stdout is closed, for example by `| head`; Python flushes it again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except _StepError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _publish(arguments: argparse.Namespace) -> None:
    # These imports are slow, and `--help` needs none of them.
    from resegnet.hub import DOWNLOADED_FILES
    from resegnet.publishing.pictures import FOUND
    from resegnet.publishing.publish import release_contents
    from resegnet.publishing.space import CPU_BASIC, space_contents

    repo_id, space_id = arguments.repo_id, arguments.space_id
    with _step("Not published, nothing was sent"):
        if arguments.space_hardware is not None and space_id is None:
            raise PublishError("--space-hardware came without --space-id: give the name of the Space too.")
        if not arguments.dry_run:
            require_torch("publishing, which runs the weights before and after,")
        contents = release_contents(
            arguments.release, repo_id, arguments.revision, ROOT / "examples", space_id=space_id
        )
        if has_torch():
            print(f"{arguments.release} is sound.")
        else:
            print(f"{arguments.release}: files and model.onnx are sound. The weights were not run: PyTorch is missing.")
        if arguments.dry_run:
            _show(repo_id, contents)
            print(contents["README.md"].decode())
            if space_id is not None:
                hardware = arguments.space_hardware or CPU_BASIC
                preload = () if arguments.private else DOWNLOADED_FILES
                space = space_contents(ROOT, repo_id, "<commit>", preload, hardware=hardware, picture=contents[FOUND])
                _show(space_id, space)
                print(space["README.md"].decode())
            if space_id is not None and arguments.space_hardware is None:
                print("A Space that is there already keeps its hardware, and gets the files for that.")
            print("Dry run: nothing was sent. Without --dry-run the same command publishes what is listed above.")
            return
    commit = _publish_model(arguments, contents)
    if space_id is not None:
        _publish_space(arguments, contents, commit)


def _publish_model(arguments: argparse.Namespace, contents: Mapping[str, bytes]) -> str:
    """Upload, tag and verify the model, and print each step. Returns the commit."""
    from resegnet.publishing.publish import tag_release, upload_release, verify_download

    repo_id, revision = arguments.repo_id, arguments.revision
    space = "" if arguments.space_id is None else f" The Space {arguments.space_id} was not published."
    with _step(f"The model {repo_id} was not published.{space}\nReason"):
        commit = upload_release(contents, repo_id, revision=revision, private=arguments.private)
    print(f"Uploaded: {constants.ENDPOINT}/{repo_id}/tree/{commit}")
    if revision is not None:
        with _step(f"The model {repo_id} was published at {commit}, without its tag {revision}.{space}\nReason"):
            tag_release(repo_id, revision, commit)
        print(f"Tagged: {constants.ENDPOINT}/{repo_id}/tree/{revision}")
    with _step(f"The model {repo_id} was published at {commit}, but its download is not verified.{space}\nReason"):
        difference = verify_download(repo_id, revision or commit)
    print(f"Downloaded again and verified: self-test off by {difference:.6f}.")
    return commit


def _publish_space(arguments: argparse.Namespace, model: Mapping[str, bytes], commit: str) -> None:
    """Publish the Space that serves the files `model`, and print where it is and what a private one needs."""
    from resegnet.hub import DOWNLOADED_FILES
    from resegnet.publishing.pictures import FOUND
    from resegnet.publishing.publish import is_private
    from resegnet.publishing.space import current_hardware, publish_space, space_contents

    repo_id, space_id = arguments.repo_id, arguments.space_id
    with _step(f"The model {repo_id} was published. The Space {space_id} was not published completely.\nReason"):
        private = is_private(repo_id)
        hardware = arguments.space_hardware or current_hardware(space_id)
        preload = () if private else DOWNLOADED_FILES
        contents = space_contents(ROOT, repo_id, commit, preload, hardware=hardware, picture=model[FOUND])
        publish_space(contents, space_id, repo_id, commit, private=arguments.private, hardware=hardware)
    print(f"Space: {constants.ENDPOINT}/spaces/{space_id} (the Hub builds it now, which takes a few minutes)")
    if private:
        print(
            f"{repo_id} is private: in the settings of the Space, set the secret HF_TOKEN to a token that may "
            "read it. Without one the Space does not start."
        )


def _show(name: str, contents: Mapping[str, bytes]) -> None:
    print(f"Files of {name}:")
    for path, content in sorted(contents.items()):
        print(f"  {len(content):>10,} bytes  {path}")


if __name__ == "__main__":
    sys.exit(main())
