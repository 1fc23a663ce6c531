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
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import unquote

import uvicorn
from starlette.requests import Request
from starlette.responses import Response

from support import PATIENCE_S
from support.hub_formats import Refusal
from support.hub_repositories import Repositories
from support.hub_storage import ROUTES
from support.hub_uploads import Uploads

FAULTS = ("cut", "lost", "500", "429", "ratelimit", "flip")


class HubServer(Repositories, Uploads):
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
