"""Forgets what gradio keeps of sessions: the rows of a batch, with names and thumbnails, and the viewer's answers.

gradio itself deletes the state of a closed session after an hour, but keeps the last values of its components until
thousands of other sessions came.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta

import gradio as gr


def keep_sessions_swept(app: gr.Blocks, keep_s: float) -> None:
    """Start a thread that forgets the sessions of a launched page that were not used for `keep_s` seconds."""

    def run() -> None:
        while True:
            time.sleep(min(60, keep_s / 6))
            sweep_sessions(app, datetime.now() - timedelta(seconds=keep_s))

    threading.Thread(target=run, daemon=True).start()


def sweep_sessions(app: gr.Blocks, before: datetime) -> None:
    """Forget the sessions that were last used before a time, local and without a zone, as gradio notes it."""
    holder = app.state_holder
    with holder.lock:
        for session, used in list(holder.time_last_used.items()):
            if used < before:
                holder.session_data.pop(session, None)
                holder.time_last_used.pop(session, None)
