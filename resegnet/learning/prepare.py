"""Convert the original downloads of public data sets to image folders that `load_vessels` reads.

`resegnet.learning.originals` states the files of each download and how it is split. The owners' archives must be
unpacked, into any folders below the given one.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import zlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import HfApi
from PIL import Image

from resegnet.errors import ArgumentError, DataError, PublishError
from resegnet.hub import check_repo_id, make_repo, retry_hub_call
from resegnet.image import read_image
from resegnet.io import atomic_folder
from resegnet.learning.checks import check_vessels
from resegnet.learning.originals import PREPARERS, Eye, Files
from resegnet.learning.samples import encoded, read_mask
from resegnet.releases.datasheets import SOURCES

logger = logging.getLogger(__name__)


def prepare(name: str, source: str | os.PathLike, destination: str | os.PathLike) -> dict[str, int]:
    """Convert an original download to an image folder with `metadata.jsonl`.

    JPEG and PNG photographs are copied byte by byte, others are written as PNG without loss. Masks become PNG files of
    0 and 255: `<image_id>_mask.png` (vessels), `<image_id>_fov.png` (field of view, if the data set has one), and
    `second_observer/<image_id>.png` (a second person's reference, if there is one).

    Parameters
    ----------
    name
        A key of `resegnet.learning.originals.PREPARERS`.
    source
        Folder of the unpacked download. Nothing is written there.
    destination
        Folder to make. It appears when it is complete.

    Returns
    -------
    counts
        Number of photographs of each split.

    Raises
    ------
    DataError
        For an unknown name, a destination that already holds something, and, with every problem listed, for files that
        are missing, found twice, unreadable, of the wrong size, or inverted.
    OSError
        If a file cannot be written.
    """
    if name not in PREPARERS:
        raise DataError(f"No data set '{name}' is known; there are: {', '.join(PREPARERS)}.")
    original = PREPARERS[name]
    source, destination = (Path(os.path.expanduser(folder)) for folder in (source, destination))
    if not source.is_dir():
        raise DataError(f"There is no folder {source}. Expected the unpacked download of {SOURCES[name].title}.")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise DataError(f"{destination} already holds something. Remove it or name another folder.")
    if destination.exists() and destination.samefile(os.curdir):
        raise DataError(f"{destination} is the working folder, which cannot be replaced. Name a folder to make.")

    files = _index(source)
    eyes = original.find_eyes(files)
    found = _resolve(eyes, files, source, name)
    rows = [_row(eye, found[eye.image_id], name) for eye in eyes]
    check_vessels(rows, str(source))

    with atomic_folder(destination) as folder:
        for eye, row in zip(eyes, rows, strict=True):
            logger.info("%s: %s", eye.split, eye.image_id)
            _write_eye(eye, row, found[eye.image_id].get("second"), folder)
        (folder / "README.md").write_text(_readme(name, {eye.split for eye in eyes}), encoding="utf-8")
    return {split: sum(eye.split == split for eye in eyes) for split in dict.fromkeys(eye.split for eye in eyes)}


def is_prepared(folder: str | os.PathLike, name: str) -> bool:
    """Return whether `prepare` made this folder from this data set. Such a folder is always complete."""
    readme = Path(folder) / "README.md"
    return readme.is_file() and readme.read_text(encoding="utf-8", errors="replace").startswith(_origin(name))


def check_publishable(name: str, repo_id: str, *, private: bool) -> None:
    """Raise the errors that `publish` would raise, before the long work.

    Raises
    ------
    DataError
        For an unknown name, or if the owners' terms forbid publication and `private` is False.
    ArgumentError
        If `repo_id` is not `user/name` as the Hub accepts it.
    """
    if name not in PREPARERS:
        raise DataError(f"No data set '{name}' is known; there are: {', '.join(PREPARERS)}.")
    try:
        check_repo_id(repo_id)
    except PublishError as error:
        raise ArgumentError(f"--push-to-hub: {error}") from error
    about = SOURCES[name]
    if not private and not about.terms.startswith("CC"):
        raise DataError(
            f"{about.title} must not be published (terms: {about.terms}). Add --private to keep it to yourself."
        )


def publish(folder: str | os.PathLike, name: str, repo_id: str, *, private: bool = False) -> None:
    """Publish a prepared data set on the Hub, as Parquet with `Image` columns and with its terms as the card.

    Parameters
    ----------
    folder
        Folder that `prepare` made. The second person's references are not published.
    name
        A key of `resegnet.learning.originals.PREPARERS`.
    repo_id
        Name of the data set on the Hub, which is created if it does not exist.
    private
        Make it private.

    Raises
    ------
    DataError
        If the owners' terms forbid publication and `private` is False.
    PublishError
        If the data set exists and is public although `private` is True, or was not made by ReSegNet.
    HubError
        If the Hub or the connection fails.
    """
    check_publishable(name, repo_id, private=private)
    api = HfApi()
    make_repo(api, repo_id, "dataset", private=private)
    where = {"repo_id": repo_id, "repo_type": "dataset"}
    present = set(retry_hub_call(api.list_repo_files, **where)) - {".gitattributes"}
    ours = "README.md" in present
    if ours:
        readme = retry_hub_call(api.hf_hub_download, filename="README.md", **where)
        ours = "Converted by ReSegNet" in Path(readme).read_text(encoding="utf-8", errors="replace")
    if not ours and present - {"README.md"}:
        raise PublishError(f"{repo_id} holds a data set that ReSegNet did not make: name another.")
    if not ours:
        # The README goes first, so that `push_to_hub` adds its front matter to it.
        retry_hub_call(api.upload_file, path_or_fileobj=_readme(name).encode(), path_in_repo="README.md", **where)
    # An image folder puts the bytes of the files into the Parquet files; nothing is encoded again.
    rows = datasets.load_dataset("imagefolder", data_dir=str(folder))
    retry_hub_call(rows.push_to_hub, repo_id, private=private)


def _index(source: Path) -> Files:
    """Return all files below a folder by the names that `Eye` uses: alone, with the last two and with four folders."""
    files = defaultdict(list)
    for path in sorted(source.rglob("*")):
        # Archives made by macOS hold a "._" twin of every file.
        if path.is_file() and not path.name.startswith(".") and "__MACOSX" not in path.parts:
            parts = [part.lower() for part in path.absolute().parts]
            parts[-1] = parts[-1].removesuffix(".gz")
            for folders in (0, 2, 4):
                files["/".join(parts[-1 - folders :])].append(path)
    return files


def _resolve(eyes: Sequence[Eye], files: Files, source: Path, data_set: str) -> dict[str, dict[str, Path]]:
    """Return the paths by `image_id` and role.

    Raises
    ------
    DataError
        With every file listed that is missing or found twice.
    """
    found: dict[str, dict[str, Path]] = {}
    problems = []
    for eye in eyes:
        found[eye.image_id] = {}
        for role in ("image", "mask", "fov", "second"):
            name = getattr(eye, role)
            if name is None:
                continue
            paths = files.get(name, ())
            if len(paths) == 1:
                found[eye.image_id][role] = paths[0]
            elif paths:
                problems.append(f"{name}: found {len(paths)} times ({', '.join(map(str, paths))})")
            elif role != "second":
                problems.append(f"{name}: missing")
    if not eyes or problems:
        archives = [path.name for path in sorted(source.rglob("*")) if path.suffix in (".zip", ".tar", ".rar", ".tgz")]
        raise DataError(
            f"{source} is not a complete download of {SOURCES[data_set].title}. Expected, in any folder below it: "
            + PREPARERS[data_set].layout
            + (f"\nNot unpacked yet? {', '.join(archives)}" if archives else "")
            + "".join(f"\n- {problem}" for problem in problems)
        )
    return found


def _row(eye: Eye, paths: Mapping[str, Path], name: str) -> dict[str, Any]:
    """Return the row that `load_vessels` will give for this photograph, with the paths of the original files."""
    cells = {
        role: {"bytes": _unzip(path) if path.suffix == ".gz" else None, "path": str(path)}
        for role, path in paths.items()
        if role != "second"
    }
    return {"fov": None, **cells, "image_id": eye.image_id, "patient": eye.patient, "dataset": name}


def _unzip(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked ({error}). Download it again.") from error


def _write_eye(eye: Eye, row: Mapping[str, Any], second: Path | None, folder: Path) -> None:
    split = folder / eye.split
    split.mkdir(parents=True, exist_ok=True)
    content = encoded(row["image"])
    with Image.open(io.BytesIO(content)) as photograph:
        suffix = {"JPEG": ".jpg", "PNG": ".png"}.get(photograph.format or "")
    entry = {"image_id": eye.image_id, "patient": eye.patient, "dataset": row["dataset"]}
    entry["image_file_name"] = eye.image_id + (suffix or ".png")
    if suffix:
        (split / entry["image_file_name"]).write_bytes(content)
    else:
        Image.fromarray(read_image(content)).save(split / entry["image_file_name"])
    for column in ("mask", "fov"):
        if row[column] is not None:
            entry[f"{column}_file_name"] = f"{eye.image_id}_{column}.png"
            _write_mask(row[column], split / entry[f"{column}_file_name"])
    if second is not None:
        observer = folder / "second_observer"
        observer.mkdir(exist_ok=True)
        cell = {"bytes": _unzip(second) if second.suffix == ".gz" else None, "path": str(second)}
        _write_mask(cell, observer / f"{eye.image_id}.png")
    with open(split / "metadata.jsonl", "a", encoding="utf-8") as metadata:
        metadata.write(json.dumps(entry) + "\n")


def _write_mask(cell: Mapping[str, Any], path: Path) -> None:
    try:
        mask = read_mask(cell)
    except OSError as error:
        raise DataError(f"{cell['path']} cannot be read ({error}).") from error
    Image.fromarray(mask.astype("uint8") * 255).save(path)


def _readme(name: str, splits: Collection[str] = ("train", "test")) -> str:
    about = SOURCES[name]
    facts = {
        "Camera": about.camera,
        "Eyes": about.eyes,
        "Terms": about.terms,
        "Cite": about.paper,
        "Split": PREPARERS[name].split,
    }
    lines = [*(f"{fact}: {value}" for fact, value in facts.items() if value), *about.notes]
    if "test" not in splits:
        lines.append("The download had no references of its test photographs, so this folder has no split `test`.")
    return _origin(name) + "".join(f"* {line}\n" for line in lines)


def _origin(name: str) -> str:
    """Return the start of the README of a prepared data set."""
    about = SOURCES[name]
    return f"# {about.title}\n\nConverted by ReSegNet from the download of {about.url}.\n\n"
