"""Write a classic model as a transformers folder: `python -m scripts.export_hf --run d12 --to FOLDER`.

The folder (safetensors, config.json, tokenizer.json) is loaded again and its logits and ids compared with
ours. `AutoModelForCausalLM.from_pretrained(FOLDER)` then needs transformers 5 and nothing of this project.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from nanochat.common import UsageError, print0, run_main
from nanochat.config_eval import ExportHF
from nanochat.configurator import parse

TEXTS = ("Once upon a time", " 1234 + 5.6e7 = ?\n\n\tdon't", "naïve 日本語 🙂 <|bos|")


def main(argv: list[str]) -> None:
    config = parse(ExportHF, argv, prog="export_hf", about=__doc__)
    if not config.target:
        raise UsageError("name the folder to write with --to")

    from nanochat import export_hf
    from nanochat.evaluation import loaded

    folder = Path(config.target).expanduser()
    exact = dataclasses.replace(config, dtype="float32")
    with loaded(exact, config.source, config.depth) as (_, model, tokenizer, _):
        export_hf.export(model, tokenizer, folder)
        off = export_hf.check(model, tokenizer, folder, TEXTS)
        print0(f"wrote {folder}; transformers gives the same ids, and logits within {off:.1e}")


if __name__ == "__main__":
    run_main(main)
