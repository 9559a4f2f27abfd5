"""The page's files, read once at the start: an explicit list, so that no request can name another file.

What it is: paths of URLs and their bytes. What it is not: the page itself (`nanochat/ui.html`, `ui/`).
Run: `python -m scripts.chat_web`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parent.parent
KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
ICON = "icon.svg"


class File(NamedTuple):
    """A file as it is sent."""

    body: bytes
    media_type: str


def files(package: Path = PACKAGE) -> dict[str, File]:
    """Path of a URL -> file."""
    found = {"/": File((package / "ui.html").read_bytes(), "text/html; charset=utf-8")}
    for path in sorted((package / "ui").iterdir()):
        if path.suffix in KINDS:
            kind = KINDS[path.suffix]
            found[f"/ui/{path.name}"] = File(path.read_bytes(), f"{kind}; charset=utf-8")
    if icon := found.get(f"/ui/{ICON}"):
        found["/favicon.ico"] = icon
    return found
