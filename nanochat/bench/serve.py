"""The chat server under more load than it can take, as a real process with a trained model.

What it is: the server, many clients that honour Retry-After in a second process (`clients.py`), a probe of
/health and of memory in this one, all on the same cores; then clients that leave in the middle. Tokens a
second are held against the engine alone, with as many slots and threads, before and after in this run. What
it is not: the speed of the engine (`generate.py`). Run: `python -m scripts.bench serve --base-dir DIR`.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import psutil
import torch

from nanochat import checkpoint_manager
from nanochat.bench import Row, figure
from nanochat.bench.clients import Plan, Tally
from nanochat.common import base_dir
from nanochat.config import Bench
from nanochat.config_serve import ChatWeb
from nanochat.engine import Engine
from nanochat.probe import pick_dtype
from nanochat.request import Request, Sampling
from nanochat.tokenizer import Tokenizer

PROMPT, NEW = 64, 128  # tokens
PATH = "/v1/chat/completions"
PROMPTS = 512  # different ones: more than the engine remembers
PROBE_S = 0.05
START_S = 120.0
LEAVERS = 1000
EXPECTED = {200, 429, 503}
HEALTH_S, MOST_BYTES = 0.25, 100e6  # bars


def run(config: Bench) -> Iterator[Row]:
    """With each number of threads: rates, statuses, /health, memory, and how soon leavers' slots are free."""
    source, _, name = config.model.partition("_")
    root, cpu = base_dir(config.base_dir), torch.device("cpu")
    dtype, _ = pick_dtype("auto", cpu)
    model, tokenizer, _ = checkpoint_manager.load_model(root, source, name, cpu, dtype)
    engine, prompts = Engine(model, tokenizer), texts(tokenizer, PROMPT, PROMPTS)
    words = ["--base-dir", str(root), "--source", source, "--run", name, "--device", "cpu"]
    words += ["--dtype", str(dtype).split(".")[1], "--slots", str(config.slots)]
    for threads in config.thread_counts:
        torch.set_num_threads(threads)
        alone = [engine_rate(engine, prompts, config.slots)]
        with started([*words, "--threads", str(threads)]) as server:
            ready = server.memory()
            server.load(bodies(config.model, prompts, False), config.slots, 1.0)  # each slot once
            sides, warm = {}, server.memory() - ready
            for side, stream in (("plain", False), ("streamed", True)):
                sides[side] = server.load(
                    bodies(config.model, prompts, stream), config.clients, config.seconds
                )
                alone.append(engine_rate(engine, prompts, config.slots))
            steps = asyncio.run(leave(server, bodies(config.model, prompts, True), LEAVERS, config.slots))
        yield figure("serve_engine_alone", statistics.median(alone), "tok/s", len(alone), threads)
        yield figure("serve_first_use_memory", warm / 1e6, "MB", config.slots, threads)
        for side, seen in sides.items():
            yield from rows(side, seen, statistics.median(alone), threads)
            for miss in missed(seen):
                print(f"missed, {side}: {miss}", file=sys.stderr)
        yield figure("serve_leavers_steps", max(steps), "steps", LEAVERS, threads)


def rows(side: str, seen: Seen, alone: float, threads: int) -> Iterator[Row]:
    """The figures of one load."""
    tally, probes = seen.tally, len(seen.health_s)
    n = sum(tally.statuses.values())
    rate = figure(f"serve_{side}", tally.rate, "tok/s", tally.statuses[200], threads)
    yield replace(rate, peer="engine alone", ratio=rate.value / alone)
    for status, count in sorted(tally.statuses.items()):
        yield figure(f"serve_{side}_{status}", count, "answers", n, threads)
    for fault, count in tally.faults.items():
        yield figure(f"serve_{side}: {fault}", count, "faults", n, threads)
    for share in (50, 99):
        slow = percentile(seen.health_s, share)
        yield figure(f"serve_{side}_health_p{share}", 1e3 * slow, "ms", probes, threads)
    yield figure(f"serve_{side}_memory", seen.growth_bytes / 1e6, "MB", probes, threads)


def missed(seen: Seen) -> list[str]:
    """Bars that hold at any speed of the engine, and were missed."""
    slow = percentile(seen.health_s, 99)
    return [
        *(
            f"{count} answers {status}"
            for status, count in seen.tally.statuses.items()
            if status not in EXPECTED
        ),
        *(f"{count} times {fault}" for fault, count in seen.tally.faults.items()),
        *([f"/health took {slow:.3f} s (99 %)"] if slow >= HEALTH_S else []),
        *([f"memory grew by {seen.growth_bytes / 1e6:.0f} MB"] if seen.growth_bytes >= MOST_BYTES else []),
    ]


