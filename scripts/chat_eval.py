"""Examine a chat model: `python -m scripts.chat_eval --source sft --run laptop`.

Sits the exams of the embedded world (`exams.json` below `--data-dir`) and writes `evals/exams.json` in the
stage's folder. `--untrained` examines random weights of the same architecture, as a control.
"""

from __future__ import annotations

import time

from nanochat.common import base_dir, print0, read_json, resolve, run_main
from nanochat.config import ChatEval
from nanochat.configurator import parse


def main(argv: list[str]) -> None:
    config = parse(ChatEval, argv, prog="chat_eval", about=__doc__)

    from nanochat import evaluation
    from nanochat.calculator import calculate
    from nanochat.engine import Engine
    from tasks import evaluate
    from tasks.sample_world import commonest_answer_score, load_exams

    data = resolve(base_dir(config.base_dir), config.data_dir)
    exams = load_exams(data / config.exams)
    started = time.monotonic()
    with evaluation.loaded(config, config.source, config.depth) as (world, model, tokenizer, folder):
        if config.untrained:
            model.init_weights(config.seed)
        engine = Engine(model, tokenizer, tool=calculate)
        scores, examples = {}, []
        for name, exam in exams.items():
            result = evaluate.evaluate_exam(engine, exam, batch=config.batch, limit=config.limit, world=world)
            scores[name] = result.facts()
            examples += [{"exam": name, **example} for example in result.examples]
            print0(f"{name:<26} {result}")
        facts = {"exams": scores, "examples": examples, "wall_s": time.monotonic() - started}
        if config.untrained:
            known = read_json(data / "world.json")
            open_questions = ("world_generative", "world_generative_unseen")
            facts["commonest_answer"] = {n: commonest_answer_score(known, exams[n]) for n in open_questions}
        if world.is_main:
            evaluation.record(folder, "untrained" if config.untrained else "exams", facts)


if __name__ == "__main__":
    run_main(main)
