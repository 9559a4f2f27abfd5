"""Examine a chat model: `python -m scripts.chat_eval --source sft --run laptop`.

`--tasks` names the exams: `world` (of the embedded world: `exams.json` and, where it is,
`problems_exam.jsonl` below `--data-dir`), `all` (ARC, MMLU, GSM8K, ... from the hub, which
`scripts.download_data` fetches) or some of them by name. Results go to `evals/` in the stage's folder: JSON,
CSV, and one line for each item. `--compare A B` compares two such item files and evaluates nothing;
`--untrained` examines random weights, as a control.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from nanochat.common import base_dir, print0, read_json, resolve, run_main
from nanochat.config import ChatEval
from nanochat.configurator import parse


def main(argv: list[str]) -> None:
    config = parse(ChatEval, argv, prog="chat_eval", about=__doc__)

    from tasks import catalogue, chatcore

    if config.compare:
        for name, difference in chatcore.compare_files(*map(Path, config.compare)).items():
            print(f"{name:<26} {difference}")
        return
    root = base_dir(config.base_dir)
    data = resolve(root, config.data_dir)
    exams = catalogue.load_exams(
        root, data / config.exams, data / config.problems_exam, config.tasks, config.sandbox
    )

    from nanochat import evaluation
    from nanochat.calculator import calculate
    from nanochat.engine import Engine
    from nanochat.metrics import Progress
    from tasks import evaluate
    from tasks.sample_world import commonest_answer_score

    decoding = evaluate.Decoding(
        config.samples, config.temperature, config.top_k, config.seed, config.max_tokens
    )
    started = time.monotonic()
    with evaluation.loaded(config, config.source, config.depth) as (world, model, tokenizer, folder):
        if config.untrained:
            model.init_weights(config.seed)
        engine = Engine(model, tokenizer, tool=calculate)
        scores, examples, records = {}, [], {}
        for name, exam in exams.items():
            begun, mine = time.monotonic(), -(-min(len(exam), config.limit or len(exam)) // world.size)
            with Progress(mine, name, unit="item", enabled=world.is_main) as progress:
                result = evaluate.evaluate_exam(
                    engine, exam, decoding=decoding, batch=config.batch, limit=config.limit, world=world,
                    tick=progress.add,
                )  # fmt: skip
            records[name] = result.records
            scores[name] = {**result.facts(), **exam.facts(), "wall_s": time.monotonic() - begun}
            examples += [{"exam": name, **example} for example in result.examples]
            print0(f"{name:<26} {result}")
        facts: dict[str, Any] = {
            "exams": scores,
            "examples": examples,
            "decoding": vars(decoding),
            "data": {name: exam.fingerprint for name, exam in exams.items()},
            "wall_s": time.monotonic() - started,
        }
        if config.tasks != "world":
            facts["chatcore"] = chatcore.chatcore(records)
            for name, found in facts["chatcore"].items():
                print0(chatcore.describe(name, found))
        elif config.untrained:
            known = read_json(data / "world.json")
            open_questions = ("world_generative", "world_generative_unseen")
            facts["commonest_answer"] = {n: commonest_answer_score(known, exams[n]) for n in open_questions}
        if world.is_main:
            chatcore.write_results(folder / "evals", config.result, facts, records)


if __name__ == "__main__":
    run_main(main)
