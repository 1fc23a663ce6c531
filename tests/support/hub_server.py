"""A Hub on loopback: enough of the Hugging Face Hub for the unmodified client to publish and to download.

`HubServer(folder)` keeps its storage in `folder` (objects by sha256, `repos.json` with every commit) and speaks the
routes that huggingface_hub 2.4, hf_xet 1.8 and datasets 5.2 call: creating and deleting repositories, their
information, refs, tags, branches, commits, tree and paths, preupload, both upload protocols, commit, resolve, the
check of a README's front matter, variables and hardware of a Space, whoami. Models lie at `/{id}`, data sets at
`/datasets/{id}`, Spaces at `/spaces/{id}`; such a path without the leading slash names a repository in the helpers,
too, as in `hub.files("datasets/someone/eyes")`.

    with HubServer(tmp_path / "hub") as hub:
        hub.fail_next("500", match="POST .*/commit/")
        hub.run("from huggingface_hub import HfApi; HfApi().create_repo('someone/net')", home=tmp_path / "home")
        assert hub.commits("someone/net")

Uploads: a client with hf_xet always uses the Xet protocol, whatever the server answers. A client without it, or with
`HF_HUB_DISABLE_XET=1`, uses Git LFS. The server supports both. Downloads are plain HTTP, because no answer names a Xet
hash. Large files redirect to "localhost" while the Hub is "127.0.0.1": for the client this is another host, which must
not receive the token, as with the Hub's CDN.

Not supported: pull requests and discussions; `.gitignore` (the Hub leaves ignored files out); pages of long lists and
`expand` with last commits; Xet downloads, and of Xet uploads the check of Xet's own hashes and deduplication between
clients (the file's sha256 is checked); organisations, roles of tokens and limits of size or rate; most of the Hub's
rules on front matter; abbreviated commit ids; renamed repositories; building and running of Spaces; data set viewer
and Parquet export; search; repositories without a namespace. A request to any other route is answered with 501 and
listed in `hub.unknown`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime
import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote

import numpy as np
import pyarrow
import uvicorn
import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from support import PATIENCE_S

FAULTS = ("cut", "lost", "500", "429", "ratelimit", "flip")
# Suffixes that the Hub's own .gitattributes sends to large-file storage, as far as this project writes such files.
LARGE_SUFFIXES = (".safetensors", ".bin", ".pt", ".pkl", ".onnx", ".parquet", ".arrow", ".npy", ".npz", ".zip", ".gz")
LARGE_BYTES = 10 * 2**20
# Names that git refuses for a branch or tag (https://git-scm.com/docs/git-check-ref-format), or takes for a commit or a
# full reference.
BAD_REF = re.compile(
    r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[/.-]|/\.|[/.]$|\.lock(/|$)|^@?$|^HEAD$|^refs/|^[0-9a-f]{40}$"
)

API = r"/api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+/[^/]+)"
PAGE = r"/(?:(?P<kind>datasets|spaces)/)?(?P<name>[^/]+/[^/]+)"
ROUTES: list[tuple[str, re.Pattern, Callable]] = []


def route(method: str, pattern: str):
    def register(handler):
        ROUTES.append((method, re.compile(pattern), handler))
        return handler

    return register


class Refusal(Exception):
    """An error answer. The client turns `code` into an exception of its own."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers

    def response(self) -> Response:
        headers = {name.replace("_", "-"): value for name, value in self.headers.items()}
        headers["X-Error-Message"] = self.message.replace("\n", " ")
        if self.code:
            headers["X-Error-Code"] = self.code
        return JSONResponse({"error": self.message}, self.status, headers)


