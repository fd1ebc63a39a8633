"""Small faults to plant in a module: one comparison, constant, condition or statement at a time, in its SQL too.

Left alone is what says nothing about behaviour: annotations, decorators, docstrings, log calls, assertions (which are
for the type checker), and the texts of messages.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A piece of a source text, and what to put in its place."""

    start: int
    end: int
    text: bytes

    def applied_to(self, source: bytes) -> bytes:
        return source[: self.start] + self.text + source[self.end :]

    def line(self, source: bytes) -> int:
        return source.count(b"\n", 0, self.start) + 1

    def lines(self, source: bytes) -> tuple[str, str]:
        """The line before and after."""
        number = self.line(source) - 1
        before, after = source.splitlines()[number], self.applied_to(source).splitlines()[number]
        return before.decode().strip(), after.decode().strip()


def mutants(source: bytes) -> list[Mutant]:
    """All that can be planted in a module, in the order of the text."""
    starts = [0, *(match.end() for match in re.finditer(b"\n", source))]
    found = []
    for node, texts in _faults(ast.parse(source)):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        if isinstance(node, ast.expr) and _is_sql(node):
            found += _in_sql(source, start, end)
        found += [Mutant(start, end, text.encode()) for text in texts]
    return sorted(set(found), key=lambda mutant: (mutant.start, mutant.text))


_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}


def _faults(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, list[str]]]:
    """Every statement and expression, and what may stand there instead."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_comment"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _says_nothing(child):
                continue
            if name == "test" and isinstance(child, ast.Name | ast.Attribute | ast.Call | ast.NamedExpr):
                yield child, [f"(not ({ast.unparse(child)}))"]
            if isinstance(child, ast.stmt):
                yield child, _instead_of_statement(child)
            elif isinstance(child, ast.expr):
                yield child, [f"({text})" for text in _instead_of_expression(child)]
            # Before Python 3.12 what stands in an f-string does not know its place.
            if not isinstance(child, ast.JoinedStr):
                yield from _faults(child)


def _says_nothing(node: ast.AST) -> bool:
    match node:
        case ast.Expr(ast.Constant()) | ast.Assert() | ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(ast.Call(ast.Attribute(ast.Name("_log")))):
            return True
        case ast.If(ast.Name("TYPE_CHECKING")):
            return True
        case ast.Assign(value=ast.Call(ast.Name("TypeVar" | "ParamSpec"))):
            return True
    return False


def _instead_of_statement(node: ast.stmt) -> list[str]:
    match node:
        case ast.Return(ast.expr() as value) if not isinstance(value, ast.Constant) or value.value:
            return ["return None"]
        case ast.Continue():
            return ["break"]
        case ast.Break():
            return ["continue"]
        case ast.Expr(ast.Call() | ast.Await()) | ast.Raise() | ast.Delete():
            return ["pass"]
        case ast.Assign([ast.Attribute() | ast.Subscript()]):
            return ["pass"]
        case ast.AugAssign():
            other = _OPERATORS.get(type(node.op))
            swapped = [ast.unparse(ast.AugAssign(node.target, other(), node.value))] if other else []
            return ["pass", *swapped]
    return []


def _instead_of_expression(node: ast.expr) -> list[str]:
    match node:
        case ast.Compare():
            return [
                ast.unparse(
                    ast.Compare(node.left, [*node.ops[:at], other(), *node.ops[at + 1 :]], node.comparators)
                )
                for at, op in enumerate(node.ops)
                for other in _COMPARISONS[type(op)]
            ]
        case ast.BoolOp():
            other_op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            return [ast.unparse(ast.BoolOp(other_op, node.values))]
        case ast.UnaryOp(ast.Not()):
            return [ast.unparse(node.operand)]
        case ast.UnaryOp(ast.USub()):
            return [ast.unparse(node.operand)]
        case ast.BinOp() if type(node.op) in _OPERATORS:
            return [ast.unparse(ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right))]
        case ast.Constant(bool() as value):
            return [str(not value)]
        case ast.Constant(int() | float() as value):
            return [repr(value + 1)]
    return []


# SQL

_SQL = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|WHERE|json_array)\b|^\s*\w+\.\w+ = .* AND ", re.MULTILINE)
_IN_SQL: list[tuple[bytes, bytes]] = [
    (rb" <= ", b" < "),
    (rb" >= ", b" > "),
    (rb" < ", b" <= "),
    (rb" > ", b" >= "),
    (rb" <> ", b" = "),
    (rb" IS NULL", b" IS NOT NULL"),
    (rb" IS NOT NULL", b" IS NULL"),
    (rb"\bmin\(", b"max("),
    (rb"\bmax\(", b"min("),
    (rb" \+ ", b" - "),
    (rb" - ", b" + "),
    (rb"\bAND\b", b"OR"),
    (rb" OR (?=IGNORE|REPLACE)(IGNORE|REPLACE)", b""),
    (rb" LIMIT \S+?(?=[\s)])", b""),
    (rb" ORDER BY [\w.]+( DESC)?", b""),
    (rb" DESC\b", b""),
    (rb"\bUNION ALL\b", b"UNION"),
    (rb"(?<=->> )\d+", b"%d"),
    (rb"(?<=[ (])\d+(?=[ ,)])", b"%d"),
]


def _is_sql(node: ast.expr) -> bool:
    if isinstance(node, ast.JoinedStr):
        texts = [each.value for each in node.values if isinstance(each, ast.Constant)]
        return _SQL.search(" ".join(map(str, texts))) is not None
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(_SQL.search(node.value))


def _in_sql(source: bytes, start: int, end: int) -> Iterator[Mutant]:
    text = source[start:end]
    for pattern, instead in _IN_SQL:
        for match in re.finditer(pattern, text):
            after = b"%d" % (int(match[0]) + 1) if instead == b"%d" else instead
            yield Mutant(start + match.start(), start + match.end(), after)
    for match in re.finditer(rb" = ", text):
        # An assignment is no comparison.
        words = re.findall(rb"\b(SET|WHERE|AND|OR|ON)\b", text[: match.start()])
        if not words or words[-1] != b"SET":
            yield Mutant(start + match.start(), start + match.end(), b" <> ")
