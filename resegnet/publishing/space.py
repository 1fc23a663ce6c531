"""A Space on the Hugging Face Hub that serves a published release."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import HfApi, metadata_load
from huggingface_hub.utils import yaml_dump

from resegnet.errors import HubError, PublishError, first_line
from resegnet.hub import (
    BUNDLED_RELEASES,
    DOWNLOADED_FILES,
    MODEL_VARIABLE,
    TRAINING_NAME,
    WEIGHTS_NAME,
    make_repo,
    retry_hub_call,
)
from resegnet.publishing.commit import MARK, commit_contents
from resegnet.releases.datasheets import SOURCES
from resegnet.releases.records import DISCLAIMER, read_record, training_datasets
from resegnet.releases.release import release_files
from resegnet.version import REPOSITORY_URL

# Names that the Hub gives the hardware; ZeroGPU keeps that of its first GPU.
CPU_BASIC, ZERO_GPU = "cpu-basic", "zero-a10g"
HARDWARE = (CPU_BASIC, ZERO_GPU)
# Versions that ZeroGPU supports: https://huggingface.co/docs/hub/spaces-zerogpu (September 2026).
ZERO_GPU_PYTHON, ZERO_GPU_TORCH = "3.12.12", "2.11.0"

PICTURE = "picture.jpg"
_WEB_SUFFIXES = (".css", ".html", ".js", ".svg", ".webp")
_NOT_SERVED = ("learning", "publishing", "benchmark.py")  # parts of the package that neither page nor prediction needs
# Packages that `resegnet.model` imports beside torch.
_WEIGHTS_PACKAGES = ("torchvision", "segmentation-models-pytorch", "timm", "safetensors")


def space_contents(
    root: Path,
    repo_id: str,
    commit: str,
    preload: Sequence[str] = DOWNLOADED_FILES,
    *,
    hardware: str = CPU_BASIC,
    picture: bytes | None = None,
) -> dict[str, bytes]:
    """Collect the files of a Space that serves a published release: content by path.

    Parameters
    ----------
    root
        This repository. Its README.md holds the settings of the Space, its pyproject.toml what to install. Only files
        that page and prediction need, and photographs that `examples/README.md` names, are collected. pip can install
        the collected folder.
    repo_id, commit
        The release on the Hub, and the commit to serve.
    preload
        Files of the release that the Hub downloads while it builds the Space. Give none for a private release: a build
        has no token.
    hardware
        One of `HARDWARE`. On `zero-a10g` the network runs in PyTorch on a GPU, else in ONNX Runtime.
    picture
        JPEG for the README: a photograph, and what the release finds in it.

    Raises
    ------
    PublishError
        If README.md holds no settings of a Space.
    """
    contents = {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(_space_files(root, hardware))
        if path.is_file() and not path.name.startswith(".")
    }
    contents["pyproject.toml"] = _pyproject(root).encode()
    contents["requirements.txt"] = _requirements(root, hardware).encode()
    contents["README.md"] = _readme(root, repo_id, commit, preload, hardware, picture is not None).encode()
    if picture is not None:
        contents[PICTURE] = picture
    return contents


def _space_files(root: Path, hardware: str) -> list[Path]:
    package, examples = root / "resegnet", root / "examples"
    bundled = package / "releases" / "bundled"
    origins = (examples / "README.md").read_text(encoding="utf-8")  # no photograph is published without its origin
    return [
        root / "app.py",
        root / "LICENSE",
        *(path for path in package.rglob("*.py") if path.relative_to(package).parts[0] not in _NOT_SERVED),
        *(path for path in package.glob("web/*") if path.suffix in _WEB_SUFFIXES),
        # The engine on a CPU needs no weights for PyTorch, which are the larger part.
        *(bundled / name for name in release_files(bundled) if name != WEIGHTS_NAME or hardware == ZERO_GPU),
        *(path for path in examples.iterdir() if path.name == "README.md" or f"`{path.name}`" in origins),
    ]


def _pyproject(root: Path) -> str:
    """Return pyproject.toml without the packages that the Space lacks and the settings of development tools."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8").partition("\n[tool.ruff]")[0]
    lacking = tuple(f'"resegnet.{name}"' for name in _NOT_SERVED)
    return "".join(line for line in text.splitlines(keepends=True) if not line.strip().startswith(lacking))


def _requirements(root: Path, hardware: str) -> str:
    """Return what the page needs, one requirement a line: torch on ZeroGPU only."""
    project: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["app"]]
    if hardware == ZERO_GPU:
        lines += [f"torch=={ZERO_GPU_TORCH}", *extras["zerogpu"]]
        lines += [line for line in extras["train"] if re.split("[^a-z0-9-]", line)[0] in _WEIGHTS_PACKAGES]
    return "".join(f"{line}\n" for line in lines)


