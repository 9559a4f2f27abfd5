"""Conversations and texts as training data: what counts, what is truncated, what is refused."""

from __future__ import annotations

import pytest
import torch
from loader_helpers import BYTES, chat, take

from nanochat.dataloader import ItemSource


def test_only_the_assistant_counts() -> None:
    items = [chat(f"Q{i}", f"A{i}") for i in range(5)] + [{"text": "plain"}]
    found = take(ItemSource(items, BYTES, 1), epochs=1, rows=1, context=64)
    targets = torch.cat([b.targets[b.targets >= 0] for b in found]).tolist()
    counted = [part.removeprefix("<|bos|>") for part in BYTES.decode(targets).split("<|assistant_end|>")]
    counted = [part for text in counted for part in text.removeprefix("plain").split("<|bos|>") if part]
    assert sorted(counted) == [f"A{i}" for i in range(5)]
    assert BYTES.decode(targets).count("plain") == 1


def test_supervise_all_counts_everything() -> None:
    items = [chat("Question", "Answer")]
    length = len(BYTES.render_conversation(items[0])[0])
    (batch,) = take(ItemSource(items, BYTES, 1, supervise="all"), epochs=1, context=64, rows=1)
    assert batch.stats["targets"] == length - 1 and batch.stats["tokens"] == length


def test_long_and_bad_conversations_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    good, long = chat("Q", "A"), chat("Q", "A", "longer question", "longer answer")
    bad = [
        chat("Q"),
        chat("Q" * 99, "A"),
        {"messages": [{"role": "assistant", "content": "A"}]},
        {"other": 1},
    ]
    source = ItemSource([good, long, *bad], BYTES, 1, max_tokens=33)
    found = take(source, epochs=2, context=32, rows=1)
    stats = found[-1].stats
    lost = len(BYTES.render_conversation(long)[0]) - len(BYTES.render_conversation(good)[0])
    assert (stats["truncated"], stats["refused"], stats["cropped"]) == (2, 8, 2 * lost)
    assert all((b.targets >= 0).any() for b in found)
    assert capsys.readouterr().out.count("is refused: ") == 1


def test_item_windows_cover_every_item_once_an_epoch() -> None:
    items = [{"text": f"<{i}>"} for i in range(2500)]
    source = ItemSource(items, BYTES, 11)
    assert source.len_windows(0) == 3
    orders = []
    for epoch in (0, 1):
        pieces = [p for w in range(3) for p in source.window(epoch, w).pieces]
        orders.append([BYTES.decode(p.ids[1:]) for p in pieces])
        assert sorted(orders[-1]) == sorted(i["text"] for i in items)
    assert orders[0] != orders[1]


def test_counts_survive_a_resume_within_a_window() -> None:
    items = [chat("Q", "A"), chat("Q", "A", "too long " * 9, "A"), chat("Q" * 99, "A")] * 5
    options = {"epochs": 2, "context": 32, "rows": 1}
    source = ItemSource(items, BYTES, 1, max_tokens=33)
    straight = take(source, **options)
    assert straight[-1].stats["refused"] == straight[-1].stats["truncated"] == 10
    for cut in (1, 3, len(straight) - 1):
        goes_on = take(source, state=straight[cut - 1].state, **options)
        assert [b.state for b in goes_on] == [b.state for b in straight[cut:]]
