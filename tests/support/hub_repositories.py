"""Routes of the Hub on loopback for repositories, their files, and Spaces."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from urllib.parse import parse_qs, quote

import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from support.hub_formats import Refusal, content_answer, entries_of, front_matter, key_of, now, refuse_token
from support.hub_storage import API, LARGE_SUFFIXES, PAGE, HubStorage, route

# Names that git refuses for a branch or tag (https://git-scm.com/docs/git-check-ref-format), or takes for a commit or a
# full reference.
BAD_REF = re.compile(
    r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[/.-]|/\.|[/.]$|\.lock(/|$)|^@?$|^HEAD$|^refs/|^[0-9a-f]{40}$"
)


class Repositories(HubStorage):
    """Repositories: create, describe, tag, download."""

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
        key = key_of(kind, name)
        found = {"url": f"{self.url}/{key}", "name": name}
        self._check_hardware(wanted)  # before the Hub looks whether the Space exists
        if key in self.repos:
            error = f"You already created this {kind[:-1]} repo"
            return JSONResponse({"error": error, **found}, 409, {"X-Error-Message": error})
        repo = self.repos[key] = {
            "key": key,
            "kind": kind,
            "name": name,
            "created": now(),
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
            card = front_matter(self._object(commit["files"]["README.md"]["sha256"]).read_text("utf-8")) or {}
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
        entries = entries_of(commit)
        if path and entries.get(path, {}).get("type") != "directory":
            raise Refusal(404, f"{path} does not exist on {revision}", "EntryNotFound")
        inside = [entry for entry in entries.values() if not path or entry["path"].startswith(f"{path}/")]
        if request.query_params.get("recursive", "").lower() not in ("true", "1"):
            inside = [entry for entry in inside if "/" not in entry["path"][len(path) :].strip("/")]
        return JSONResponse(inside)

    @route("POST", API + "/paths-info/(?P<revision>[^/]+)")
    def paths_info(self, request: Request, kind: str, name: str, revision: str) -> Response:
        entries = entries_of(self._commit(self._repo(request, kind, name), revision))
        if "json" in request.headers.get("content-type", ""):
            paths = json.loads(request.state.body)["paths"]
        else:
            paths = parse_qs(request.state.body.decode()).get("paths", [])
        return JSONResponse([entries[path.rstrip("/")] for path in paths if path.rstrip("/") in entries])

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
        return content_answer(request, self._object(file["sha256"]).read_bytes(), headers)

    @route("GET", "/cdn/(?P<sha256>[0-9a-f]{64})/.*")
    def cdn(self, request: Request, sha256: str) -> Response:
        refuse_token(request)
        headers = {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"}
        return content_answer(request, self._object(sha256).read_bytes(), headers)

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
            card = front_matter(wanted["content"])
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