def _readme(root: Path, repo_id: str, commit: str, preload: Sequence[str], hardware: str, has_picture: bool) -> str:
    settings = metadata_load(root / "README.md")
    if settings is None:
        raise PublishError(f"{root / 'README.md'} has no front matter, expected the settings of a Space: add them.")
    settings.pop("license", None)  # that of the code alone; the terms of the weights differ, and the text has both
    settings |= {"tags": [*settings["tags"], MARK], "models": [repo_id], "suggested_hardware": hardware}
    if preload:
        settings["preload_from_hub"] = [f"{repo_id} {','.join(preload)} {commit}"]
    if hardware == ZERO_GPU:
        settings["python_version"] = ZERO_GPU_PYTHON
    template = Path(__file__).with_name("space_template.md").read_text(encoding="utf-8")
    return jinja2.Template(template, trim_blocks=True, keep_trailing_newline=True).render(
        settings=yaml_dump(settings),
        disclaimer=DISCLAIMER,
        repo_id=repo_id,
        commit=commit,
        picture=PICTURE if has_picture else None,
        repository_url=REPOSITORY_URL,
        bundled_terms=_terms_of(BUNDLED_RELEASES["bundled"]),
        lent_gpu=hardware == ZERO_GPU,
        variable=MODEL_VARIABLE,
    )


def _terms_of(release: Path) -> str:
    """Name the data sets that a release was trained on, each with its terms."""
    sources = [SOURCES[name] for name in training_datasets(read_record(release / TRAINING_NAME)) if name in SOURCES]
    return "; ".join(f"{source.title} ({source.terms})" for source in sources)


def publish_space(
    contents: Mapping[str, bytes],
    space_id: str,
    repo_id: str,
    commit: str,
    *,
    private: bool,
    hardware: str = CPU_BASIC,
) -> str:
    """Publish the contents of a Space, and set the variable that names the release to serve.

    Parameters
    ----------
    contents
        From `space_contents`.
    space_id
        Name of the Space. It is created if it does not exist, `private` or public.
    repo_id, commit
        The release on the Hub, and the commit to serve.
    hardware
        One of `HARDWARE`, the one that the contents are for. A Space that exists keeps its own, unless one of the two
        is ZeroGPU.

    Returns
    -------
    str
        Commit of the Space, 40 hexadecimal digits.

    Raises
    ------
    PublishError
        If the account may not have a Space on this hardware; if the Space is public although a private one was asked
        for, or holds files that this package did not publish.
    HubError
        If the Hub refuses a request or the connection fails.
    """
    api = HfApi()
    try:
        make_repo(api, space_id, "space", private=private, space_sdk="gradio", space_hardware=hardware)
    except HubError as error:
        raise _explain_hardware(error, hardware) from error
    if current_hardware(space_id) != hardware:
        _move(api, space_id, hardware)
    space_commit = commit_contents(api, space_id, "space", contents, f"Serve {repo_id}@{commit[:12]}")
    variable = retry_hub_call(api.get_space_variables, space_id).get(MODEL_VARIABLE)
    if variable is None or variable.value != f"{repo_id}@{commit}":  # setting a variable restarts the Space
        retry_hub_call(api.add_space_variable, space_id, MODEL_VARIABLE, f"{repo_id}@{commit}")
    return space_commit


def current_hardware(space_id: str) -> str:
    """Return the one of `HARDWARE` for which a Space needs its files; `cpu-basic` if it does not exist.

    Raises
    ------
    HubError
        If the Hub refuses a request or the connection fails.
    """
    api = HfApi()
    if not retry_hub_call(api.repo_exists, space_id, repo_type="space"):
        return CPU_BASIC
    runtime = retry_hub_call(api.get_space_runtime, space_id)
    return ZERO_GPU if (runtime.requested_hardware or runtime.hardware) == ZERO_GPU else CPU_BASIC


def _move(api: HfApi, space_id: str, hardware: str) -> None:
    try:
        retry_hub_call(api.request_space_hardware, space_id, hardware)
    except HubError as error:
        explained = _explain_hardware(error, hardware)
        if explained is not error or error.temporary:
            raise explained from error
        # With the token of `hf auth login` too: https://github.com/huggingface/huggingface_hub/issues/4972.
        raise PublishError(
            f"The Hub does not move {space_id} to {hardware} ({_said(error)}): choose {hardware} in the settings of "
            "the Space, then run the same command again."
        ) from error


def _explain_hardware(error: HubError, hardware: str) -> HubError | PublishError:
    """Tell what to do if the Hub refused the hardware; return the error itself if it refused something else."""
    status = getattr(getattr(error.__cause__, "response", None), "status_code", None)
    said = _said(error)
    if status != 402 and not (status == 403 and "the rights" not in said):
        return error
    if hardware == ZERO_GPU:
        mend = (
            "a free account may have two Spaces on ZeroGPU, once it is 30 days old and its e-mail address is verified: "
            "delete one, wait, or subscribe at https://huggingface.co/pro"
        )
    else:
        mend = (
            f"give --space-hardware {ZERO_GPU}, on which a free account may have two Spaces, or subscribe at "
            "https://huggingface.co/pro"
        )
    return PublishError(f"The Hub refuses this account a Space on {hardware} ({said}): {mend}.")


def _said(error: HubError) -> str:
    """Return what the Hub answered."""
    refusal = error.__cause__ or error
    return (getattr(refusal, "server_message", None) or first_line(refusal)).rstrip(".")