def percentile(values: list[float], share: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * share // 100)]


# ----------------------------------------------------------------------------- what is asked


def texts(tokenizer: Tokenizer, tokens: int, count: int) -> list[str]:
    """Different messages that make prompts of exactly `tokens` tokens: digits, each a token or less."""
    rng = random.Random(0)
    found: list[str] = []
    while len(found) < count:
        text = "".join(rng.choices("0123456789", k=tokens // 2))
        while (length := len(prompt_of(tokenizer, text))) < tokens:
            text += rng.choice("0123456789")
        found += [text] if length == tokens else []
    return found


def prompt_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.render_for_completion({"messages": [{"role": "user", "content": text}]})


def bodies(model: str, prompts: list[str], stream: bool) -> list[str]:
    fields: dict[str, Any] = {"model": model, "max_completion_tokens": NEW, "ignore_eos": True}
    if stream:
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    messages = ([{"role": "user", "content": prompt}] for prompt in prompts)
    return [json.dumps({**fields, "messages": some}) for some in messages]


def engine_rate(engine: Engine, prompts: list[str], slots: int) -> float:
    """Tokens a second without a server, four rounds of all slots, from the first prompt to the last token."""
    options = ChatWeb()
    sampling = Sampling(options.temperature, options.top_k, options.top_p)
    ids = [prompt_of(engine.tokenizer, prompts[i % len(prompts)]) for i in range(4 * slots)]
    replies = [engine.reply(Request(p, NEW, sampling, i, stop=frozenset())) for i, p in enumerate(ids)]
    batch, coming = engine.batch(slots), iter(replies)
    start = time.perf_counter()
    for reply in coming:
        batch.join(reply)
        while batch.is_full:
            batch.step()
    while batch.seats:
        batch.step()
    return NEW * len(replies) / (time.perf_counter() - start)


# ----------------------------------------------------------------------------- the server


@dataclass
class Seen:
    """What a load did."""

    tally: Tally = field(default_factory=Tally)
    health_s: list[float] = field(default_factory=list)
    growth_bytes: int = 0


@contextlib.contextmanager
def started(words: list[str]) -> Iterator[Process]:
    """chat_web on a free port, once it is ready. RuntimeError with its output if it ends before."""
    with tempfile.TemporaryFile() as log:
        command = [sys.executable, "-m", "scripts.chat_web", "--port", "0", *words]
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            yield Process(process, _ready(process, log))
        finally:
            process.terminate()
            process.wait()


def _ready(process: subprocess.Popen[bytes], log: Any) -> str:
    """The address that it prints."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        log.seek(0)
        _, found, rest = log.read().decode().partition("ready: ")
        if found and "\n" in rest:
            return rest.split()[0]
        time.sleep(0.05)
    log.seek(0)
    raise RuntimeError(f"chat_web did not start: {log.read().decode()[-2000:]}")


class Process:
    """A server that is ready."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self.host, self.port = parts.hostname, parts.port
        server = psutil.Process(process.pid)
        self._processes = [server, *server.children()]  # the engines, which are there by now

    def get(self, path: str) -> Any:
        """JSON, by a connection of its own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=START_S)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())

    def memory(self) -> int:
        """Bytes that it has in memory, engines included; pages that they share count twice."""
        return sum(one.memory_info().rss for one in self._processes)

    def load(self, bodies: list[str], clients: int, seconds: float) -> Seen:
        """What many clients see, and what is seen of the server meanwhile."""
        seen, is_over = Seen(), threading.Event()
        probe = threading.Thread(target=lambda: asyncio.run(self._probe(seen, is_over)))
        plan = Plan(self.host, self.port, PATH, bodies, clients, seconds)
        command = [sys.executable, "-m", "nanochat.bench.clients"]
        probe.start()
        try:
            text = json.dumps(vars(plan)).encode()
            done = subprocess.run(command, input=text, capture_output=True, check=True)
        finally:
            is_over.set()
            probe.join()
        seen.tally = Tally.read(done.stdout)
        return seen

    async def _probe(self, seen: Seen, is_over: threading.Event) -> None:
        """A new /health every `PROBE_S`, however long those before it take: none is spared the slow times."""
        before, probes = self.memory(), set()
        while not is_over.is_set():
            probes.add(asyncio.create_task(self._health(seen)))
            seen.growth_bytes = max(seen.growth_bytes, self.memory() - before)
            await asyncio.sleep(PROBE_S)
        await asyncio.gather(*probes)

    async def _health(self, seen: Seen) -> None:
        start = time.perf_counter()
        reader, writer = await asyncio.open_connection(self.host, self.port)
        writer.write(f"GET /health HTTP/1.1\r\nHost: {self.host}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200"), answer
        seen.health_s.append(time.perf_counter() - start)


# ----------------------------------------------------------------------------- clients that leave


async def leave(server: Process, bodies: list[str], count: int, slots: int) -> list[int]:
    """Clients of `slots` at a time ask for streams and leave at once, at some moment; the steps that the
    engine took from before that to when nothing ran any more."""
    rng, steps = random.Random(0), []
    for first in range(0, count, slots):
        writers = []
        for i in range(first, min(first + slots, count)):
            _, writer = await asyncio.open_connection(server.host, server.port)
            body = bodies[i % len(bodies)]
            head = f"POST {PATH} HTTP/1.1\r\nHost: {server.host}\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            writers.append(writer)
        await asyncio.sleep(rng.uniform(0.0, 1.0))
        before = server.get("/stats")["workers"][0]["steps"]
        for writer in writers:
            writer.transport.abort()
        while (now := server.get("/stats")["workers"][0])["running"] + now["waiting"]:
            await asyncio.sleep(0.001)
        steps.append(now["steps"] - before)
    return steps
