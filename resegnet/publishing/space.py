"""A Space on the Hugging Face Hub that serves a published release."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import HfApi, metadata_load
from huggingface_hub.utils import yaml_dump

from resegnet.errors import PublishError
from resegnet.hub import DOWNLOADED_FILES, MODEL_VARIABLE, make_repo, retry_hub_call
from resegnet.publishing.commit import MARK, commit_contents
from resegnet.releases.records import DISCLAIMER
from resegnet.releases.release import release_files

_WEB_SUFFIXES = (".css", ".html", ".js", ".svg", ".webp")


def space_contents(
    root: Path, repo_id: str, commit: str, preload: Sequence[str] = DOWNLOADED_FILES
) -> dict[str, bytes]:
    """Collect the files of a Space that serves a published release: content by path.

    Parameters
    ----------
    root
        This repository. Its README.md holds the settings of the Space, its pyproject.toml what to install. Only files
        that belong to the package, and photographs that `examples/README.md` names, are collected. pip can install the
        collected folder.
    repo_id, commit
        The release on the Hub, and the commit to serve.
    preload
        Files of the release that the Hub downloads while it builds the Space. Give none for a private release: a build
        has no token.

    Raises
    ------
    PublishError
        If README.md holds no settings of a Space.
    """
    contents = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(_space_files(root))
        if path.is_file() and not path.name.startswith(".")
    }
    contents["pyproject.toml"] = (root / "pyproject.toml").read_bytes()
    contents["requirements.txt"] = _requirements(root).encode()
    contents["README.md"] = _space_readme(root, repo_id, commit, preload).encode()
    return contents


def _space_files(root: Path) -> list[Path]:
    package, examples = root / "resegnet", root / "examples"
    origins = (examples / "README.md").read_text(encoding="utf-8")  # no photograph is published without its origin
    return [
        root / "app.py",
        root / "LICENSE",
        *package.rglob("*.py"),
        *(path for path in package.glob("web/*") if path.suffix in _WEB_SUFFIXES),
        package / "publishing" / "card_template.md",
        *(package / "releases" / "bundled" / name for name in release_files(package / "releases" / "bundled")),
        *(path for path in examples.iterdir() if path.name == "README.md" or f"`{path.name}`" in origins),
    ]


def _requirements(root: Path) -> str:
    """Return the requirements of the page, one a line: the package's dependencies and its extra `app`; no torch."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return "".join(f"{line}\n" for line in (*project["dependencies"], *project["optional-dependencies"]["app"]))


def _space_readme(root: Path, repo_id: str, commit: str, preload: Sequence[str]) -> str:
    settings = metadata_load(root / "README.md")
    if settings is None:
        raise PublishError(f"{root / 'README.md'} has no front matter, expected the settings of a Space: add them.")
    settings |= {"tags": [*settings["tags"], MARK], "models": [repo_id]}
    if preload:
        settings["preload_from_hub"] = [f"{repo_id} {','.join(preload)} {commit}"]
    return f"""---
{yaml_dump(settings)}---

# ReSegNet

This Space finds the blood vessels in colour fundus photographs. It serves
[{repo_id}](https://huggingface.co/{repo_id}) at commit {commit}, as the variable `{MODEL_VARIABLE}` says.

{DISCLAIMER}
"""


def publish_space(contents: Mapping[str, bytes], space_id: str, repo_id: str, commit: str, *, private: bool) -> str:
    """Publish the contents of a Space, and set the variable that names the release to serve.

    Parameters
    ----------
    contents
        From `space_contents`.
    space_id
        Name of the Space. It is created if it does not exist, `private` or public.
    repo_id, commit
        The release on the Hub, and the commit to serve.

    Returns
    -------
    str
        Commit of the Space, 40 hexadecimal digits.

    Raises
    ------
    PublishError
        If the Space is public although a private one was asked for, or holds files that this package did not publish.
    HubError
        If the Hub refuses a request or the connection fails.
    """
    api = HfApi()
    make_repo(api, space_id, "space", private=private, space_sdk="gradio")
    space_commit = commit_contents(api, space_id, "space", contents, f"Serve {repo_id}@{commit[:12]}")
    variable = retry_hub_call(api.get_space_variables, space_id).get(MODEL_VARIABLE)
    if variable is None or variable.value != f"{repo_id}@{commit}":  # setting a variable restarts the Space
        retry_hub_call(api.add_space_variable, space_id, MODEL_VARIABLE, f"{repo_id}@{commit}")
    return space_commit
