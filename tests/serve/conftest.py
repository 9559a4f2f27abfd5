"""One server for the tests that leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served import Served, served, toy_engine

from nanochat.engine import Engine
from nanochat.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def engine(tokenizer: Tokenizer) -> Engine:
    return toy_engine(tokenizer)


@pytest.fixture(scope="session")
def toy(engine: Engine) -> Iterator[Served]:
    with served(engine) as one:
        yield one
        one.idle()
