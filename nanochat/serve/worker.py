"""An engine in a process of its own: it does what the server says, over a socket.

What it is: the newest checkpoint on one device, its scheduler, and their end of the wire. The engine's thread
itself writes one frame a step, and waits where the server does not read. It ends when the server hangs up,
however that comes about, and heeds no signal: Ctrl-C and Slurm's scancel reach both, and the server is to say
when. What it is not: HTTP, or anything that knows the server's token.
Run: `python -m scripts.chat_web` starts it, with the socket as standard input and output.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from nanochat.common import EXIT_DONE, EXIT_FAULT, explain, resolve, run_main
from nanochat.engine import Engine
from nanochat.scheduler import Closed, Event, Handle, Scheduler, Stats
from nanochat.serve import wire
from nanochat.serve.model import tools_of

READ_BYTES = 1 << 16


class Worker:
    """A scheduler, and the socket to the server."""

    def __init__(self, connection: socket.socket, engine: Engine, slots: int, waiting: int) -> None:
        self.connection = connection
        self._handles: dict[int, Handle] = {}
        self._events: list[tuple[int, Event]] = []  # since the last frame; the engine's thread's alone
        # The server bounds what waits: it counts what is on its way, too, and refuses without asking.
        self.scheduler = Scheduler(engine, slots, waiting=slots + waiting, after_step=self._report)

    def run(self, frames: wire.Frames) -> None:
        """Until the server hangs up, or the engine fails. `frames` has read what came before."""
        threading.Thread(target=self._read, args=(frames,), name="reader", daemon=True).start()
        self.scheduler.join()
        with contextlib.suppress(OSError):  # the server has gone
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    def _read(self, frames: wire.Frames) -> None:
        try:
            for message in messages(self.connection, frames):
                self._take(message)
        except (OSError, Closed):
            pass  # the server has gone, or the engine has failed and `run` says so
        finally:
            self.scheduler.close()

    def _take(self, message: wire.Message) -> None:
        if isinstance(message, wire.Submission):
            id = message.id
            handle = self.scheduler.submit(message.request, functools.partial(self._note, id))
            self._handles[id] = handle
            if handle.is_over:  # sooner than it was noted here
                self._handles.pop(id, None)
        elif isinstance(message, wire.Cancellation) and (known := self._handles.get(message.id)):
            self.scheduler.cancel(known)

    # ------------------------------------------------------------------ the engine's thread

    def _note(self, id: int, event: Event) -> None:
        self._events.append((id, event))
        if event.is_last:
            self._handles.pop(id, None)

    def _report(self, stats: Stats) -> None:
        events, self._events = self._events, []
        with contextlib.suppress(OSError):  # the server has gone; the reader sees it, too
            self.connection.sendall(wire.encode(wire.News(events, stats)))


def messages(connection: socket.socket, frames: wire.Frames) -> Iterator[wire.Message]:
    """What the server says, until it hangs up."""
    while data := connection.recv(READ_BYTES):
        yield from frames.feed(data)


# ----------------------------------------------------------------------------- the process


def load(order: wire.Load, connection: socket.socket) -> tuple[Worker, wire.Ready]:
    """The newest checkpoint on the device. UsageError where there is none."""
    import torch

    from nanochat import checkpoint_manager
    from nanochat.distributed import pick_device
    from nanochat.probe import pick_dtype, pick_threads

    start = time.perf_counter()
    threads = pick_threads(order.threads) // (order.engines if order.threads is None else 1)
    torch.set_num_threads(max(1, threads))
    device, count = pick_device(order.device), 1
    if device.type == "cuda":
        count = torch.cuda.device_count()
        device = torch.device("cuda", order.index % count)
        torch.cuda.set_device(device)  # or a context on the first one would take its memory, too
    connection.sendall(wire.encode(wire.Devices(count)))
    dtype, _ = pick_dtype(order.dtype, device)
    root = Path(order.base_dir)
    model, tokenizer, state = checkpoint_manager.load_model(root, order.source, order.run, device, dtype)
    engine = Engine(model, tokenizer, tools_of(order.tools))
    worker = Worker(connection, engine, order.slots, order.waiting)
    gc.collect()
    gc.freeze()  # torch's objects live for ever; a look through them stops all for 0.1 s
    facts = wire.Ready(
        str(device), str(dtype), torch.get_num_threads(), time.perf_counter() - start,
        model.config.context, model.config.vocab_size, str(resolve(root, state["tok_dir"])), tokenizer.hash,
        order.waiting, worker.scheduler.stats(),
    )  # fmt: skip
    return worker, facts


def main(argv: list[str]) -> int:
    """Load what the first message says, then serve; the exit code."""
    _heed_no_signal()
    connection, frames, is_loaded = _connection(), wire.Frames(), threading.Event()
    order = next(messages(connection, frames), None)
    if not isinstance(order, wire.Load):
        return EXIT_FAULT  # the server has gone already
    threading.Thread(target=_leave_with_server, args=(connection, is_loaded), daemon=True).start()
    try:
        worker, facts = load(order, connection)
    except Exception as error:
        code, message = explain(error)
        if message is None:
            traceback.print_exc()
            message = f"error: the model could not be loaded ({type(error).__name__}; see above)"
        connection.sendall(wire.encode(wire.Failure(code, message)))
        return code
    is_loaded.set()
    connection.sendall(wire.encode(facts))
    worker.run(frames)
    return EXIT_DONE


def _heed_no_signal() -> None:
    """They were blocked when the server started this process: until now they could not end it, either."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def _connection() -> socket.socket:
    """The socket, moved away from standard output: what anything prints goes to the server's log."""
    connection = socket.socket(fileno=os.dup(sys.stdout.fileno()))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)
    return connection


def _leave_with_server(connection: socket.socket, is_loaded: threading.Event) -> None:
    """A server that ends while a large model is loaded need not wait for it."""
    try:
        more = connection.recv(1, socket.MSG_PEEK)
    except OSError:
        more = b""
    if not more and not is_loaded.is_set():
        os._exit(EXIT_FAULT)


if __name__ == "__main__":
    run_main(main)
