"""The calculator that a model calls while it writes a reply: `calculate("12 * (3 + 4)") == "84"`.

What it is: a recursive-descent parser over exact fractions, total on any text, microseconds long. It
never evaluates Python, so there is nothing to escape from: no names, no attributes, no power, and no
number larger than 1e15 ever comes into being. What it is not: Python; programs run in `execution.py`.

    expression = term (("+" | "-") term)*
    term       = sign (("*" | "/" | "//" | "%") sign)*
    sign       = ("-" | "+") sign | atom
    atom       = number | "(" expression ")" | string ".count(" string ")" | "len(" string ")"

Try it: `python -c "from nanochat.calculator import calculate; print(calculate('1,250 / 4'))"`
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Final

MAX_CHARACTERS: Final = 200  # also bounds the digits of every numerator and denominator
MAX_MAGNITUDE: Final = 10**15
MAX_DEPTH: Final = 32  # of brackets and signs
DECIMALS: Final = 6

# A comma belongs to a number only where it separates thousands: "1,250" is a number, "1,5" is not.
_NUMBER = r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
_STRING = r'"[^"\\\n]*"|' r"'[^'\\\n]*'"
_TOKEN = re.compile(rf"\s*({_NUMBER}|{_STRING}|//|[-+*/%()]|\.count|len)\s*")

_SUMS: Final[dict[str, Callable[[Fraction, Fraction], Fraction]]] = {"+": operator.add, "-": operator.sub}
_PRODUCTS: Final[dict[str, Callable[[Fraction, Fraction], Fraction]]] = {
    "*": operator.mul,
    "/": operator.truediv,
    "//": lambda a, b: Fraction(a // b),
    "%": operator.mod,
}


def calculate(expression: str) -> str | None:
    """The value of an arithmetic expression as text, or None if it is not one (or is too large).

    `+ - * / // %` with Python's meaning, brackets, signs, integers and decimals with optional thousands
    separators, `"word".count("r")` and `len("word")`. Whole results have no decimal point, others at
    most six decimals (rounded half to even). Never raises.
    """
    if len(expression) > MAX_CHARACTERS:
        return None
    try:
        parser = _Parser(_tokens(expression))
        value = parser.chain(_SUMS)
        return None if parser.token else _text(value)
    except (ValueError, ZeroDivisionError):
        return None


def _tokens(expression: str) -> list[str]:
    tokens, end = [], 0
    while end < len(expression):
        match = _TOKEN.match(expression, end)
        if match is None:
            raise ValueError(f"no token at character {end}")
        tokens.append(match[1])
        end = match.end()
    return tokens


def _text(value: Fraction) -> str:
    rounded = round(value, DECIMALS)
    whole, decimals = divmod(abs(rounded) * 10**DECIMALS, 10**DECIMALS)
    sign = "-" if rounded < 0 else ""
    return f"{sign}{whole}.{int(decimals):0{DECIMALS}d}".rstrip("0").rstrip(".")


class _Parser:
    """One pass over the tokens; ValueError wherever the grammar or a limit refuses."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    @property
    def token(self) -> str:
        """The token ahead, or the empty string at the end."""
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def chain(self, operators: dict[str, Callable[[Fraction, Fraction], Fraction]]) -> Fraction:
        """A left-associative chain: of terms for the sums, of signed atoms for the products."""
        operand = self._term if operators is _SUMS else self._signed
        value = operand()
        while self.token in operators:
            value = operators[self._take()](value, operand())
            if abs(value) > MAX_MAGNITUDE:
                raise ValueError("too large")
        return value

    def _take(self, *expected: str) -> str:
        token = self.token
        if not token or (expected and token not in expected):
            raise ValueError(f"unexpected {token!r}")
        self._next += 1
        return token

    def _term(self) -> Fraction:
        return self.chain(_PRODUCTS)

    def _signed(self) -> Fraction:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError("too deep")
        token = self._take()
        value = self._signed() if token in _SUMS else self._atom(token)
        self._depth -= 1
        return -value if token == "-" else value

    def _atom(self, token: str) -> Fraction:
        if token == "(":
            value = self.chain(_SUMS)
            self._take(")")
        elif token == "len":
            value = Fraction(len(self._argument()))
        elif token[0] in "\"'":
            self._take(".count")
            value = Fraction(token[1:-1].count(self._argument()))
        else:
            value = Fraction(token.replace(",", ""))
        if abs(value) > MAX_MAGNITUDE:
            raise ValueError("too large")
        return value

    def _argument(self) -> str:
        self._take("(")
        token = self._take()
        if token[0] not in "\"'":
            raise ValueError(f"{token!r} is not a string")
        self._take(")")
        return token[1:-1]
