"""Publish a release on the Hugging Face Hub, and a Space that serves it; see `python push_to_hub.py --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from resegnet.errors import ResegnetError, first_line

ROOT = Path(__file__).parent


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the script."""
    parser = argparse.ArgumentParser(
        description="Verify a release, publish it on the Hugging Face Hub in one commit, tag it, then download it "
        "again and verify the download. The token is read from HF_TOKEN, or from `hf auth login`."
    )
    parser.add_argument("--release", type=Path, required=True, metavar="DIR", help="folder of the release")
    parser.add_argument(
        "--repo-id", required=True, metavar="USER/NAME", help="model repository, created if it does not exist"
    )
    parser.add_argument("--revision", metavar="TAG", help="tag of this version, such as v1.0.0; it is never moved")
    parser.add_argument("--private", action="store_true", help="create private repositories")
    parser.add_argument("--space-id", metavar="USER/NAME", help="also publish a Space that serves this version")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the files and the model card; send and download nothing"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Publish a release.

    Returns
    -------
    int
        Exit status: 0 for success, 1 if the release could not be published.
    """
    arguments = build_parser().parse_args(argv)
    try:
        _publish(arguments)
    except (ResegnetError, HfHubHTTPError, HFValidationError, OSError) as error:
        reason = error if isinstance(error, ResegnetError) else first_line(error)
        print(f"Not published: {reason}", file=sys.stderr)
        if getattr(error, "temporary", False):
            print("The Hub keeps what was sent: run the same command again to continue.", file=sys.stderr)
        return 1
    return 0


def _publish(arguments: argparse.Namespace) -> None:
    # These imports are slow, and `--help` needs none of them.
    from resegnet.publishing.publish import publish_release, release_contents
    from resegnet.publishing.space import space_contents

    if arguments.space_id is not None:
        validate_repo_id(arguments.space_id)
    contents = release_contents(arguments.release, arguments.repo_id, arguments.revision, ROOT / "examples")
    print(f"{arguments.release} is sound.")
    if arguments.dry_run:
        _show(arguments.repo_id, contents)
        print(contents["README.md"].decode())
        if arguments.space_id is not None:
            _show(arguments.space_id, space_contents(ROOT, arguments.repo_id, "<commit>"))
        return
    commit, difference = publish_release(
        contents, arguments.repo_id, revision=arguments.revision, private=arguments.private
    )
    print(f"The downloaded release is sound: self-test off by {difference:.6f}.")
    print(f"{constants.ENDPOINT}/{arguments.repo_id}/tree/{arguments.revision or commit}")
    if arguments.space_id is not None:
        _publish_space(arguments, commit)


def _publish_space(arguments: argparse.Namespace, commit: str) -> None:
    from resegnet.hub import DOWNLOADED_FILES
    from resegnet.publishing.publish import is_private
    from resegnet.publishing.space import publish_space, space_contents

    private = is_private(arguments.repo_id)
    contents = space_contents(ROOT, arguments.repo_id, commit, preload=() if private else DOWNLOADED_FILES)
    publish_space(contents, arguments.space_id, arguments.repo_id, commit, private=arguments.private)
    print(f"{constants.ENDPOINT}/spaces/{arguments.space_id}")
    if private:
        print(
            f"{arguments.repo_id} is private: in the settings of the Space, set the secret HF_TOKEN to a token that "
            "may read it. Without one the Space does not start."
        )


def _show(name: str, contents: Mapping[str, bytes]) -> None:
    print(f"Files of {name}:")
    for path, content in sorted(contents.items()):
        print(f"  {len(content):>10,} bytes  {path}")


if __name__ == "__main__":
    sys.exit(main())
