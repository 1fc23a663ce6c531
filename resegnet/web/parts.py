"""Parts of the page that do not change: its pictures, links, and what other sites show of a link to it."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path

from PIL import Image, ImageOps
from starlette.requests import Request
from starlette.responses import Response

from resegnet.hub import HUB_ID
from resegnet.version import REPOSITORY_URL

HERE = Path(__file__).parent
FIRST_LOOK = HERE / "viewer_first_look.webp"

TAGLINE = "Finds the blood vessels in a colour photograph of the retina."
ANATOMY_TAGLINE = "Finds the blood vessels in a colour photograph of the retina, and tells arteries from veins."
PREVIEW = "/preview.jpg"  # route of the picture that other sites show with a link to the page


def links_html(model: str) -> str:
    """Return links to what is known of documentation, code, citation and model, as HTML."""
    links: dict[str, str] = {}
    if REPOSITORY_URL:
        links |= {"Documentation": f"{REPOSITORY_URL}/blob/main/docs/page.md", "Code": REPOSITORY_URL}
        links["How to cite"] = f"{REPOSITORY_URL}/blob/main/CITATION.cff"
    name = model.partition("@")[0]
    if HUB_ID.fullmatch(name) and not Path(name).is_dir():
        links["Model card"] = f"https://huggingface.co/{name}"
    anchors = (f"<a href='{escape(url)}' rel='noopener'>{title}</a>" for title, url in links.items())
    return f"<p class='links'>{' '.join(anchors)}</p>" if links else ""


def preview_address() -> str:
    """Return the address of `PREVIEW`; other sites need the host, which is known only on a Space."""
    host = os.environ.get("SPACE_HOST")
    return f"https://{host}{PREVIEW}" if host else PREVIEW


def answer_preview(request: Request) -> Response:
    """Answer with the first look as JPEG, which all sites can show."""
    file = io.BytesIO()
    with Image.open(FIRST_LOOK) as image:
        image.convert("RGB").save(file, "JPEG", quality=85)
    return Response(file.getvalue(), media_type="image/jpeg", headers={"Cache-Control": "max-age=86400"})


def real_first(path: Path) -> tuple[bool, Path]:
    """Sort key for examples: photographs before synthetic pictures."""
    return path.stem.startswith("synthetic"), path


def thumbnail(path: Path) -> dict[str, str]:
    """Return a small square picture as a data address, its name for visitors, and whether it shows a real eye."""
    file = io.BytesIO()
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        ImageOps.fit(upright.convert("RGB"), (144, 144)).save(file, "JPEG", quality=80)
    kind = "synthetic" if path.stem.startswith("synthetic") else "photograph"
    return {"name": path.stem.replace("_", " "), "kind": kind, "src": data_address(file.getvalue(), "image/jpeg")}


def as_lists(colors: Mapping[str, tuple[int, int, int]]) -> dict[str, list[int]]:
    """Return the colours as JSON can hold them."""
    return {name: list(color) for name, color in colors.items()}


def data_address(content: bytes, media_type: str) -> str:
    """Return a file as an address that holds its content."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
