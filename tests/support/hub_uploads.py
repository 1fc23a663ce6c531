"""Routes of the Hub on loopback for uploads: the kind of each file, Git LFS, Xet, and the commit."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from support.hub_formats import Refusal, check_xet_token, chunks_of_xorb, files_of_shard, is_binary, refuse_token
from support.hub_storage import API, LARGE_SUFFIXES, PAGE, HubStorage, route

LARGE_BYTES = 10 * 2**20


class Uploads(HubStorage):
    """Uploads: the kind of each file, the content of large files, the commit."""

    @route("POST", API + "/preupload/(?P<revision>[^/]+)")
    def preupload(self, request: Request, kind: str, name: str, revision: str) -> Response:
        repo = self._repo(request, kind, name, write=True)
        present = self._commit(repo, revision)["files"]
        answers = []
        for file in json.loads(request.state.body)["files"]:
            path = file["path"]
            large = path.endswith(LARGE_SUFFIXES) or file["size"] > LARGE_BYTES or is_binary(file["sample"])
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
        refuse_token(request)
        return self._receive_large(repo, request.state.body, oid, int(request.query_params["size"]))

    @route("PUT", "/lfs-part/(?P<oid>[0-9a-f]{64})/(?P<part>[0-9]+)")
    def lfs_part(self, request: Request, oid: str, part: str) -> Response:
        refuse_token(request)
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
        check_xet_token(request)
        file = self.folder / "xorbs" / xorb
        new = not file.exists()
        file.write_bytes(request.state.body)
        return JSONResponse({"was_inserted": new})

    @route("POST", "/xet/v1/shards")
    def xet_shard(self, request: Request) -> Response:
        check_xet_token(request)
        for sha256, segments in files_of_shard(request.state.body):
            content = b""
            for xorb, first, last in segments:
                file = self.folder / "xorbs" / xorb
                if not file.exists():
                    raise Refusal(400, f"Xorb {xorb} was not uploaded")
                content += b"".join(chunks_of_xorb(file.read_bytes())[first:last])
            self._store_announced(content, sha256, len(content))
        return JSONResponse({"result": 1})

    # Optional parts of Xet, which the client does not need.
    @route("GET", "/xet/v1/chunks/.*")
    @route("POST", "/xet/v2/shards")
    @route("POST", "/xet/v1/xorb-grants/.*")
    @route("POST", "/v1/telemetry")
    def xet_nothing(self, request: Request) -> Response:
        raise Refusal(404, "Not found")

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
