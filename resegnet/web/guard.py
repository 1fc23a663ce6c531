"""What strangers may send to the page: bounded in size and time, to its own endpoints only, and no address to fetch."""

from __future__ import annotations

import asyncio
import re
import time

import gradio as gr
from fastapi import HTTPException
from gradio import processing_utils
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_S = 600  # for a whole request; a photograph of 144 MB takes as long at 2 Mbit/s
MOST_UNDER_WAY = 2_000_000_000  # bytes of requests that are not answered yet, of all visitors together
MESSAGE_BYTES = 1_000_000  # what is no photograph: settings, and the names of files

# gradio has more, for what this page does not do: one keeps what it is sent in a folder that is never emptied.
_SENDING = re.compile(r"/gradio_api/(upload|queue/join|call/.+|cancel|reset|mcp(/.*)?)/?")
# These make the server fetch an address for a stranger, or write a file for each call.
_FETCHING = re.compile(r"/gradio_api/(file=https?:|proxy=|deep_link)", re.IGNORECASE)


class Guard:
    """Stands before the app (ASGI) and ends requests that go beyond the bounds.

    gradio bounds a file but not how many of them a request brings, reads any other body whole into memory, and waits
    for ever for one that does not come to its end.

    Parameters
    ----------
    app
        What is guarded.
    upload_bytes
        Most that a request may bring with files.
    """

    def __init__(self, app: ASGIApp, upload_bytes: int) -> None:
        self._app = app
        self._upload_bytes = upload_bytes
        self._under_way = 0  # bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path, method = scope["path"], scope["method"]
        if _FETCHING.search(path) or (method not in ("GET", "HEAD") and not _SENDING.search(path)):
            return await PlainTextResponse("The page does not do that.", 403)(scope, receive, send)
        limit, end = self._limit(path), time.monotonic() + BODY_S
        taken, more = 0, True

        async def take() -> Message:
            nonlocal taken, more
            if not more:
                return await receive()  # which tells that the visitor left
            try:
                async with asyncio.timeout(end - time.monotonic()):  # `wait_for` would lose a message when cancelled
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"The request took more than {BODY_S} s.") from None
            more = message.get("more_body", False)
            taken += len(message.get("body", b""))
            self._under_way += len(message.get("body", b""))
            if taken > limit:
                raise HTTPException(413, f"The request has more than {limit:,} bytes, the most that the page takes.")
            if self._under_way > MOST_UNDER_WAY:
                raise HTTPException(503, "Too much is being sent to the page at once; try again in a moment.")
            return message

        try:
            await self._app(scope, take, send)
        finally:
            self._under_way -= taken

    def _limit(self, path: str) -> int:
        if path.rstrip("/").endswith("/upload"):
            return self._upload_bytes + MESSAGE_BYTES
        if "/mcp" in path:  # where a photograph may come as a data address
            return self._upload_bytes * 4 // 3 + MESSAGE_BYTES
        return MESSAGE_BYTES


def fetch_nothing() -> None:
    """From now on gradio refuses an address in place of a file; it would fetch a public one of any size into memory."""

    async def refuse(url: str, cache_dir: str) -> str:
        raise gr.Error("An address came in place of a file; send the file itself.", print_exception=False)

    processing_utils.async_ssrf_protected_download = refuse
