"""Repositories of the Hub on loopback on disk, who may see them, and the table of its routes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from starlette.requests import Request

from support.hub_formats import Refusal, git_hash, key_of, now

# Suffixes that the Hub's own .gitattributes sends to large-file storage, as far as this project writes such files.
LARGE_SUFFIXES = (".safetensors", ".bin", ".pt", ".pkl", ".onnx", ".parquet", ".arrow", ".npy", ".npz", ".zip", ".gz")

API = r"/api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+/[^/]+)"
PAGE = r"/(?:(?P<kind>datasets|spaces)/)?(?P<name>[^/]+/[^/]+)"
ROUTES: list[tuple[str, re.Pattern, Callable]] = []


def route(method: str, pattern: str):
    def register(handler):
        ROUTES.append((method, re.compile(pattern), handler))
        return handler

    return register


class HubStorage:
    """Objects by sha256, commits and names of the repositories, in a folder."""

    def __init__(self, folder: str | Path, users: dict[str, str] | None = None):
        self.folder = Path(folder)
        self.users = users or {"hf_someone": "someone", "hf_stranger": "stranger"}
        self.requests: list[str] = []
        self.unknown: list[str] = []
        self.faults: list[dict] = []
        self.multipart_bytes: int | None = None
        self.refused_hardware: dict[str, tuple[int, str]] = {}
        self.url = ""
        for name in ("objects", "parts", "xorbs"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        saved = self.folder / "repos.json"
        self.repos: dict[str, dict] = json.loads(saved.read_text()) if saved.exists() else {}

    # Permissions.

    def _user(self, request: Request) -> str | None:
        header = request.headers.get("authorization")
        if header is None:
            return None
        user = self.users.get(header.removeprefix("Bearer "))
        if user is None:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return user

    def _repo(self, request: Request, kind: str | None, name: str, write: bool = False) -> dict:
        user = self._user(request)
        owner = name.split("/")[0]
        repo = self.repos.get(key_of(kind, name))
        if repo is None or (repo["private"] and user != owner):
            # The Hub does not tell strangers whether a private repository exists.
            if user is None:
                raise Refusal(401, "Invalid username or password.", "RepoNotFound")
            raise Refusal(404, "Repository not found", "RepoNotFound")
        if write and user is None:
            raise Refusal(401, "Invalid username or password.", "RepoNotFound")
        if write and user != owner:
            raise Refusal(403, f"You don't have the rights to write to {name}")
        return repo

    # Storage.

    def _object(self, sha256: str) -> Path:
        return self.folder / "objects" / sha256

    def _store(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        self._object(sha256).write_bytes(content)
        return sha256

    def _save(self) -> None:
        partial = self.folder / "repos.partial"
        partial.write_text(json.dumps(self.repos))
        partial.replace(self.folder / "repos.json")

    def _commit(self, repo: dict, revision: str) -> dict:
        name = re.sub("^refs/(heads|tags)/", "", revision)
        commit_id = repo["branches"].get(name) or repo["tags"].get(name) or revision
        if commit_id not in repo["commits"]:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repo["commits"][commit_id]

    def _history(self, repo: dict, revision: str) -> list[dict]:
        history = [self._commit(repo, revision)]
        while history[-1]["parent"]:
            history.append(repo["commits"][history[-1]["parent"]])
        return history

    def _add_commit(self, repo: dict, branch: str, title: str, message: str, files: dict[str, dict]) -> dict:
        commit = {
            "parent": repo["branches"].get(branch),
            "title": title,
            "message": message,
            "date": now(),
            "files": dict(sorted(files.items())),
        }
        commit["id"] = hashlib.sha1(json.dumps([repo["key"], commit]).encode()).hexdigest()
        repo["commits"][commit["id"]] = commit
        repo["branches"][branch] = commit["id"]
        self._save()
        return commit

    def _regular_file(self, content: bytes) -> dict:
        oid = git_hash(content)
        return {"sha256": self._store(content), "size": len(content), "oid": oid, "large": False, "pointer": 0}

    def _large_file(self, sha256: str, size: int | None) -> dict:
        file = self._object(sha256)
        if not file.exists():
            raise Refusal(400, f"Your push was rejected: there is no file behind LFS pointer {sha256}")
        actual = file.stat().st_size
        if size not in (None, actual):
            raise Refusal(400, f"Your push was rejected: LFS pointer {sha256} says {size} bytes, there are {actual}")
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {actual}\n".encode()
        oid = git_hash(pointer)
        return {"sha256": sha256, "size": actual, "oid": oid, "large": True, "pointer": len(pointer)}
