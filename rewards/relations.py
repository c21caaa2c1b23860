"""The relation language: `sum(items[].amount) - discount? + tax? == total`, parsed once, evaluated in exact Decimals.

Grammar:  relation := expression "==" expression;  expression := product (("+" | "-") product)*;
product := operand ("*" operand)*;  operand := number | path["?"] | "sum(" path with [] ")".
A path with ? counts as absent (0) where it is null or missing; without ? its absence makes the relation not applicable.
A relation with [] outside sum() holds for each row on its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<sum>sum\()|(?P<path>[A-Za-z_]\w*(?:\[\])?(?:\.[A-Za-z_]\w*)*)(?P<optional>\??)"
    r"|(?P<equal>==)|(?P<sign>[+\-*])|(?P<close>\)))"
)


class RelationFault(ValueError):
    """reason, and position: the character offset in the relation's text."""

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.position = position


@dataclass(frozen=True, slots=True)
class Operand:
    """A constant, a path, or the sum over a path's rows."""

    path: str | None
    constant: Decimal | None
    summed: bool
    optional: bool


@dataclass(frozen=True, slots=True)
class Term:
    """sign (1 or -1) times the product of its operands."""

    sign: int
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """left == right; `rows` is the array over whose rows it holds, or None; `paths`: all the fields that it names."""

    text: str
    left: tuple[Term, ...]
    right: tuple[Term, ...]
    rows: str | None
    paths: tuple[str, ...]


def parse_relation(text: str) -> Relation:
    """Parses one relation. Faults: RelationFault with the position.

    >>> parse_relation("sum(items[].amount) + tax? == total").paths
    ('items[].amount', 'tax', 'total')
    """
    tokens: list[tuple[str, str, bool, int]] = []
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            at = position + len(text[position:]) - len(text[position:].lstrip())
            raise RelationFault(f"cannot read {text[at : at + 10]!r}", at)
        kind = match.lastgroup if match.lastgroup != "optional" else "path"
        assert kind is not None
        tokens.append((kind, match.group(kind), bool(match.group("optional")), match.start(kind)))
        position = match.end()
    tokens.append(("end", "", False, len(text)))
    index = 0

    def take(kind: str, what: str) -> tuple[str, str, bool, int]:
        nonlocal index
        token = tokens[index]
        if token[0] != kind:
            raise RelationFault(f"expected {what}", token[3])
        index += 1
        return token

    def operand() -> Operand:
        nonlocal index
        kind, value, optional, at = tokens[index]
        if kind == "number":
            index += 1
            return Operand(None, Decimal(value), False, False)
        if kind == "sum":
            index += 1
            _, path, inner_optional, path_at = take("path", "a path with [] in sum()")
            if "[]" not in path or inner_optional:
                raise RelationFault("sum() takes a path with [], without ?", path_at)
            take("close", "a closing bracket")
            return Operand(path, None, True, False)
        if kind == "path":
            index += 1
            return Operand(value, None, False, optional)
        raise RelationFault("expected a field, a number or sum(...)", at)

    def expression() -> tuple[Term, ...]:
        nonlocal index
        sign, terms = 1, []
        while True:
            operands = [operand()]
            while tokens[index][1] == "*":
                index += 1
                operands.append(operand())
            terms.append(Term(sign, tuple(operands)))
            if tokens[index][0] != "sign":
                return tuple(terms)
            sign = 1 if tokens[index][1] == "+" else -1
            index += 1

    left = expression()
    take("equal", "==")
    right = expression()
    if tokens[index][0] != "end":
        raise RelationFault("expected the end", tokens[index][3])
    operands = [o for term in (*left, *right) for o in term.operands if o.path is not None]
    paths = tuple(dict.fromkeys(o.path for o in operands if o.path is not None))
    rows = {o.path.split("[]")[0] for o in operands if o.path is not None and "[]" in o.path and not o.summed}
    if len(rows) > 1:
        raise RelationFault("rows of two arrays in one relation", 0)
    return Relation(text, left, right, rows.pop() if rows else None, paths)


def evaluate(
    terms: tuple[Term, ...], scalars: Mapping[str, Decimal | None], sums: Mapping[str, Decimal]
) -> Decimal | None:
    """The value of one side, or None where an operand without ? is absent.

    scalars: path -> value or None (row paths hold the row at hand).  sums: path -> sum over its rows.
    """
    total = Decimal(0)
    for term in terms:
        product = Decimal(term.sign)
        for operand in term.operands:
            if operand.constant is not None:
                product *= operand.constant
                continue
            assert operand.path is not None
            value = sums.get(operand.path) if operand.summed else scalars.get(operand.path)
            if value is None:
                if not operand.optional:
                    return None
                product = Decimal(0)
            else:
                product *= value
        total += product
    return total
