"""The page's reader of events and its Markdown, by themselves, in the browser. Run: `pytest -m browser`."""

from __future__ import annotations

from typing import Any

import pytest
from servers import Scripted

pytestmark = pytest.mark.browser
EVENTS = """async ([bytes, size]) => {
  const {EventParser} = await import('/ui/sse.js'), parser = new EventParser(), found = [];
  for (let at = 0; at < bytes.length; at += size) {
    found.push(...parser.push(new Uint8Array(bytes.slice(at, at + size))));
  }
  return found }"""
MARKDOWN = """async ([text, size]) => {
  const {Markdown} = await import('/ui/markdown.js');
  const place = document.createElement('div'), grows = new Markdown(place);
  for (let at = 0; at < text.length; at += size) grows.push(text.slice(at, at + size));
  return [...place.children].map((node) => node.outerHTML).join('') }"""
FUZZ = """async ([texts, seed]) => {
  const {Markdown} = await import('/ui/markdown.js');
  const drawn = (text, size) => {
    const place = document.createElement('div'), grows = new Markdown(place);
    for (let at = 0; at < text.length; at += size) grows.push(text.slice(at, at + size));
    return [...place.children].map((node) => node.outerHTML).join('');
  };
  const ends = ['\\n', '\\n', '\\n\\n', ' ', '  ', ':', '.'];
  const parts = ['a', 'b c', '|', '-', '*', '**', '1', '#', '>', '`', '```', ...ends];
  for (let n = 0, state = seed; n < texts; n += 1) {
    let text = '';
    for (let length = 2 + n % 14; length; length -= 1) {
      state = (state * 1103515245 + 12345) % 2147483648;
      text += parts[Math.floor(state / 65536) % parts.length];
    }
    if (drawn(text, 1) !== drawn(text, text.length)) return text;
  }
  return null }"""
TIMED = """async (text) => {
  const {markdown} = await import('/ui/markdown.js'), start = performance.now();
  markdown(text);
  return performance.now() - start }"""
CASES = {
    "**a *b* c** d_e_f": "<p><strong>a <em>b</em> c</strong> d_e_f</p>",
    "`a` ``b`c`` \\*x\\*": "<p><code>a</code> <code>b`c</code> *x*</p>",
    "# T\ntext": "<h3>T</h3><p>text</p>",
    "1. a\n2. b\n   - c": '<ol start="1"><li>a</li><li>b<ul><li>c</li></ul></li></ol>',
    "> q\n\n---": "<blockquote><p>q</p></blockquote><hr>",
    "2 * 3 * 4 and **open": "<p>2 * 3 * 4 and **open</p>",
    "P(A|B) is:\n- item": "<p>P(A|B) is:</p><ul><li>item</li></ul>",
    "Yes | No\n---": "<p>Yes | No</p><hr>",
    "text\n**bold**\n-5": "<p>text<br><strong>bold</strong><br>-5</p>",
    "<b>x</b> [a](javascript:x)": "<p>&lt;b&gt;x&lt;/b&gt; [a](javascript:x)</p>",
}


def test_events_survive_any_cut(open_page: Any, scripted: Scripted) -> None:
    page = open_page(scripted.url)
    text = ': ping\r\n\r\ndata: {"a":"Größe 🎈"}\r\n\r\n'
    text += "event: x\ndata: one\ndata:two\n\ndata: [DONE]\n\ndata: cut"
    for size in range(1, 40):
        found = page.evaluate(EVENTS, [list(text.encode()), size])
        assert found == ['{"a":"Größe 🎈"}', "one\ntwo", "[DONE]"], size


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_markdown_is_the_same_in_pieces(open_page: Any, scripted: Scripted, size: int) -> None:
    page = open_page(scripted.url)
    for text, wanted in CASES.items():
        assert page.evaluate(MARKDOWN, [text, size]) == wanted, text


def test_any_markdown_is_the_same_letter_by_letter(open_page: Any, scripted: Scripted) -> None:
    """And none throws, which would freeze a reply, or the page that holds it."""
    assert open_page(scripted.url).evaluate(FUZZ, [20_000, 7]) is None


def test_hostile_markdown_takes_no_time(open_page: Any, scripted: Scripted) -> None:
    page = open_page(scripted.url)
    for piece in (
        "*",
        "[",
        "_a ",
        "`",
        "[](",
        "> ",
        "- ",
        "|",
        "# ",
        "**a*",
        "!",
        "~~ ",
        " ",
        "```\n",
        "a|\n-|\n",
    ):
        assert page.evaluate(TIMED, piece * (60_000 // len(piece))) < 2000, piece
