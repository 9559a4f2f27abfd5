"""Small changes of Python functions: mutants that may fail their tests, and rewrites that cannot.

What it is: pure functions from source to source. `mutants` changes one operator, constant or branch;
whether that fails is for an interpreter to say. `rewrites` changes what provably changes nothing: the names
of locals, the two branches of a test, a loop's condition, what stands behind a return. What it is not: a
judge. Run: `pytest tests/test_humaneval.py`.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Mod: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.LtE: ast.Gt,
    ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


# ----------------------------------------------------------------------------- mutants


def mutants(source: str, function: str) -> Iterator[tuple[str, str]]:
    """(what was changed, source) for each single change inside `function`."""
    tree = ast.parse(source)
    count = len(list(ast.walk(_function(tree, function))))
    for index in range(count):
        for change in (_swap, _shift, _negate, _drop):
            mutant = copy.deepcopy(tree)
            node = list(ast.walk(_function(mutant, function)))[index]
            if what := change(node):
                yield f"{what} at line {getattr(node, 'lineno', '?')}", ast.unparse(mutant)


def _function(tree: ast.Module, name: str) -> ast.FunctionDef:
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    return found[-1]


def _swap(node: ast.AST) -> str | None:
    """Another operator."""
    if isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)) and type(node.op) in SWAPS:
        node.op = SWAPS[type(node.op)]()  # type: ignore[assignment]
        return f"now {type(node.op).__name__}"
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        node.ops[0] = SWAPS[type(node.ops[0])]()  # type: ignore[call-overload]
        return f"now {type(node.ops[0]).__name__}"
    return None


def _shift(node: ast.AST) -> str | None:
    """A number that is one larger."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        node.value += 1  # type: ignore[operator]
        return f"now {node.value}"
    return None


def _negate(node: ast.AST) -> str | None:
    """The other branch."""
    if isinstance(node, (ast.If, ast.IfExp)):
        node.test = ast.UnaryOp(ast.Not(), node.test)
        return "negated"
    return None


def _drop(node: ast.AST) -> str | None:
    """A result that is forgotten."""
    if isinstance(node, ast.Return) and node.value is not None:
        node.value = None
        return "returns nothing"
    return None


# ----------------------------------------------------------------------------- rewrites


def rewrites(source: str, function: str) -> Iterator[tuple[str, str]]:
    """(what was done, source) for each rewrite that applies to `function`; all mean the same."""
    tree = ast.parse(source)
    for rewrite in (rename_locals, swap_branches, open_loops, name_results, wrap_body):
        changed = copy.deepcopy(tree)
        rewrite(_function(changed, function))
        text = ast.unparse(ast.fix_missing_locations(changed))
        if text != ast.unparse(tree):
            yield rewrite.__name__, text


def rename_locals(function: ast.FunctionDef) -> None:
    """Give each name that the function assigns another one, if no inner scope or keyword could see it."""
    inner = (
        ast.FunctionDef,
        ast.Lambda,
        ast.ListComp,
        ast.SetComp,
        ast.DictComp,
        ast.GeneratorExp,
        ast.ClassDef,
    )
    nodes = [node for node in ast.walk(function) if node is not function]
    if any(isinstance(node, (*inner, ast.Global, ast.Import, ast.ImportFrom)) for node in nodes):
        return
    names = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names -= {argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg)}
    for node in nodes:
        if isinstance(node, ast.Name) and node.id in names:
            node.id = f"renamed_{node.id}"


class _Transform(ast.NodeTransformer):
    def __init__(self, visit: Callable[[ast.AST], ast.AST | list[ast.stmt]]) -> None:
        self.change = visit

    def generic_visit(self, node: ast.AST) -> ast.AST | list[ast.stmt]:  # type: ignore[override]
        return self.change(super().generic_visit(node))


def swap_branches(function: ast.FunctionDef) -> None:
    """`if a: b else: c` as `if not a: c else: b`: the test is made once either way."""

    def change(node: ast.AST) -> ast.AST:
        if isinstance(node, ast.If) and node.orelse:
            return ast.If(ast.UnaryOp(ast.Not(), node.test), node.orelse, node.body)
        return node

    _Transform(change).visit(function)


def open_loops(function: ast.FunctionDef) -> None:
    """`while a: b` as `while True: if not a: break; b`: also after a `continue` the test comes first."""

    def change(node: ast.AST) -> ast.AST:
        if isinstance(node, ast.While) and not node.orelse:
            leave = ast.If(ast.UnaryOp(ast.Not(), node.test), [ast.Break()], [])
            return ast.While(ast.Constant(True), [leave, *node.body], [])
        return node

    _Transform(change).visit(function)


def name_results(function: ast.FunctionDef) -> None:
    """`return a` as `result_of_this = a; return result_of_this`, a name that no test uses."""

    def change(node: ast.AST) -> ast.AST | list[ast.stmt]:
        if isinstance(node, ast.Return) and node.value is not None:
            name = "result_of_this"
            return [
                ast.Assign([ast.Name(name, ast.Store())], node.value),
                ast.Return(ast.Name(name, ast.Load())),
            ]
        return node

    _Transform(change).visit(function)


def wrap_body(function: ast.FunctionDef) -> None:
    """The body inside `try ... finally: pass`, behind the docstring."""
    start = int(ast.get_docstring(function) is not None)
    if function.body[start:]:
        function.body[start:] = [ast.Try(function.body[start:], [], [], [ast.Pass()])]
