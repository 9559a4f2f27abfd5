"""lm-evaluation-harness gets the same likelihoods from the server (`local-completions`) as from transformers.

12 questions of ARC-Easy without shots; NANOCHAT_LONG=1 makes it 200. NANOCHAT_CLASSIC, a base folder with a
`classic` run of that name, spares the minute of training one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import core_harness
import core_twin
import pytest
import torch
from core_harness import Asked
from served import served, toy_engine
from toy import LONG

from nanochat import export_hf
from nanochat.checkpoint_manager import load_model
from nanochat.engine import Engine
from nanochat.likelihood import Spans
from nanochat.serve.model import Tools
from nanochat.tokenizer import Tokenizer

pytestmark = pytest.mark.slow
NO_SPANS = Spans([], [])  # the harness makes its own
ROWS, CLOSE = 200 if LONG else 12, 1e-3


def questions(bundle: Path) -> list[Asked]:
    file = bundle / "eval_data" / "world_knowledge" / "arc_easy.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[:ROWS]]
    return [
        Asked(f"{row['query']}\nAnswer:", [f" {option}" for option in row["choices"]], row["gold"], NO_SPANS)
        for row in rows
    ]


def likelihoods(sample: dict[str, Any]) -> list[float]:
    return [float(answer[0][0]) for answer in sample["resps"]]


@pytest.mark.usefixtures("harness")
def test_the_harness_reads_the_same_from_the_server(test_data: Path, tmp_path: Path) -> None:
    base = Path(os.environ.get("NANOCHAT_CLASSIC") or core_twin.trained(test_data, tmp_path, "classic"))
    model, tokenizer, _ = load_model(base, "base", "classic", torch.device("cpu"))
    export_hf.export(model, tokenizer, tmp_path / "model")
    (tmp_path / "tasks").mkdir()
    asked = questions(test_data / "eval_bundle")
    core_harness.write_task(tmp_path / "tasks", "arc_easy", asked)
    hf = core_harness.hugging_face(tmp_path / "model", batch=4)
    [theirs] = core_harness.ask_harness(hf, tmp_path / "tasks", ["arc_easy"]).values()
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    with served(Engine(model, tokenizer, Tools())) as one:
        api = LocalCompletionsAPI(
            base_url=f"{one.url}/v1/completions", model=one.model.id, tokenizer=str(tmp_path / "model"),
            tokenizer_backend="huggingface", add_bos_token=True, max_length=model.config.context,
            num_concurrent=8,
        )  # fmt: skip
        [ours] = core_harness.ask_harness(api, tmp_path / "tasks", ["arc_easy"]).values()
    assert len(ours) == len(theirs) == ROWS
    answers = (zip(likelihoods(a), likelihoods(b), strict=True) for a, b in zip(ours, theirs, strict=True))
    pairs = [pair for many in answers for pair in many]
    off = max(abs(x - y) for x, y in pairs)
    print(f"{ROWS} questions, {len(pairs)} options: log-likelihoods within {off:.1e}")
    assert len(pairs) == sum(len(one.options) for one in asked) and off < CLOSE


def test_scores_are_whole_where_a_reply_would_end(tokenizer: Tokenizer) -> None:
    """Harnesses ask for one token more than they score, and cut it off: it must be there, whatever it is."""
    engine, prompt = toy_engine(tokenizer), list(b"the cat sat")
    [reply] = engine.generate_batch([prompt], max_tokens=1, temperature=0.0, stop=())
    engine.rules.stop = engine.rules.specials = frozenset(reply.ids)
    body = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
    with served(engine) as one:
        [choice] = one.post("/v1/completions", body).json()["choices"]
    scores = choice["logprobs"]["token_logprobs"]
    assert len(scores) == len(prompt) + 1 and scores[0] is None and None not in scores[1:]
