"""The process: listens first, then starts the engines, then serves until it is told to end.

What it is: `serve`, in the order in which mistakes are cheapest. What it is not: routes (`app.py`), or the
engines, which are processes of their own (`worker.py`); this one never imports torch.
Run: `python -m scripts.chat_web`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

from nanochat.common import EXIT_DONE, EXIT_FAULT, base_dir, print0
from nanochat.config_serve import ChatWeb
from nanochat.request import Sampling
from nanochat.run_folder import require_checkpoint
from nanochat.serve import access
from nanochat.serve.app import create_app
from nanochat.serve.guard import Rules
from nanochat.serve.link import start as start_process
from nanochat.serve.model import model_of, require_sandbox, run_of
from nanochat.serve.pool import Pool
from nanochat.serve.protocol import Server, allow_many_files
from nanochat.serve.wire import Load

TOKEN_FILE = "serve/token"  # below the base directory


def serve(config: ChatWeb) -> int:
    """Serve until a signal; the exit code. UsageError for what can be known before."""
    Sampling(config.temperature, config.top_k, config.top_p)
    require_checkpoint(base_dir(config.base_dir), config.source, run_of(config))
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
        pool, fault = Pool(), []

        async def start(pool: Pool) -> None:
            """Load beside the event loop: /health answers meanwhile."""

            async def loading() -> None:
                try:
                    await load(pool, config)
                    if pool.state == "ok":
                        print0(f"ready: {access.url(listener)}")
                except Exception as error:
                    fault.append(error)
                    pool.fail()

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
    if pool.failure is not None:
        print(pool.failure.message, file=sys.stderr, flush=True)
        return pool.failure.code
    return EXIT_FAULT if pool.state == "failed" else EXIT_DONE


async def load(pool: Pool, config: ChatWeb) -> None:
    """An engine on each device, all at once; opens the pool, unless one fails or the server ends."""

    order = Load(
        str(base_dir(config.base_dir)), config.source, run_of(config), config.device, 0, config.workers or 1,
        config.dtype, config.threads, config.slots, config.waiting, config.tools,
    )  # fmt: skip

    async def more(index: int) -> None:
        process, ours = start_process()
        link = await pool.connect(ours, process)
        link.send(replace(order, index=index))

    await more(0)
    count = config.workers or await pool.links[0].devices
    if count is None or pool.state != "loading":
        return
    for index in range(1, count):
        await more(index)
    engines = []
    for index, link in enumerate(pool.links):
        facts = await link.ready
        if facts is None:
            return
        engines.append(facts)
        link.name = f"{facts.device}/{index}"
    model = model_of(config, engines)
    for facts in engines:
        threads = f"{facts.threads} thread{'s' * (facts.threads > 1)}"
        print0(f"{model.id} on {facts.device}, {facts.dtype}, {threads}, loaded in {facts.seconds:.1f} s")
    pool.open(model)
