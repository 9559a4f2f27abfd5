"""Serve a trained model: a page to chat with, and an OpenAI-compatible API.

python -m scripts.chat_web --preset laptop, then http://127.0.0.1:8000 in a browser. On a cluster:
slurm/serve.slurm. Other addresses than loopback need a token, which is made and kept in a file.
"""

from __future__ import annotations

from nanochat.common import UsageError, run_main
from nanochat.config_serve import ChatWeb
from nanochat.configurator import parse


def main(argv: list[str]) -> int:
    config = parse(ChatWeb, argv, prog="chat_web", about=__doc__)
    try:
        from nanochat.serve.server import serve
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "starlette", "uvicorn", "pydantic", "h11"):
            raise
        raise UsageError(f"{error.name} is not installed: bash env/setup.sh --extras serve") from error
    return serve(config)


if __name__ == "__main__":
    run_main(main)
