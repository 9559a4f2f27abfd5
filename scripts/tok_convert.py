"""A tokenizer from one format to another: `python -m scripts.tok_convert --from tok --to tokenizer.json`.

Reads a folder of this kit, tiktoken ranks, a Hugging Face tokenizer.json or upstream nanochat's tokenizer.pkl
(which is not unpickled). Writes a folder (this kit's), NAME.tiktoken (ranks) or NAME.json (Hugging Face's).
What is written is read back and must give the same ids on a text of every token before it gets its name.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from nanochat.common import UsageError, print0, run_main, sha256_file
from nanochat.config_data import TokConvert
from nanochat.configurator import parse

if TYPE_CHECKING:
    from nanochat.tokenizer import Tokenizer

FILES = (".tiktoken", ".json")  # what is written as a file; any other name is a folder of this kit
SAMPLE = (
    "The cat's hat cost 12,345.67 in 2026; we'LL see.\r\n\n  def area(x):\n\treturn x ** 2  \n"
    "Größe, naïve café, 東京で, 한국어, Привет мир, नमस्ते, שלום, 👩‍🚀🎉 e\u0301 \u00a0\u2028 <|x|>   "
)


def main(argv: list[str]) -> None:
    config = parse(TokConvert, argv, prog="tok_convert", about=__doc__)
    source, target = _places(config)

    from nanochat import interchange
    from nanochat.tokenizer import TOKENIZER_FILE

    final = target if target.suffix in FILES else target / TOKENIZER_FILE
    if final.exists() and not config.fresh:
        raise UsageError(f"--to {final} is there already; choose another, or replace it with --fresh")
    if source.is_dir():
        source /= TOKENIZER_FILE
    kind, tokenizer = interchange.load(source, config.pattern)
    print0(f"read {source}, {kind}, sha256 {sha256_file(source)}")
    _describe(tokenizer)
    nearest = next(folder for folder in final.parents if folder.is_dir())
    with tempfile.TemporaryDirectory(prefix=".tok_convert.", dir=nearest) as stage:
        written = Path(stage) / final.name
        judges = _write(tokenizer, written, target.suffix)
        final.parent.mkdir(parents=True, exist_ok=True)
        os.replace(written, final)
    print0(f"wrote {final}, sha256 {sha256_file(final)}")
    print0(f"the same ids as before on a text of every token, by {judges}")


def _places(config: TokConvert) -> tuple[Path, Path]:
    if not config.source or not config.target:
        raise UsageError("from what, to what? Set --from and --to: a folder, NAME.tiktoken or NAME.json")
    source, target = Path(config.source).expanduser(), Path(config.target).expanduser()
    if not source.exists():
        raise UsageError(f"--from {source}: there is no such file or folder")
    if target.suffix in FILES and target.is_dir():
        raise UsageError(f"--to {target} is a folder with the name of a file; name a file or another folder")
    if target.suffix not in FILES and not target.is_dir() and (target.suffix or target.exists()):
        raise UsageError(f"--to {target}: use a folder, NAME.tiktoken or NAME.json")
    return source, target


def _describe(tokenizer: Tokenizer) -> None:
    from nanochat.hf_tokenizer import LEFT_OUT

    count, specials = len(tokenizer.tokens), ", ".join(tokenizer.specials)
    print0(f"  {tokenizer.vocab_size:,} ids: {count:,} tokens, then {specials}")
    print0(f"  hash {tokenizer.hash}\n  splits by {tokenizer.pattern}")
    if left_out := tokenizer.training.get(LEFT_OUT):
        print0(f"  left out, as this kit's take their place: {', '.join(left_out)}")


def _write(tokenizer: Tokenizer, path: Path, suffix: str) -> str:
    """Write it, read it back, compare; returns who compared."""
    from nanochat import interchange

    text = SAMPLE + tokenizer.decode(range(len(tokenizer.tokens))) + SAMPLE
    ids, peers = tokenizer.encode(text), {}
    if tokenizer.decode(ids) != text:  # rustbpe would have said so, tiktoken does not
        raise ValueError(f"the split pattern {tokenizer.pattern} leaves out some text")
    if suffix == ".tiktoken":
        interchange.save_tiktoken(tokenizer, path)
        back = interchange.load_tiktoken(path, tokenizer.pattern, tokenizer.specials)
        print0("  note: ranks hold neither split pattern nor special tokens; give --pattern to read them")
    elif suffix == ".json":
        interchange.save_huggingface(tokenizer, path)
        back = interchange.load_huggingface(path)
        peers = _by_peer(path, text)
    else:
        tokenizer.save(path.parent)
        back = tokenizer.load(path.parent)
    for name, found in {"this kit": back.encode(text), **peers}.items():
        if found != ids:
            raise ValueError(f"{name} reads other ids from what was written for {path.name}; it is not kept")
    if back.hash != tokenizer.hash:
        raise ValueError(f"what was written for {path.name} is another tokenizer; it is not kept")
    return " and ".join(["this kit", *peers])


def _by_peer(path: Path, text: str) -> dict[str, list[int]]:
    """The ids that Hugging Face's own package reads from the file, where it is installed."""
    try:
        import tokenizers
    except ImportError:
        return {}
    peer = tokenizers.Tokenizer.from_file(str(path))
    return {f"tokenizers {tokenizers.__version__}": peer.encode(text, add_special_tokens=False).ids}


if __name__ == "__main__":
    run_main(main)
