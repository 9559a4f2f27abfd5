"""Chromium for all tests of the page; each page must end without an error on the console."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "serve")]
EXPECTED = "Failed to load resource"  # the browser's own line about a status that a test asked for

from served import Served  # noqa: E402
from servers import Scripted, toy_server  # noqa: E402

Open = Callable[..., Any]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: extra dev")
    program = os.environ.get("NANOCHAT_CHROMIUM")
    if not program:
        run = subprocess.run(["bash", HERE / "install.sh"], capture_output=True, text=True, check=False)
        if run.returncode:
            pytest.skip(f"no browser: {run.stderr.strip().splitlines()[-1]}")
        program = run.stdout.strip()
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def toy(tokenizer: Any) -> Iterator[Served]:
    with toy_server(tokenizer, context=512) as one:
        yield one


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    server = Scripted()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Open]:
    """`open_page(url, width, height, scheme, **options)`; errors on its console fail the test."""
    contexts, faults = [], []

    def open_page(
        url: str, width: int = 1280, height: int = 800, scheme: str = "light", **options: Any
    ) -> Any:
        size = {"width": width, "height": height}
        context = chromium.new_context(viewport=size, color_scheme=scheme, accept_downloads=True, **options)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: line.type in ("error", "warning") and faults.append(line.text))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [fault for fault in faults if not fault.startswith(EXPECTED)] == []


@pytest.fixture
def shoot(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any, str], None]:
    """Screenshots for a person to look at, in NANOCHAT_SCREENSHOTS or pytest's folder."""
    folder = Path(os.environ.get("NANOCHAT_SCREENSHOTS") or tmp_path_factory.getbasetemp() / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return lambda page, name: page.screenshot(path=folder / f"{name}.png")