class HubServer:
    """The Hub on loopback, in a thread of the caller's process.

    Parameters
    ----------
    folder
        Storage. A server that is started on it later has the same repositories.
    users
        User name by token. A user may write only to repositories below that name.

    Attributes
    ----------
    requests
        "METHOD /path" of every request so far; clear it between two steps.
    unknown
        The requests among them that no route answers.
    faults
        Faults that still wait for a matching request.
    multipart_bytes
        If set, larger files are uploaded through Git LFS in parts of this size.
    refused_hardware
        Status and message of the refusal by hardware, for Spaces that the user's plan does not allow.
    """

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

    # Running.

    def start(self) -> HubServer:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        options = {"http": "h11", "ws": "none", "lifespan": "off", "log_config": None, "proxy_headers": False}
        self._server = uvicorn.Server(uvicorn.Config(self, timeout_graceful_shutdown=1, **options))
        self._thread = threading.Thread(target=self._server.run, args=([listener],), daemon=True)
        self._thread.start()
        deadline = time.monotonic() + PATIENCE_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("The Hub on loopback did not start.")
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)

    def __enter__(self) -> HubServer:
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()

    # Methods for tests.

    def commits(self, repo: str, revision: str = "main") -> list[str]:
        """List the commit ids of a branch, tag or commit, newest first; the Hub itself makes the first commit."""
        return [commit["id"] for commit in self._history(self.repos[repo], revision)]

    def tags(self, repo: str) -> dict[str, str]:
        """Return the commit id of each tag."""
        return dict(self.repos[repo]["tags"])

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """Return the content of each file by its path."""
        files = self._commit(self.repos[repo], revision)["files"]
        return {path: self._object(file["sha256"]).read_bytes() for path, file in files.items()}

    def count(self, match: str) -> int:
        """Count the requests so far that match a regular expression, such as "PUT /lfs/"."""
        return sum(bool(re.search(match, request)) for request in self.requests)

    def gate(self, repo: str, *readers: str) -> None:
        """Let only the owner and these users read the files."""
        self.repos[repo].update(gated="manual", readers=list(readers))
        self._save()

    def fail_next(self, kind: str, match: str = "", times: int = 1) -> None:
        """Let the next matching requests fail.

        Parameters
        ----------
        kind
            "cut": the connection closes in the middle of an upload or download, and nothing is stored; "lost": the
            request is carried out, then the connection closes without an answer; "500": status 500; "429": status 429
            with `Retry-After: 1`; "ratelimit": status 429 with the newer `RateLimit` header; "flip": one bit of the
            answer's body is flipped.
        match
            Regular expression to find in "METHOD /path"; the default matches every request. Large files are downloaded
            from "GET /cdn/{sha256}/{file name}".
        times
            Number of requests that fail. The client itself tries most requests six times, over 24 seconds, and those of
            a Xet upload over two to five minutes.
        """
        if kind not in FAULTS:
            raise ValueError(f"kind is {kind!r}, expected one of {', '.join(FAULTS)}")
        self.faults.append({"kind": kind, "match": match, "times": times})

    def environment(self, home: str | Path, token: str | None = "hf_someone", **variables: str) -> dict[str, str]:
        """Return the environment of a process that knows only this Hub, with caches below `home`.

        What the tests set to stay offline is left out, and so are proxies.
        """
        foreign = re.compile(r"^(HF_|HUGGING_?FACE)|_proxy$", re.IGNORECASE)
        environment = {name: value for name, value in os.environ.items() if not foreign.search(name)}
        environment |= {"HF_ENDPOINT": self.url, "HF_HOME": str(home)}
        if token:
            environment["HF_TOKEN"] = token
        return environment | variables

    def run(
        self, script: str, *arguments: str | Path, home: str | Path, token: str | None = "hf_someone", **variables: str
    ) -> str:
        """Run Python code in a new process in `environment(home, token, **variables)` and return what it printed.

        Raises
        ------
        AssertionError
            The process failed; the message is its error output.
        """
        process = subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            env=self.environment(home, token, **variables),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        if process.returncode:
            raise AssertionError(process.stderr)
        return process.stdout

    # One request.

    async def __call__(self, scope, receive, send) -> None:
        request = Request(scope)
        # Routes match the quoted path: a branch may be called "refs/convert/parquet".
        path = scope["raw_path"].decode("ascii")
        line = f"{request.method} {path}"
        self.requests.append(line)
        fault = self._next_fault(line)
        body = bytearray()
        expected = int(request.headers.get("content-length", 0))
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if fault == "cut" and request.method in ("POST", "PUT") and 2 * len(body) >= expected:
                return await self._hang_up(receive)
        if fault == "500":
            response = Refusal(500, "Internal Error - We're working hard to fix this as soon as possible!").response()
        elif fault == "429":
            response = Refusal(429, "Too Many Requests", Retry_After="1").response()
        elif fault == "ratelimit":
            response = Refusal(429, "Too Many Requests", RateLimit='"api";r=0;t=1').response()
        else:
            response = self._answer(request, path, bytes(body))
        if fault == "lost":
            return await self._hang_up(receive)
        if fault == "cut":
            await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
            half = response.body[: len(response.body) // 2]
            await send({"type": "http.response.body", "body": half, "more_body": True})
            return await self._hang_up(receive)
        if fault == "flip":
            content = bytearray(response.body)
            content[len(content) // 2] ^= 1
            response.body = bytes(content)
        await response(scope, receive, send)

    async def _hang_up(self, receive) -> None:
        # ASGI cannot close a connection, so this uses uvicorn's transport.
        receive.__self__.transport.close()
        while not receive.__self__.disconnected:
            await asyncio.sleep(0.01)

    def _next_fault(self, line: str) -> str | None:
        for fault in self.faults:
            if re.search(fault["match"], line):
                fault["times"] -= 1
                self.faults = [fault for fault in self.faults if fault["times"]]
                return fault["kind"]
        return None

    def _answer(self, request: Request, path: str, body: bytes) -> Response:
        for method, pattern, handler in ROUTES:
            match = pattern.fullmatch(path)
            if match and method == request.method.replace("HEAD", "GET"):
                parts = {name: unquote(part) for name, part in match.groupdict().items() if part is not None}
                request.state.body = body
                try:
                    return handler(self, request, **parts)
                except Refusal as refusal:
                    return refusal.response()
        self.unknown.append(f"{request.method} {path}")
        return Refusal(501, f"The Hub on loopback has no route for {request.method} {path}").response()

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
        repo = self.repos.get(_key(kind, name))
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
            "date": _now(),
            "files": dict(sorted(files.items())),
        }
        commit["id"] = hashlib.sha1(json.dumps([repo["key"], commit]).encode()).hexdigest()
        repo["commits"][commit["id"]] = commit
        repo["branches"][branch] = commit["id"]
        self._save()
        return commit

    # Repositories.

    @route("POST", "/api/repos/create")
    def create_repo(self, request: Request) -> Response:
        wanted = json.loads(request.state.body)
        user = self._user(request)
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        owner = wanted.get("organization") or user
        if owner != user:
            raise Refusal(403, f'You don\'t have the rights to create a repository under the namespace "{owner}"')
        kind, name = wanted.get("type", "model") + "s", f"{owner}/{wanted['name']}"
        key = _key(kind, name)
        found = {"url": f"{self.url}/{key}", "name": name}
        self._check_hardware(wanted)  # before the Hub looks whether the Space exists
        if key in self.repos:
            error = f"You already created this {kind[:-1]} repo"
            return JSONResponse({"error": error, **found}, 409, {"X-Error-Message": error})
        repo = self.repos[key] = {
            "key": key,
            "kind": kind,
            "name": name,
            "created": _now(),
            "private": wanted.get("visibility") == "private" or bool(wanted.get("private")),
            "gated": False,
            "readers": [],
            "sdk": wanted.get("sdk"),
            "hardware": wanted.get("hardware", "cpu-basic"),
            "large": [],
            "variables": {each["key"]: each["value"] for each in wanted.get("variables", [])},
            "branches": {},
            "tags": {},
            "commits": {},
        }
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE_SUFFIXES)
        files = {".gitattributes": self._regular_file(attributes.encode())}
        self._add_commit(repo, "main", "initial commit", "", files)
        return JSONResponse(found)

    @route("DELETE", "/api/repos/delete")
    def delete_repo(self, request: Request) -> Response:
        wanted = json.loads(request.state.body)
        kind = wanted.get("type", "model") + "s"
        name = f"{wanted.get('organization') or self._user(request)}/{wanted['name']}"
        del self.repos[self._repo(request, kind, name, write=True)["key"]]
        self._save()
        return Response()

    @route("GET", API + "(?:/revision/(?P<revision>[^/]+))?")
    def info(self, request: Request, kind: str, name: str, revision: str = "main") -> Response:
        repo = self._repo(request, kind, name)
        commit = self._commit(repo, revision)
        card = {}
        if "README.md" in commit["files"]:
            card = _front_matter(self._object(commit["files"]["README.md"]["sha256"]).read_text("utf-8")) or {}
        siblings = [{"rfilename": path} for path in commit["files"]]
        if request.query_params.get("blobs", "").lower() == "true":
            for sibling, file in zip(siblings, commit["files"].values(), strict=True):
                sibling |= {"size": file["size"], "blobId": file["oid"]}
                if file["large"]:
                    sibling["lfs"] = {"size": file["size"], "sha256": file["sha256"], "pointerSize": file["pointer"]}
        found = {
            "_id": hashlib.sha1(repo["key"].encode()).hexdigest()[:24],
            "id": name,
            "author": name.split("/")[0],
            "sha": commit["id"],
            "createdAt": repo["created"],
            "lastModified": commit["date"],
            "private": repo["private"],
            "gated": repo["gated"],
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": card.get("tags") or [],
            "cardData": card,
            "siblings": siblings,
        }
        if kind == "models":
            found |= {name: card[name] for name in ("library_name", "pipeline_tag") if name in card}
        if kind == "spaces":
            found["sdk"] = card.get("sdk", repo["sdk"])
        return JSONResponse(found)

    @route("GET", API + "/refs")
    def refs(self, request: Request, kind: str, name: str) -> Response:
        repo = self._repo(request, kind, name)
        found = {"converts": [], "pullRequests": []}
        for group, folder in (("branches", "heads"), ("tags", "tags")):
            found[group] = [
                {"name": ref, "ref": f"refs/{folder}/{ref}", "targetCommit": commit}
                for ref, commit in repo[group].items()
            ]
        return JSONResponse(found)

    @route("GET", API + "/commits/(?P<revision>[^/]+)")
    def list_commits(self, request: Request, kind: str, name: str, revision: str) -> Response:
        repo = self._repo(request, kind, name)
        author = {"user": name.split("/")[0]}
        return JSONResponse(
            [
                {name: commit[name] for name in ("id", "title", "message", "date")} | {"authors": [author]}
                for commit in self._history(repo, revision)
            ]
        )

    @route("POST", API + "/tag/(?P<revision>[^/]+)")
    def create_tag(self, request: Request, kind: str, name: str, revision: str) -> Response:
        repo = self._repo(request, kind, name, write=True)
        tag = json.loads(request.state.body)["tag"]
        return self._add_ref(repo, "tags", tag, self._commit(repo, revision)["id"])

    @route("POST", API + "/branch/(?P<branch>[^/]+)")
    def create_branch(self, request: Request, kind: str, name: str, branch: str) -> Response:
        repo = self._repo(request, kind, name, write=True)
        start = json.loads(request.state.body or b"{}").get("startingPoint", "main")
        return self._add_ref(repo, "branches", branch, self._commit(repo, start)["id"])

    def _add_ref(self, repo: dict, group: str, ref: str, commit_id: str) -> Response:
        if BAD_REF.search(ref):
            raise Refusal(400, f"Invalid reference name: {ref!r}")
        if ref in repo["tags"] or ref in repo["branches"]:
            raise Refusal(409, f"Reference already exists: {ref}")
        repo[group][ref] = commit_id
        self._save()
        return Response()

    @route("DELETE", API + "/tag/(?P<tag>[^/]+)")
    def delete_tag(self, request: Request, kind: str, name: str, tag: str) -> Response:
        repo = self._repo(request, kind, name, write=True)
        if repo["tags"].pop(tag, None) is None:
            raise Refusal(404, f"Invalid rev id: {tag}", "RevisionNotFound")
        self._save()
        return Response()

    @route("GET", API + "/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?")
    def tree(self, request: Request, kind: str, name: str, revision: str, path: str = "") -> Response:
        commit = self._commit(self._repo(request, kind, name), revision)
        entries = _entries(commit)
        if path and entries.get(path, {}).get("type") != "directory":
            raise Refusal(404, f"{path} does not exist on {revision}", "EntryNotFound")
        inside = [entry for entry in entries.values() if not path or entry["path"].startswith(f"{path}/")]
        if request.query_params.get("recursive", "").lower() not in ("true", "1"):
            inside = [entry for entry in inside if "/" not in entry["path"][len(path) :].strip("/")]
        return JSONResponse(inside)

    @route("POST", API + "/paths-info/(?P<revision>[^/]+)")
    def paths_info(self, request: Request, kind: str, name: str, revision: str) -> Response:
        entries = _entries(self._commit(self._repo(request, kind, name), revision))
        if "json" in request.headers.get("content-type", ""):
            paths = json.loads(request.state.body)["paths"]
        else:
            paths = parse_qs(request.state.body.decode()).get("paths", [])
        return JSONResponse([entries[path.rstrip("/")] for path in paths if path.rstrip("/") in entries])

    # Uploads: the kind of each file, the content of large files, the commit.

    @route("POST", API + "/preupload/(?P<revision>[^/]+)")
    def preupload(self, request: Request, kind: str, name: str, revision: str) -> Response:
        repo = self._repo(request, kind, name, write=True)
        present = self._commit(repo, revision)["files"]
        answers = []
        for file in json.loads(request.state.body)["files"]:
            path = file["path"]
            large = path.endswith(LARGE_SUFFIXES) or file["size"] > LARGE_BYTES or _is_binary(file["sample"])
            answer = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if path in present:
                # The client compares this id, and leaves unchanged files out of its commit.
                answer["oid"] = present[path]["sha256" if present[path]["large"] else "oid"]
            answers.append(answer)
        return JSONResponse({"files": answers})

    @route("POST", PAGE + r"\.git/info/lfs/objects/batch")
    def lfs_batch(self, request: Request, name: str, kind: str = "models") -> Response:
        repo = self._repo(request, kind, name, write=True)
        objects = []
        for wanted in json.loads(request.state.body)["objects"]:
            oid, size = wanted["oid"], wanted["size"]
            answer: dict[str, Any] = {"oid": oid, "size": size, "authenticated": True}
            if oid not in repo["large"]:
                upload: dict[str, Any] = {"href": f"{self.url}/lfs/{repo['key']}/{oid}?size={size}"}
                if self.multipart_bytes and size > self.multipart_bytes:
                    parts = range(1, -(-size // self.multipart_bytes) + 1)
                    upload["header"] = {f"{part:05d}": f"{self.url}/lfs-part/{oid}/{part}" for part in parts}
                    upload["header"]["chunk_size"] = str(self.multipart_bytes)
                    upload["href"] = f"{self.url}/lfs-complete/{repo['key']}/{oid}?size={size}"
                answer["actions"] = {"upload": upload, "verify": {"href": f"{self.url}/lfs-verify/{repo['key']}"}}
            objects.append(answer)
        return JSONResponse({"transfer": "multipart" if self.multipart_bytes else "basic", "objects": objects})

    @route("PUT", "/lfs/(?P<repo>.+)/(?P<oid>[0-9a-f]{64})")
    def lfs_put(self, request: Request, repo: str, oid: str) -> Response:
        _refuse_token(request)
        return self._receive_large(repo, request.state.body, oid, int(request.query_params["size"]))

    @route("PUT", "/lfs-part/(?P<oid>[0-9a-f]{64})/(?P<part>[0-9]+)")
    def lfs_part(self, request: Request, oid: str, part: str) -> Response:
        _refuse_token(request)
        (self.folder / "parts" / f"{oid}-{part}").write_bytes(request.state.body)
        return Response(headers={"ETag": f'"{hashlib.md5(request.state.body).hexdigest()}"'})

    @route("POST", "/lfs-complete/(?P<repo>.+)/(?P<oid>[0-9a-f]{64})")
    def lfs_complete(self, request: Request, repo: str, oid: str) -> Response:
        content = b""
        for part in json.loads(request.state.body)["parts"]:
            file = self.folder / "parts" / f"{oid}-{part['partNumber']}"
            if not file.exists() or hashlib.md5(file.read_bytes()).hexdigest() != part["etag"].strip('"'):
                raise Refusal(400, f"Part {part['partNumber']} of {oid} is missing or is another")
            content += file.read_bytes()
        return self._receive_large(repo, content, oid, int(request.query_params["size"]))

    @route("POST", "/lfs-verify/(?P<repo>.+)")
    def lfs_verify(self, request: Request, repo: str) -> Response:
        announced = json.loads(request.state.body)
        file = self._object(announced["oid"])
        if self._user(request) is None:
            raise Refusal(401, "Invalid username or password.")
        if not file.exists() or file.stat().st_size != announced["size"]:
            raise Refusal(400, f"{announced['oid']} is not there in the announced size")
        return JSONResponse({})

    def _receive_large(self, repo: str, content: bytes, sha256: str, size: int) -> Response:
        self._store_announced(content, sha256, size)
        self.repos[repo]["large"].append(sha256)
        self._save()
        return Response()

    def _store_announced(self, content: bytes, sha256: str, size: int) -> None:
        actual = hashlib.sha256(content).hexdigest()
        if (actual, len(content)) != (sha256, size):
            got = f"{len(content)} bytes of sha256 {actual}"
            raise Refusal(400, f"Announced were {size} bytes of sha256 {sha256}, got {got}")
        self._store(content)

    @route("GET", API + "/xet-(?P<access>read|write)-token/(?P<revision>[^/]+)")
    def xet_token(self, request: Request, kind: str, name: str, access: str, revision: str) -> Response:
        self._repo(request, kind, name, write=access == "write")
        token, url, expires = "xet_token", f"{self.url}/xet", int(time.time()) + 3600
        headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(expires)}
        return JSONResponse({"casUrl": url, "accessToken": token, "exp": expires}, headers=headers)

    @route("POST", "/xet/v1/xorbs/default/(?P<xorb>[0-9a-f]{64})")
    def xet_xorb(self, request: Request, xorb: str) -> Response:
        _check_xet_token(request)
        file = self.folder / "xorbs" / xorb
        new = not file.exists()
        file.write_bytes(request.state.body)
        return JSONResponse({"was_inserted": new})

    @route("POST", "/xet/v1/shards")
    def xet_shard(self, request: Request) -> Response:
        _check_xet_token(request)
        for sha256, segments in _files_of_shard(request.state.body):
            content = b""
            for xorb, first, last in segments:
                file = self.folder / "xorbs" / xorb
                if not file.exists():
                    raise Refusal(400, f"Xorb {xorb} was not uploaded")
                content += b"".join(_chunks_of_xorb(file.read_bytes())[first:last])
            self._store_announced(content, sha256, len(content))
        return JSONResponse({"result": 1})

    # Optional parts of Xet, which the client does not need.
    @route("GET", "/xet/v1/chunks/.*")
    @route("POST", "/xet/v2/shards")
    @route("POST", "/xet/v1/xorb-grants/.*")
    @route("POST", "/v1/telemetry")
    def xet_nothing(self, request: Request) -> Response:
        raise Refusal(404, "Not found")

    def _regular_file(self, content: bytes) -> dict:
        oid = _git_hash(content)
        return {"sha256": self._store(content), "size": len(content), "oid": oid, "large": False, "pointer": 0}

    def _large_file(self, sha256: str, size: int | None) -> dict:
        file = self._object(sha256)
        if not file.exists():
            raise Refusal(400, f"Your push was rejected: there is no file behind LFS pointer {sha256}")
        actual = file.stat().st_size
        if size not in (None, actual):
            raise Refusal(400, f"Your push was rejected: LFS pointer {sha256} says {size} bytes, there are {actual}")
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {actual}\n".encode()
        oid = _git_hash(pointer)
        return {"sha256": sha256, "size": actual, "oid": oid, "large": True, "pointer": len(pointer)}

    @route("POST", API + "/commit/(?P<revision>[^/]+)")
    def commit(self, request: Request, kind: str, name: str, revision: str) -> Response:
        repo = self._repo(request, kind, name, write=True)
        if request.query_params.get("create_pr"):
            raise Refusal(501, "The Hub on loopback has no pull requests")
        if revision not in repo["branches"]:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        try:
            header, *operations = [json.loads(line) for line in request.state.body.splitlines() if line.strip()]
        except ValueError:
            raise Refusal(400, "Not one JSON object per line") from None
        if header["value"].get("parentCommit") not in (None, repo["branches"][revision]):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(self._commit(repo, revision)["files"])
        for operation in operations:
            value = operation["value"]
            path = value["path"].strip("/")
            if operation["key"] == "file":
                files[path] = self._regular_file(base64.b64decode(value["content"]))
            elif operation["key"] == "lfsFile":
                files[path] = self._large_file(value["oid"], value.get("size"))
            else:
                folder = operation["key"] == "deletedFolder"
                gone = [each for each in files if (each.startswith(f"{path}/") if folder else each == path)]
                if not gone:
                    raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
                for each in gone:
                    del files[each]
        # Adds a commit even if nothing changed: the Hub also leaves it to the client to avoid empty commits.
        added = self._add_commit(repo, revision, header["value"]["summary"], header["value"]["description"], files)
        url = f"{self.url}/{repo['key']}/commit/{added['id']}"
        return JSONResponse({"success": True, "commitOid": added["id"], "commitUrl": url, "hookOutput": ""})

    # Downloads.

    @route("GET", PAGE + "/(?:resolve|raw)/(?P<revision>[^/]+)/(?P<path>.+)")
    def resolve(self, request: Request, name: str, revision: str, path: str, kind: str = "models") -> Response:
        repo = self._repo(request, kind, name)
        user = self._user(request)
        if repo["gated"] and user not in (name.split("/")[0], *repo["readers"]):
            message = f"Access to {kind[:-1]} {name} is restricted. You must have access to it and be authenticated."
            raise Refusal(403 if user else 401, message, "GatedRepo")
        commit = self._commit(repo, revision)
        if path not in commit["files"]:
            raise Refusal(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit["id"])
        file = commit["files"][path]
        headers = {"X-Repo-Commit": commit["id"], "Accept-Ranges": "bytes"}
        if file["large"]:
            headers |= {"X-Linked-Size": str(file["size"]), "X-Linked-ETag": f'"{file["sha256"]}"'}
            where = f"http://localhost:{self.port}/cdn/{file['sha256']}/{quote(Path(path).name)}"
            return Response(status_code=302, headers=headers | {"Location": where})
        headers["ETag"] = f'"{file["oid"]}"'
        return _content(request, self._object(file["sha256"]).read_bytes(), headers)

    @route("GET", "/cdn/(?P<sha256>[0-9a-f]{64})/.*")
    def cdn(self, request: Request, sha256: str) -> Response:
        _refuse_token(request)
        headers = {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"}
        return _content(request, self._object(sha256).read_bytes(), headers)

    # Other routes.

    @route("GET", "/api/whoami-v2")
    def whoami(self, request: Request) -> Response:
        user = self._user(request)
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        access = {"type": "access_token", "accessToken": {"displayName": "tests", "role": "write"}}
        return JSONResponse({"type": "user", "id": user, "name": user, "fullname": user, "orgs": [], "auth": access})

    @route("POST", "/api/validate-yaml")
    def validate_yaml(self, request: Request) -> Response:
        wanted = json.loads(request.state.body)
        errors, warnings = [], []
        try:
            card = _front_matter(wanted["content"])
        except yaml.YAMLError as error:
            card = {}
            errors.append(f"YAML: {error}")
        if card is None:
            warnings.append("empty or missing yaml metadata in repo card")
        elif wanted["repoType"] == "space" and not errors:
            if card.get("sdk") not in ("gradio", "docker", "static"):
                errors.append('"sdk" must be one of [gradio, docker, static]')
            if len(card.get("short_description", "")) > 60:
                errors.append('"short_description" length must be less than or equal to 60 characters long')
        found = {"errors": [{"message": each} for each in errors], "warnings": [{"message": each} for each in warnings]}
        return JSONResponse(found, 400 if errors else 200)

    @route("GET", API + "/variables")
    def variables(self, request: Request, kind: str, name: str) -> Response:
        repo = self._repo(request, kind, name, write=True)
        return JSONResponse({key: {"value": value} for key, value in repo["variables"].items()})

    @route("POST", API + "/variables")
    def add_variable(self, request: Request, kind: str, name: str) -> Response:
        wanted = json.loads(request.state.body)
        self._repo(request, kind, name, write=True)["variables"][wanted["key"]] = wanted["value"]
        self._save()
        return self.variables(request, kind, name)

    @route("GET", API + "/runtime")
    def runtime(self, request: Request, kind: str, name: str) -> Response:
        hardware = self._repo(request, kind, name)["hardware"]
        return JSONResponse({"stage": "BUILDING", "hardware": {"current": None, "requested": hardware}})

    @route("POST", API + "/hardware")
    def request_hardware(self, request: Request, kind: str, name: str) -> Response:
        repo, wanted = self._repo(request, kind, name, write=True), json.loads(request.state.body)
        self._check_hardware({"type": "space", "hardware": wanted["flavor"]})
        repo["hardware"] = wanted["flavor"]
        self._save()
        return self.runtime(request, kind, name)

    def _check_hardware(self, wanted: dict) -> None:
        if wanted.get("type") == "space" and wanted.get("hardware", "cpu-basic") in self.refused_hardware:
            raise Refusal(*self.refused_hardware[wanted.get("hardware", "cpu-basic")])

    @route("GET", "/api/agent-harnesses")
    def agent_harnesses(self, request: Request) -> Response:
        return JSONResponse({"standardEnvVars": [], "harnesses": {}})

    @route("GET", "/api/telemetry/.*")
    def telemetry(self, request: Request) -> Response:
        return Response()


def _key(kind: str | None, name: str) -> str:
    return name if kind in (None, "models") else f"{kind}/{name}"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _is_binary(sample: str) -> bool:
    """Return whether the first bytes of a file, in base64, are not UTF-8 text. The last character may be cut."""
    try:
        text = base64.b64decode(sample).decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason != "unexpected end of data"
    except binascii.Error:
        raise Refusal(400, "The sample is not base64") from None
    return "\0" in text


def _front_matter(readme: str) -> dict | None:
    match = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", readme, re.DOTALL)
    return (yaml.safe_load(match[1]) or {}) if match else None


def _entries(commit: dict) -> dict[str, dict]:
    """Return files and folders of a commit by path, as the Hub describes them."""
    entries = {}
    for path, file in commit["files"].items():
        for folder in map(str, reversed(Path(path).parents)):
            if folder != ".":
                oid = hashlib.sha1(f"{commit['id']} {folder}".encode()).hexdigest()
                entries[folder] = {"type": "directory", "oid": oid, "size": 0, "path": folder}
        entries[path] = {"type": "file", "oid": file["oid"], "size": file["size"], "path": path}
        if file["large"]:
            entries[path]["lfs"] = {"oid": file["sha256"], "size": file["size"], "pointerSize": file["pointer"]}
    return entries


def _content(request: Request, content: bytes, headers: dict[str, str]) -> Response:
    """Answer with a file, or with the requested range of it."""
    media_type = "application/octet-stream"
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if not match or not (match[1] or match[2]):
        return Response(content, 200, headers, media_type)
    size = len(content)
    first = int(match[1]) if match[1] else max(size - int(match[2]), 0)
    last = min(int(match[2]), size - 1) if match[1] and match[2] else size - 1
    if first > last:
        raise Refusal(416, "Range not satisfiable", Content_Range=f"bytes */{size}")
    headers = headers | {"Content-Range": f"bytes {first}-{last}/{size}"}
    return Response(content[first : last + 1], 206, headers, media_type)


def _refuse_token(request: Request) -> None:
    # Signed addresses at the storage host carry their own permission. A token sent there is a leak, which the real host
    # refuses too.
    if "authorization" in request.headers:
        raise Refusal(400, "Only one auth mechanism allowed")


def _check_xet_token(request: Request) -> None:
    if request.headers.get("authorization") != "Bearer xet_token":
        raise Refusal(401, "No valid Xet token")


# Binary formats of a Xet upload (https://huggingface.co/docs/xet): a xorb is a sequence of compressed chunks; a shard
# lists the runs of chunks that make up each file.


def _chunks_of_xorb(xorb: bytes) -> list[bytes]:
    chunks = []
    at = 0
    while at < len(xorb) and xorb[at] == 0:  # a chunk's header starts with version 0, a footer with a letter
        packed = int.from_bytes(xorb[at + 1 : at + 4], "little")
        scheme = xorb[at + 4]
        size = int.from_bytes(xorb[at + 5 : at + 8], "little")
        chunk = xorb[at + 8 : at + 8 + packed]
        at += 8 + packed
        if scheme:
            chunk = pyarrow.Codec("lz4").decompress(chunk, size, asbytes=True)
        if scheme == 2:  # every fourth byte grouped before compression
            grouped = np.frombuffer(chunk, np.uint8)
            plain = np.empty_like(grouped)
            begin = 0
            for offset in range(4):
                length = len(plain[offset::4])
                plain[offset::4] = grouped[begin : begin + length]
                begin += length
            chunk = plain.tobytes()
        chunks.append(chunk)
    return chunks


def _files_of_shard(shard: bytes) -> list[tuple[str, list[tuple[str, int, int]]]]:
    """Return the sha256 of each file, and its segments: xorb, first chunk, one past the last chunk."""
    files = []
    at = 48  # length of the header, and of every entry
    while shard[at : at + 32] != b"\xff" * 32:
        flags, count = struct.unpack_from("<II", shard, at + 32)
        at += 48
        segments = []
        for _ in range(count):
            first, last = struct.unpack_from("<II", shard, at + 40)
            segments.append((_xet_hex(shard[at : at + 32]), first, last))
            at += 48
        if flags & 1 << 31:
            at += 48 * count  # hashes for verification
        if not flags & 1 << 30:
            raise Refusal(400, "The shard does not give the sha256 of a file")
        files.append((_xet_hex(shard[at : at + 32]), segments))
        at += 48
    return files


def _xet_hex(raw: bytes) -> str:
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))
