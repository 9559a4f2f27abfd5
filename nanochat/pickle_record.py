"""What a pickled object records, read without unpickling: nothing in the file is imported, called or made.

A pickle is a program for a small stack machine. The machine here knows only the instructions that write one
object of one named class whose state is a dict of text, bytes, whole numbers and such dicts; it gives that
dict. Calls (REDUCE, INST, OBJ), other names, persistent ids and the extension registry have no code here:
they are not filtered, they can not happen. What it is not: a way to get an object, or to read pickles of
protocols below 4 (Python's default since 3.8).
How to run it: `python -m scripts.tok_convert --from tokenizer.pkl --to tok`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any


class _Mark:
    """Where the items of the next SETITEMS begin."""


class _Named:
    """Stands for the class that may be named."""


class _Object:
    """Stands for an instance of it; BUILD gives it its state."""

    state: Any = None


IGNORED = {"PROTO", "FRAME", "STOP"}
CONSTANTS = {
    "SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES", "BININT", "BININT1", "BININT2",
}  # fmt: skip
EMPTY: dict[str, type] = {"EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "MARK": _Mark}


def read_record(data: bytes, module: str, name: str) -> dict[Any, Any]:
    """The state of the pickled `module.name` object that `data` is. ValueError if it is anything else."""
    machine = _Machine(module, name)
    end = 0
    try:
        for opcode, argument, position in pickletools.genops(data):
            machine.step(opcode.name, argument)
            end = (position or 0) + 1
    except IndexError as error:
        raise ValueError("it is no well-formed pickle: it takes from an empty stack or memo") from error
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes follow the pickle's end")
    stack = machine.stack
    if len(stack) != 1 or not isinstance(stack[0], _Object) or type(stack[0].state) is not dict:
        raise ValueError(f"it does not hold the state of one {module}.{name}")
    return stack[0].state


class _Machine:
    def __init__(self, module: str, name: str) -> None:
        self.allowed = (module, name)
        self.stack: list[Any] = []
        self.memo: list[Any] = []

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        if name in CONSTANTS:
            self.stack.append(argument)
        elif name in EMPTY:
            self.stack.append(EMPTY[name]())
        elif name in INSTRUCTIONS:
            INSTRUCTIONS[name](self, argument)
        elif name not in IGNORED:
            raise ValueError(f"the instruction {name} is not allowed in it (nothing was executed)")

    def memoize(self, _: Any) -> None:
        self.memo.append(self.stack[-1])

    def recall(self, index: Any) -> None:
        self.stack.append(self.memo[index])

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key], [value])

    def set_items(self, _: Any) -> None:
        items = []
        while not isinstance(item := self.stack.pop(), _Mark):
            items.append(item)
        self._update(items[::-1][::2], items[::-1][1::2])

    def _update(self, keys: list[Any], values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or any(type(key) not in (str, bytes) for key in keys):
            raise ValueError("only dicts with keys of text or bytes may be filled in it")
        if len(keys) != len(values):
            raise ValueError("it is no well-formed pickle: a key has no value")
        target.update(zip(keys, values, strict=True))

    def named(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(module) is not str or (module, name) != self.allowed:
            found = f"{module}.{name}" if type(module) is type(name) is str else "a name that is not text"
            raise ValueError(
                f"it names {found:.80}; only {'.'.join(self.allowed)} may stand in it (nothing was executed)"
            )
        self.stack.append(_Named())

    def new_object(self, _: Any) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(kind, _Named) or type(arguments) is not tuple:
            raise ValueError("it makes an object of something that is not the class allowed")
        self.stack.append(_Object())

    def build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, _Object):
            raise ValueError("it sets the state of something that is not the object allowed")
        target.state = state


INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MEMOIZE": _Machine.memoize,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "STACK_GLOBAL": _Machine.named,
    "NEWOBJ": _Machine.new_object,
    "BUILD": _Machine.build,
}
