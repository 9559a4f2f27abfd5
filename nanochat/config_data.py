"""The options of what comes before training: a tokenizer, shards of one's own texts.

What it is: the part of `config.py` that needs none of the model's options, under the same rules. How to look
at it: `python -m scripts.tok_train --help`.
"""

from __future__ import annotations

from dataclasses import dataclass

from nanochat.config import Places, Rooted
from nanochat.options import Checked, opt


@dataclass(frozen=True)
class TokTrain(Places):
    """Training of a tokenizer."""

    vocab_size: int = opt(65_536, "ids, the nine special tokens included")
    sources: str = opt("", "instead of data_dir: folders with shares of the text, wiki=45,books=40,forum=15")
    digits: int = opt(2, "digits in a token at most: 1 (small models that must do sums), 2 or 3 (GPT-4)")
    max_chars: int = opt(2_000_000_000, "characters to read at most")
    max_doc_chars: int = opt(10_000, "characters to read of one document", alias=("doc_cap",))
    threads: int = opt(0, "threads; 0 = all cores")
    fresh: bool = opt(False, "replace a tokenizer that was made with other options or data")


@dataclass(frozen=True)
class TokEval(Places):
    """Compression of a tokenizer, beside GPT-2's and GPT-4's."""

    sample_mb: float = opt(1.0, "text of each split to encode, in MB")
    references: bool = opt(True, "compare with GPT-2 and GPT-4 where tiktoken has their files")


@dataclass(frozen=True)
class TokConvert(Checked):
    """A tokenizer in another format."""

    source: str = opt(
        "", "(or --from) tokenizer to read: a folder, .tiktoken, .json or .pkl", alias=("from",)
    )
    target: str = opt("", "(or --to) folder (this kit's), .tiktoken or .json (Hugging Face's)", alias=("to",))
    pattern: str | None = opt(None, "how a .tiktoken file splits: gpt4, gpt2, cl100k, o200k, ... or a regex")
    fresh: bool = opt(False, "replace a target that is there")


@dataclass(frozen=True)
class PrepareData(Rooted):
    """Your own texts as shards."""

    source: str = opt("", "folder of .txt, .md, .jsonl and .parquet files, read with all folders below it")
    data_dir: str = opt("data", "folder to write the shards to; relative paths are below base_dir")
    text_column: str = opt("text", "column of Parquet files and key of JSONL records that holds the text")
    val_share: float = opt(0.01, "share of the documents for validation, chosen by their content")
    shard_mb: float = opt(100.0, "text of one shard, in MB")
    fresh: bool = opt(False, "replace shards that were made from other files or with other options")
