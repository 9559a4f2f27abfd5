"""What a person does with the page, in a real browser. Run: `pytest -m browser tests/browser`."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browsing import answered, ask, limit, ready, until
from served import Served
from servers import Proxy, Scripted, slowed, toy_server

from nanochat.tokenizer import Tokenizer

pytestmark = pytest.mark.browser
Shoot = Callable[[Any, str], None]
MARKDOWN = """## A heading
Some **bold**, *italic* and `code`, and [a link](https://example.org/).

- one
- two
  1. nested

| a | b |
|---|--:|
| 1 | 2 |

```python
print("Größe 🎈")
```"""


def in_pieces(text: str, size: int = 5) -> list[dict[str, str]]:
    return [{"content": text[at : at + size]} for at in range(0, len(text), size)]


def test_a_conversation_is_streamed_edited_undone_and_kept(open_page: Any, toy: Served) -> None:
    page = open_page(toy.url)
    limit(page, 24)
    ask(page, "First question")
    answered(page, 1)
    first = page.locator(".message.assistant .body").inner_text()
    page.hover(".message.assistant")
    page.click("[aria-label='Ask again']")
    page.wait_for_selector("text=2 / 2")
    answered(page, 1)
    page.click("[aria-label='Earlier version']")
    assert page.locator(".message.assistant .body").inner_text() == first
    page.click(".message.user [aria-label='Edit message']")
    page.fill(".editing textarea", "Another question")
    page.keyboard.press("Enter")
    page.wait_for_selector(".message.user:has-text('Another question')")
    answered(page, 1)
    page.click(".toast button")
    page.wait_for_selector(".message.user:has-text('First question')")
    page.reload()
    page.wait_for_selector(".message.user:has-text('First question')")
    assert page.locator(".message.assistant .body").inner_text() == first
    assert re.search(r"\d+ / 512", page.locator("#context-text").inner_text())


def test_a_reply_is_stopped_by_escape_and_kept(open_page: Any, toy: Served) -> None:
    page = open_page(toy.url)
    ready(page)
    last = "[...document.querySelectorAll('.message.assistant .prose')].pop()"
    for way in ("Escape", "button"):
        with slowed(toy, 0.05):
            ask(page, "Write on")
            until(page, f"() => {last}?.textContent.length > 2")
            page.keyboard.press("Escape") if way == "Escape" else page.click("#stop")
            until(page, "() => document.querySelector('#stop').hidden")
    assert page.locator("text=Stopped.").count() >= 1


def test_a_full_context_drops_the_oldest_turns_and_says_so(
    open_page: Any, tokenizer: Tokenizer, shoot: Shoot
) -> None:
    with toy_server(tokenizer, context=128) as small:
        page = open_page(small.url)
        limit(page, 16)
        for n in range(1, 6):
            ask(page, f"This is question number {n}")
            answered(page, n)
        assert page.locator(".message.forgotten").count() >= 2
        assert page.locator(".message:not(.forgotten)").count() >= 2
        shoot(page, "context")
        ask(page, "x" * 300)
        page.wait_for_selector(".notice.context:has-text('128 at most')")
        page.click(".divider button")
        assert page.is_visible("#welcome")


@pytest.mark.parametrize("size", [1, 7])
def test_split_characters_and_frames_are_joined(open_page: Any, scripted: Scripted, size: int) -> None:
    proxy = Proxy(scripted.server_port, size)
    scripted.answer = lambda body: (200, {}, in_pieces("Größe 日本語 🎈 " * 20))
    page = open_page(scripted.url)
    page.route(
        "**/v1/chat/completions", lambda route: route.continue_(url=f"{proxy.url}/v1/chat/completions")
    )
    ask(page, "Hello")
    answered(page, 1)
    assert page.locator(".message.assistant .body").inner_text() == ("Größe 日本語 🎈 " * 20).strip()
    proxy.close()


def test_a_broken_connection_keeps_what_came_and_offers_a_retry(open_page: Any, scripted: Scripted) -> None:
    proxy = Proxy(scripted.server_port, 1 << 12)
    scripted.answer = lambda body: (200, {}, in_pieces("Word after word. " * 200))
    page = open_page(proxy.url)
    ready(page)
    proxy.pause_s = 0.1
    ask(page, "Write on")
    page.wait_for_selector(".message.assistant .prose")
    proxy.cut()
    page.wait_for_selector(".notice.network button")
    assert page.locator(".message.assistant .prose").count() == 1
    proxy.is_cut, proxy.pause_s = False, 0.0
    page.click(".notice.network button")
    page.wait_for_selector("text=2 / 2")
    answered(page, 1)
    proxy.close()


def test_a_question_without_a_reply_is_asked_again_or_gives_way(open_page: Any, scripted: Scripted) -> None:
    fault = (500, {}, {"error": {"message": "Not now."}})
    scripted.answer = lambda body: fault if len(scripted.bodies) <= 2 else (200, {}, [{"content": "Here."}])
    page = open_page(scripted.url)
    for n, text in enumerate(("First", "Second"), 1):
        ask(page, text)
        page.wait_for_selector(f".message.user:has-text('{text}')")
        until(page, "() => document.querySelector('#stop').hidden && document.querySelector('.notice')")
        assert len(scripted.bodies) == n
    page.reload()
    page.click(".message.user [aria-label='Ask again']")
    answered(page, 1)
    said = [[message["content"] for message in body["messages"]] for body in scripted.bodies]
    assert said == [["First"], ["Second"], ["Second"]]
    assert page.locator(".message.user [aria-label='Ask again']").count() == 0
    page.click(".message.user [aria-label='Earlier version']")
    page.wait_for_selector(".message.user:has-text('First')")


def test_an_edit_before_the_first_word_can_be_undone(open_page: Any, scripted: Scripted) -> None:
    held = threading.Event()
    scripted.answer = lambda body: (200, {}, [{"content": "Here."}] * held.wait(30))
    page = open_page(scripted.url)
    ask(page, "First")
    page.wait_for_selector(".message.assistant")
    page.click(".message.user [aria-label='Edit message']")
    page.fill(".editing textarea", "Second")
    page.keyboard.press("Enter")
    page.wait_for_selector(".message.user:has-text('Second')")
    held.set()
    answered(page, 1)
    page.click(".toast button")
    page.wait_for_selector(".message.user:has-text('First')")
    page.reload()
    page.wait_for_selector(".message.user:has-text('First')")


def test_the_wanted_length_is_asked_for_as_far_as_there_is_room(open_page: Any, scripted: Scripted) -> None:
    page = open_page(scripted.url)
    ready(page)
    limit(page, 3000)
    for letters in (10, 6000):
        page.click("#new")
        ask(page, "x" * letters)
        answered(page, 1)
    short, long = (body["max_tokens"] for body in scripted.bodies)
    assert short == 3000 and 2000 < long < 4096 - 0.3 * 6000


def test_a_busy_server_is_tried_again(open_page: Any, scripted: Scripted, shoot: Shoot) -> None:
    busy = (429, {"Retry-After": "1"}, {"error": {"message": "All slots are taken.", "code": "queue_full"}})
    scripted.answer = lambda body: busy if len(scripted.bodies) == 1 else (200, {}, [{"content": "Here."}])
    page = open_page(scripted.url)
    ask(page, "Hello")
    page.wait_for_selector(".notice.busy .left:has-text('Next try in')")
    shoot(page, "busy")
    page.wait_for_selector(".message.assistant:has-text('Here.')")
    assert page.locator(".notice").count() == 0


def test_a_loading_server_is_waited_for(open_page: Any, tokenizer: Tokenizer, shoot: Shoot) -> None:
    with toy_server(tokenizer, context=128, is_open=False) as loading:
        page = open_page(loading.url)
        page.wait_for_selector(".notice.loading")
        shoot(page, "loading")
        loading.opening.set()
        ready(page)
        assert page.locator(".notice").count() == 0


def test_the_token_is_asked_for_and_kept_for_the_tab(
    open_page: Any, tokenizer: Tokenizer, shoot: Shoot
) -> None:
    token = "a-token-of-thirty-two-letters-xx"
    with toy_server(tokenizer, context=128, token=token) as private:
        page = open_page(private.url)
        page.wait_for_selector("#token[open]")
        shoot(page, "token")
        page.fill("#token-input", f"{token}\u200b")
        page.keyboard.press("Enter")
        page.wait_for_selector("#token[open] >> text=cannot be seen")
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#token[open] >> text=not the server's")
        page.keyboard.type(token)
        page.keyboard.press("Enter")
        ready(page)
        assert token not in page.evaluate("JSON.stringify({...localStorage})")
        page.reload()
        ready(page)
        assert not page.is_visible("#token")


def test_by_keyboard_only(open_page: Any, scripted: Scripted) -> None:
    page = open_page(scripted.url)
    until(page, "() => document.activeElement.id === 'input'")
    page.keyboard.type("/tem")
    page.keyboard.press("Tab")
    page.keyboard.type("1.5")
    page.keyboard.press("Enter")
    page.wait_for_selector(".toast:has-text('Temperature is now 1.5')")
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    answered(page, 1)
    assert scripted.bodies[0]["temperature"] == 1.5
    assert scripted.bodies[0]["messages"] == [{"role": "user", "content": "one\ntwo"}]
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Edit message"
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    assert page.locator("#commands [role=option]").count() == 6
    page.keyboard.press("Escape")
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate(
                "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent"
            )
        )
    assert {"Settings", "Copy message", "Ask again", "New conversation", "Import", "Message"} <= seen


def test_copy_export_and_lists(open_page: Any, scripted: Scripted, tmp_path: Path) -> None:
    scripted.answer = lambda body: (200, {}, in_pieces(MARKDOWN))
    page = open_page(scripted.url)
    ask(page, "Show me")
    answered(page, 1)
    page.hover(".message.assistant")
    page.click("[aria-label='Copy code']")
    assert page.evaluate("navigator.clipboard.readText()") == 'print("Größe 🎈")'
    page.click(".message.assistant .foot [title='Copy message']")
    assert page.evaluate("navigator.clipboard.readText()") == MARKDOWN
    with page.expect_download() as saved:
        ask(page, "/save md")
    assert MARKDOWN in Path(saved.value.path()).read_text(encoding="utf-8")
    with page.expect_download() as saved:
        page.click("#export")
    assert (
        json.loads(Path(saved.value.path()).read_text(encoding="utf-8"))["conversations"][0]["title"]
        == "Show me"
    )
    row = page.locator("#conversations li")
    row.hover()
    row.locator(".more").click()
    page.click("text=Rename")
    page.keyboard.type("A name")
    page.keyboard.press("Enter")
    assert page.inner_text("#title") == "A name"
    row.hover()
    row.locator(".more").click()
    page.click("#row-menu >> text=Delete")
    page.wait_for_selector("#welcome", state="visible")
    page.click(".toast button >> text=Undo")
    page.wait_for_selector("#title:has-text('A name')")
    ask(page, "/clear")
    page.wait_for_selector("#welcome", state="visible")
    page.click(".toast:has-text('empty') button")
    assert page.locator(".message").count() == 2


def test_the_screen_reader_hears_sentences(open_page: Any, scripted: Scripted) -> None:
    scripted.answer = lambda body: (200, {}, in_pieces("One **thing**. Another thing! The last", 2))
    page = open_page(scripted.url)
    ask(page, "Hello")
    page.wait_for_selector("#speech >> text=The last")
    spoken = " ".join(page.locator("#speech p").all_inner_texts())
    assert spoken == "One thing . Another thing! The last"
    assert page.locator("#speech p").count() <= 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
def test_how_it_looks(
    open_page: Any, scripted: Scripted, shoot: Shoot, width: int, height: int, scheme: str
) -> None:
    """Nothing is wider than the screen; the pictures are for a person."""
    tool = {"tool": {"name": "calculator", "input": "715/11", "output": "65"}}
    scripted.answer = lambda body: (200, {}, [tool, *in_pieces(MARKDOWN)])
    page = open_page(scripted.url, width, height, scheme, has_touch=width < 500, is_mobile=width < 500)
    name = f"{width}-{scheme}"
    ready(page)
    shoot(page, f"{name}-welcome")
    page.click("#examples button >> nth=1")
    answered(page, 1)
    page.wait_for_timeout(250)
    shoot(page, f"{name}-chat")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for what, opener in (("settings", "#settings-open"), ("help", "#help-open")):
        page.click(opener)
        shoot(page, f"{name}-{what}")
        page.keyboard.press("Escape")
    if width < 500:
        page.click("#menu")
        page.wait_for_timeout(300)
        shoot(page, f"{name}-list")
