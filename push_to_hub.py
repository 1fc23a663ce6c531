"""Publish a release on the Hugging Face Hub, and a Space that serves it; see `python push_to_hub.py --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import validate_repo_id

ROOT = Path(__file__).parent


def main(argv: list[str] | None = None) -> int:
    """Publish; the exit status is 1 where that could not be done, and it may then be run again."""
    parser = argparse.ArgumentParser(
        description="Verify a release, publish it in one commit, tag it, and verify what the Hub gives to others. "
        "The token is HF_TOKEN, or the one of `hf auth login`."
    )
    parser.add_argument("--release", type=Path, required=True, metavar="DIR", help="folder of the release")
    parser.add_argument("--repo-id", required=True, metavar="USER/NAME", help="model on the Hub, made if need be")
    parser.add_argument("--revision", metavar="TAG", help="tag of this version, such as v1.0.0; never moved")
    parser.add_argument("--private", action="store_true", help="make new repositories private")
    parser.add_argument("--space-id", metavar="USER/NAME", help="also publish a Space that serves this very commit")
    parser.add_argument("--dry-run", action="store_true", help="only show files and card; nothing is sent or fetched")
    arguments = parser.parse_args(argv)
    # What it takes to publish is slow to import; `--help` needs none of it.
    from resegnet.hub import DOWNLOADED_FILES
    from resegnet.publishing.publish import is_private, publish_release, publish_space, release_contents, space_contents

    try:
        if arguments.space_id is not None:
            validate_repo_id(arguments.space_id)
        contents = release_contents(arguments.release, arguments.repo_id, arguments.revision, ROOT / "examples")
        print(f"{arguments.release} is sound.")
        if arguments.dry_run:
            _show(arguments.repo_id, contents)
            print(contents["README.md"].decode())
            if arguments.space_id is not None:
                _show(arguments.space_id, space_contents(ROOT, arguments.repo_id, "<commit>"))
            return 0
        commit, difference = publish_release(
            contents, arguments.repo_id, revision=arguments.revision, private=arguments.private
        )
        at = arguments.revision or commit
        print(f"Downloaded again, it is sound: self-test off by {difference:.6f}.")
        print(f"{constants.ENDPOINT}/{arguments.repo_id}/tree/{at}")
        if arguments.space_id is not None:
            private = is_private(arguments.repo_id)
            preload = [] if private else [name for name in DOWNLOADED_FILES if name in contents]
            space = space_contents(ROOT, arguments.repo_id, commit, preload)
            publish_space(space, arguments.space_id, arguments.repo_id, commit, private=arguments.private)
            print(f"{constants.ENDPOINT}/spaces/{arguments.space_id}")
            if private:
                print(
                    f"{arguments.repo_id} is private: in the settings of the Space, set the secret HF_TOKEN to a token "
                    "that may read it; without one the Space does not start."
                )
    except (ValueError, OSError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        print(f"Not published: {reason}", file=sys.stderr)
        if getattr(error, "temporary", False):
            print("What was sent is kept: run the same command again to go on.", file=sys.stderr)
        return 1
    return 0


def _show(name: str, contents: Mapping[str, bytes]) -> None:
    print(f"Files of {name}:")
    for path, content in sorted(contents.items()):
        print(f"  {len(content):>10,} bytes  {path}")


if __name__ == "__main__":
    sys.exit(main())
