"""What the tests of the page do again and again. `page` is Playwright's."""

from __future__ import annotations

import time
from typing import Any

LIMIT_S = 20.0


def until(page: Any, condition: str, arg: Any = None) -> None:
    """Wait for a JavaScript function to be true; Playwright's own wait needs eval, which is forbidden."""
    end = time.monotonic() + LIMIT_S
    while not page.evaluate(condition, arg):
        assert time.monotonic() < end, f"it does not come to {condition} {arg or ''}"
        page.wait_for_timeout(20)


def ready(page: Any) -> None:
    """The page knows its model."""
    until(page, "() => ['toy', 'scripted'].includes(document.querySelector('#model').textContent)")


def ask(page: Any, text: str) -> None:
    page.fill("#input", text)
    page.keyboard.press("Enter")


def answered(page: Any, count: int) -> None:
    """So many replies are shown, and none is being written."""
    replies = "document.querySelectorAll('.message.assistant').length === n"
    is_done = "document.querySelector('#stop').hidden && document.querySelector('.assistant .foot button')"
    until(page, f"(n) => {is_done} && {replies}", count)


def limit(page: Any, tokens: int) -> None:
    page.click("#settings-open")
    page.fill("#dial-max_tokens", str(tokens))
    page.keyboard.press("Escape")
