"""Limits on requests from strangers: their size, their time, their endpoints, and no address to fetch."""

from __future__ import annotations

import asyncio
import re
import time

import gradio as gr
from fastapi import HTTPException
from gradio import processing_utils
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_S = 600  # for a whole request; a photograph of 144 MB takes that long at 2 Mbit/s
MAX_UNANSWERED_BYTES = 2_000_000_000  # of all requests together that are not answered yet
MESSAGE_BYTES = 1_000_000  # of a request without a photograph: settings, and the names of files

# The routes that the page needs. gradio has more: one of them keeps what it is sent in a folder that is never emptied.
_SENDING = re.compile(r"/gradio_api/(upload|queue/join|call/.+|cancel|reset|mcp(/.*)?)/?")
# Routes that make the server fetch an address for a stranger, or write a file for each call.
_FETCHING = re.compile(r"/gradio_api/(file=https?:|proxy=|deep_link)", re.IGNORECASE)


class Guard:
    """ASGI middleware that rejects requests beyond the limits.

    gradio limits the size of a file but not the number of files in a request, reads every other body completely into
    memory, and waits for ever for a body that does not end.

    Parameters
    ----------
    app
        The ASGI app behind it.
    upload_bytes
        Most bytes of a request with files.
    """

    def __init__(self, app: ASGIApp, upload_bytes: int) -> None:
        self._app = app
        self._upload_bytes = upload_bytes
        self._unanswered_bytes = 0

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
                return await receive()  # it reports that the visitor left
            try:
                async with asyncio.timeout(end - time.monotonic()):  # `wait_for` would lose a message when cancelled
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"The request took more than {BODY_S} s.") from None
            more = message.get("more_body", False)
            taken += len(message.get("body", b""))
            self._unanswered_bytes += len(message.get("body", b""))
            if taken > limit:
                raise HTTPException(413, f"The request has more than {limit:,} bytes, the most that the page takes.")
            if self._unanswered_bytes > MAX_UNANSWERED_BYTES:
                raise HTTPException(503, "The page is receiving too much at once; try again in a moment.")
            return message

        try:
            await self._app(scope, take, send)
        finally:
            self._unanswered_bytes -= taken

    def _limit(self, path: str) -> int:
        if path.rstrip("/").endswith("/upload"):
            return self._upload_bytes + MESSAGE_BYTES
        if "/mcp" in path:  # a photograph may come as a data address there
            return self._upload_bytes * 4 // 3 + MESSAGE_BYTES
        return MESSAGE_BYTES


def refuse_addresses() -> None:
    """Make gradio refuse an address in place of a file: it would fetch any public one, of any size, into memory."""

    async def refuse(url: str, cache_dir: str) -> str:
        raise gr.Error("An address came in place of a file; send the file itself.", print_exception=False)

    processing_utils.async_ssrf_protected_download = refuse
