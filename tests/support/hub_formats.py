"""Answers and requests of the Hub on loopback: refusals, hashes, listings, and the binary formats of uploads."""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import re
import struct
from pathlib import Path

import numpy as np
import pyarrow
import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response


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


def key_of(kind: str | None, name: str) -> str:
    return name if kind in (None, "models") else f"{kind}/{name}"


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_binary(sample: str) -> bool:
    """Return whether the first bytes of a file, in base64, are not UTF-8 text. The last character may be cut."""
    try:
        text = base64.b64decode(sample).decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason != "unexpected end of data"
    except binascii.Error:
        raise Refusal(400, "The sample is not base64") from None
    return "\0" in text


def front_matter(readme: str) -> dict | None:
    match = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", readme, re.DOTALL)
    return (yaml.safe_load(match[1]) or {}) if match else None


def entries_of(commit: dict) -> dict[str, dict]:
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


def content_answer(request: Request, content: bytes, headers: dict[str, str]) -> Response:
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


def refuse_token(request: Request) -> None:
    # Signed addresses at the storage host carry their own permission. A token sent there is a leak, which the real host
    # refuses too.
    if "authorization" in request.headers:
        raise Refusal(400, "Only one auth mechanism allowed")


def check_xet_token(request: Request) -> None:
    if request.headers.get("authorization") != "Bearer xet_token":
        raise Refusal(401, "No valid Xet token")


# Binary formats of a Xet upload (https://huggingface.co/docs/xet): a xorb is a sequence of compressed chunks; a shard
# lists the runs of chunks that make up each file.


def chunks_of_xorb(xorb: bytes) -> list[bytes]:
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


def files_of_shard(shard: bytes) -> list[tuple[str, list[tuple[str, int, int]]]]:
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
