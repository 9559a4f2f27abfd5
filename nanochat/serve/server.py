"""The process: listens first, then loads the model, then serves until it is told to end.

What it is: `serve`, in the order in which mistakes are cheapest. What it is not: routes (`app.py`).
Run: `python -m scripts.chat_web`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path

from nanochat.common import EXIT_DONE, EXIT_FAULT, base_dir, print0
from nanochat.config_serve import ChatWeb
from nanochat.request import Sampling
from nanochat.run_folder import require_checkpoint
from nanochat.serve import access
from nanochat.serve.app import create_app
from nanochat.serve.guard import Rules
from nanochat.serve.model import load, require_sandbox
from nanochat.serve.pool import Pool
from nanochat.serve.protocol import Server, allow_many_files

SWITCH_S = 0.0005  # that the event loop may keep the engine waiting, many times a step; Python has 5 ms
TOKEN_FILE = "serve/token"  # below the base directory


def serve(config: ChatWeb) -> int:
    """Serve until a signal; the exit code. UsageError for what can be known before."""
    Sampling(config.temperature, config.top_k, config.top_p)
    require_checkpoint(base_dir(config.base_dir), config.source, config.run or f"d{config.depth}")
    with access.listen(config.host, config.port) as listener:
        token_file = None
        if config.token_file or access.needs_token(listener, os.environ):
            token_file = (
                Path(config.token_file or base_dir(config.base_dir) / TOKEN_FILE).expanduser().absolute()
            )
        token = access.read_token(token_file) if token_file else None
        require_sandbox(config)
        rules = Rules(access.names_of(listener, config.host, config.allow_host), token, config.body_kib << 10)
        allow_many_files()
        sys.setswitchinterval(SWITCH_S)
        pool, fault = Pool(), []

        async def start(pool: Pool) -> None:
            """Load beside the event loop: /health answers meanwhile."""

            async def loading() -> None:
                try:
                    loaded = await asyncio.to_thread(load, config)
                    gc.freeze()  # torch's objects live for ever; a look through them stops all for 0.1 s
                    pool.open(*loaded)
                    print0(f"ready: {access.url(listener)}")
                except Exception as error:
                    fault.append(error)
                    pool.state = "failed"

            tasks.append(asyncio.create_task(loading()))

        tasks: list[asyncio.Task[None]] = []  # a task that nobody holds may vanish
        print0(f"listening on {access.url(listener)}, loading the model; Ctrl-C ends")
        if token_file:
            print0(f"a token is needed; it is in {token_file}, for the page and for `Authorization: Bearer`")
        if "SLURM_JOB_ID" in os.environ:
            print0(f"on your own machine: {access.ssh_line(listener, os.environ)}")
        Server(create_app(pool, rules, start), pool).run(sockets=[listener])
        print0("ended")
    if fault:
        raise fault[0]
    return EXIT_FAULT if pool.state == "failed" else EXIT_DONE
