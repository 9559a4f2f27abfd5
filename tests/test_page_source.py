"""The page's source: short modules, no strings that become code, nothing from other servers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "nanochat"
MODULES = sorted((PACKAGE / "ui").glob("*.js"))
SINKS = re.compile(
    r"(inner|outer)HTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|\be[v]al\("
    r"|new Function|createPolicy"
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_modules_are_short_and_make_no_code_of_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("/**"), "no comment on what it is"
    assert len(text.splitlines()) < 300
    assert not SINKS.search(text)
    for name in re.findall(r'from "\./([\w.]+)"', text):
        assert (PACKAGE / "ui" / name).exists(), f"imports {name}"


def test_the_page_asks_nothing_of_other_servers() -> None:
    html = (PACKAGE / "ui.html").read_text(encoding="utf-8")
    assert not re.search(r"\son\w+=|\sstyle=|https?:", html)
    for name in re.findall(r'(?:src|href)="/(ui/[^"]+)"', html):
        assert (PACKAGE / name).exists(), name
    for sheet in (PACKAGE / "ui").glob("*.css"):
        assert not re.search(r"url\(|@import", sheet.read_text(encoding="utf-8")), sheet.name
