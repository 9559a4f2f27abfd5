"""Hostile text is text, wherever it comes from. Run: `pytest -m browser tests/browser`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from browsing import ask, ready, until
from payloads import PAYLOADS
from servers import Scripted

pytestmark = pytest.mark.browser
WATCH = """window.attacks = 0; window.attack = () => { window.attacks += 1 };
document.addEventListener('securitypolicyviolation', () => { window.attacks += 1 })"""
ILLEGAL = """() => {
  const all = [...document.querySelectorAll('#thread *, #conversations *, #toasts *, #title, #title *')];
  const tags = 'SCRIPT IMG IFRAME OBJECT EMBED STYLE LINK VIDEO FORM INPUT MATH META BASE'.split(' ');
  return all.filter((node) => tags.includes(node.tagName)
    || [...node.attributes].some(({name}) => name.startsWith('on'))
    || (node.tagName === 'A' && !/^https?:$/.test(node.protocol))
    || (node.tagName === 'A' && !node.rel.includes('noopener'))).length }"""


def as_file(conversations: list[dict[str, Any]], folder: Path) -> Path:
    path = folder / "import.json"
    data = {"format": "nanochat-conversations", "version": 1, "conversations": conversations}
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def conversation(number: int, payloads: list[str]) -> dict[str, Any]:
    """Each payload as a question, a reply, and a tool's call; the first as title and system prompt."""
    messages, parent = {}, None
    for n, payload in enumerate(payloads):
        for role, parts in (
            ("user", [{"text": payload}]),
            (
                "assistant",
                [{"text": payload}, {"tool": {"name": payload, "input": payload, "output": payload}}],
            ),
        ):
            key = f"{number:04x}{n:08x}{'0' if role == 'user' else '1':>04}"
            messages[key] = {"role": role, "parent": parent, "parts": parts}
            parent = key
    return {
        "id": f"{number:016x}",
        "title": payloads[0],
        "system": payloads[0],
        "leaf": parent,
        "messages": messages,
    }


def load(page: Any, path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.click("#import")
    chooser.value.set_files(path)


def unharmed(page: Any, requests: list[str], home: str) -> None:
    page.wait_for_timeout(100)
    assert page.evaluate("window.attacks") == 0
    assert page.evaluate(ILLEGAL) == 0
    assert [url for url in requests if not url.startswith((home, "blob:" + home))] == []


def watched(open_page: Any, url: str) -> tuple[Any, list[str]]:
    page, requests = open_page(url), []
    page.evaluate(WATCH)
    page.on("request", lambda request: requests.append(request.url))
    return page, requests


def test_two_hundred_payloads_are_inert_in_imports(
    open_page: Any, scripted: Scripted, tmp_path: Path
) -> None:
    assert len(set(PAYLOADS)) >= 200
    page, requests = watched(open_page, scripted.url)
    groups = [PAYLOADS[at : at + 20] for at in range(0, len(PAYLOADS), 20)]
    load(page, as_file([conversation(n, group) for n, group in enumerate(groups)], tmp_path))
    page.wait_for_selector(".toast")
    rows = page.locator("#conversations .open")
    assert rows.count() == len(groups)
    for n in range(len(groups)):
        rows.nth(n).click()
        assert page.locator(".message").count() == 40
        page.evaluate("for (const it of document.querySelectorAll('details')) it.open = true")
        unharmed(page, requests, scripted.url)
    page.click("#settings-open")
    assert page.input_value("#system") in PAYLOADS
    unharmed(page, requests, scripted.url)


def test_two_hundred_payloads_are_inert_in_replies_and_questions(open_page: Any, scripted: Scripted) -> None:
    """Streamed in pieces of three letters, so that each passes through half-read Markdown, too."""
    page, requests = watched(open_page, scripted.url)
    text = "\n\n".join(PAYLOADS)
    scripted.answer = lambda body: (
        200,
        {},
        [{"content": text[at : at + 3]} for at in range(0, len(text), 3)],
    )
    ask(page, text)
    page.wait_for_selector(".message.assistant [aria-label='Ask again']", state="attached")
    assert page.locator(".message.user .body").inner_text().count("attack") == text.count("attack")
    unharmed(page, requests, scripted.url)


def test_payloads_are_inert_in_errors_and_bad_imports(
    open_page: Any, scripted: Scripted, tmp_path: Path
) -> None:
    page, requests = watched(open_page, scripted.url)
    ready(page)
    for payload in PAYLOADS[::8]:
        scripted.answer = lambda body, payload=payload: (
            400,
            {},
            {"error": {"message": payload, "code": payload}},
        )
        ask(page, "Hello")
        until(page, "(text) => document.querySelector('.notice p')?.textContent === text", payload)
        unharmed(page, requests, scripted.url)
    bad = conversation(1, PAYLOADS[:1])
    next(iter(bad["messages"].values()))["role"] = PAYLOADS[3]
    load(page, as_file([bad], tmp_path))
    page.wait_for_selector(".toast:has-text('not user or assistant')")
    unharmed(page, requests, scripted.url)
