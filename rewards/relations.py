"""The relation language: `sum(items[].amount) - discount? + tax? == total`, parsed once, evaluated in exact Decimals.

Grammar:
  relation   := ( expression "==" expression | "same(" expression ")" ) [ "if" condition ]
  expression := product (("+" | "-") product)*          product := operand (("*" | "/") operand)*
  operand    := number | path["?"] | "(" expression ")" | "sum(" expression ")" | "round(" expression ["," places] ")"
  condition  := clause ("or" clause)*                   clause  := ["not"] path ("and" ["not"] path)*

A path with ? counts as 0 where it is null or missing; without ? its absence makes the relation not applicable. A path
with [] inside sum() runs over the rows, outside it the relation holds for each row on its own. same(...) says that the
expression has one value over all rows. round() is half up, to cents unless `places` says otherwise; nothing else is
ever rounded. `if a and not b`: the relation applies only where a is given and not zero, and b is absent or zero.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, Literal, NoReturn

from rewards.normalize import amount

MAX_CHARACTERS = 500
MAX_DEPTH = 12

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<call>(?:sum|same|round)\()|(?P<word>(?:if|and|or|not)\b)"
    r"|(?P<path>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:\[\])?(?:\.[A-Za-z_]\w*)*)(?P<optional>\??)"
    r"|(?P<equal>==)|(?P<sign>[+\-*/])|(?P<open>\()|(?P<close>\))|(?P<comma>,))"
)
# Fifteen digits times fifteen digits stay exact; only a division can be cut.
_EXACT = Context(prec=80)
_ZERO = Decimal(0)


class RelationFault(ValueError):
    """reason, and position: the character offset in the relation's text."""

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.position = position


@dataclass(frozen=True, slots=True)
class Path:
    """A field: `array` is the array over whose rows it stands, or None; `keys` lead to it there; `position`: where it
    stands in the relation's text."""

    text: str
    optional: bool
    position: int
    array: str | None
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Constant:
    value: Decimal


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum of `inner`, written `text`, over the rows of `array`."""

    inner: Expression
    array: str
    text: str


@dataclass(frozen=True, slots=True)
class Round:
    """`inner`, half up, to a multiple of `step`."""

    inner: Expression
    step: Decimal


@dataclass(frozen=True, slots=True)
class Binary:
    sign: str
    left: Expression
    right: Expression


Expression = Path | Constant | Sum | Round | Binary


@dataclass(frozen=True, slots=True)
class Relation:
    """left == right (kind "equal"), or left the same over all rows (kind "same": `right` is None).

    rows: the array over whose rows it holds, or None.  operands: every field of the two sides, as often as it stands
    there.  paths: their names and those of the condition, once each.  condition: one of these alternatives must hold,
    in it every (path, wanted) pair; () is "always".
    """

    text: str
    kind: Literal["equal", "same"]
    left: Expression
    right: Expression | None
    rows: str | None
    operands: tuple[Path, ...]
    condition: tuple[tuple[tuple[Path, bool], ...], ...] = ()
    paths: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        named = [*self.operands, *(path for clause in self.condition for path, _ in clause)]
        object.__setattr__(self, "paths", tuple(dict.fromkeys(path.text for path in named)))

    def named(self) -> Iterator[Path]:
        """Every field that the relation names, with its position."""
        yield from self.operands
        for clause in self.condition:
            for path, _ in clause:
                yield path


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    value: str
    optional: bool
    at: int


def parse_relation(text: str) -> Relation:
    """Parses one relation. Faults: RelationFault with the position.

    >>> parse_relation("sum(items[].amount) + tax? == total if not prepaid").paths
    ('items[].amount', 'tax', 'total', 'prepaid')
    """
    return _Parser(text).relation()


class _Parser:
    def __init__(self, text: str) -> None:
        if len(text) > MAX_CHARACTERS:
            raise RelationFault(f"longer than {MAX_CHARACTERS} characters", MAX_CHARACTERS)
        self.text = text
        self.tokens = _tokens(text)
        self.index = 0
        self.depth = 0
        self.operands: list[Path] = []

    def relation(self) -> Relation:
        if self.at.value == "same(":
            start = self.take("call", "same(").at
            first = len(self.operands)
            left, right = self.expression(), None
            self.take("close", "a closing bracket")
            arrays = {path.array for path in self.operands[first:] if path.array}
            if len(arrays) != 1:
                raise RelationFault("same() takes fields of one array, such as rows[].a", start)
            kind: Literal["equal", "same"] = "same"
            rows: str | None = arrays.pop()
        else:
            kind = "equal"
            left = self.expression()
            self.take("equal", "==")
            right = self.expression()
            rows = self.row_array(left, right)
        condition: list[tuple[tuple[Path, bool], ...]] = []
        if self.at.value == "if":
            self.index += 1
            condition.append(self.clause())
            while self.at.value == "or":
                self.index += 1
                condition.append(self.clause())
        if self.at.kind != "end":
            raise RelationFault("expected the end", self.at.at)
        for clause in condition:
            for path, _ in clause:
                if path.array is not None and path.array != rows:
                    raise RelationFault(
                        f"{path.text}: the condition's rows are not those of the relation", path.position
                    )
        return Relation(self.text, kind, left, right, rows, tuple(self.operands), tuple(condition))

    @property
    def at(self) -> _Token:
        return self.tokens[self.index]

    def take(self, kind: str, what: str) -> _Token:
        token = self.at
        if token.kind != kind:
            raise RelationFault(f"expected {what}", token.at)
        self.index += 1
        return token

    def expression(self) -> Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise RelationFault(f"brackets deeper than {MAX_DEPTH}", self.at.at)
        left = self.product()
        while self.at.kind == "sign" and self.at.value in "+-":
            sign = self.take("sign", "a sign").value
            left = Binary(sign, left, self.product())
        self.depth -= 1
        return left

    def product(self) -> Expression:
        left = self.operand()
        while self.at.kind == "sign" and self.at.value in "*/":
            sign = self.take("sign", "a sign").value
            left = Binary(sign, left, self.operand())
        return left

    def operand(self) -> Expression:
        token = self.at
        if token.kind == "number":
            self.index += 1
            return Constant(Decimal(token.value))
        if token.kind == "path":
            self.index += 1
            path = _path(token)
            self.operands.append(path)
            return path
        if token.kind == "open":
            self.index += 1
            inner = self.expression()
            self.take("close", "a closing bracket")
            return inner
        if token.value == "sum(":
            return self.summed()
        if token.value == "round(":
            return self.rounded()
        if token.value == "same(":
            raise RelationFault("same(...) stands alone, without ==", token.at)
        raise RelationFault("expected a field, a number, sum(...) or round(...)", token.at)

    def summed(self) -> Sum:
        self.take("call", "sum(")
        start, first = self.at.at, len(self.operands)
        inner = self.expression()
        end = self.take("close", "a closing bracket").at
        arrays = {path.array for path in self.operands[first:] if path.array}
        if len(arrays) != 1:
            raise RelationFault("sum() takes fields of one array, such as rows[].a", start)
        if any(isinstance(node, Sum) for node in _walk(inner)):
            raise RelationFault("sum() inside sum()", start)
        return Sum(inner, arrays.pop() or "", self.text[start:end])

    def rounded(self) -> Round:
        self.take("call", "round(")
        inner = self.expression()
        step = Decimal("0.01")
        if self.at.kind == "comma":
            self.index += 1
            places = self.take("number", "the number of places")
            if places.value not in ("0", "1", "2", "3", "4", "5", "6"):
                raise RelationFault("places: 0 to 6", places.at)
            step = Decimal(1).scaleb(-int(places.value))
        self.take("close", "a closing bracket")
        return Round(inner, step)

    def clause(self) -> tuple[tuple[Path, bool], ...]:
        found = []
        while True:
            wanted = self.at.value != "not"
            self.index += not wanted
            token = self.take("path", "a field")
            if token.optional:
                raise RelationFault("a field in a condition has no ?", token.at)
            found.append((_path(token), wanted))
            if self.at.value != "and":
                return tuple(found)
            self.index += 1

    def row_array(self, *sides: Expression) -> str | None:
        """The array whose rows stand outside sum()."""
        outside = [node for side in sides for node in _walk(side, into_sums=False) if isinstance(node, Path)]
        arrays = [path for path in outside if path.array is not None]
        for path in arrays:
            if path.array != arrays[0].array:
                raise RelationFault(
                    f"rows of two arrays in one relation: {arrays[0].array}, {path.array}", path.position
                )
        return arrays[0].array if arrays else None


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            _unreadable(text, position)
        kind = "path" if match.lastgroup == "optional" else match.lastgroup
        assert kind is not None
        tokens.append(_Token(kind, match.group(kind), bool(match.group("optional")), match.start(kind)))
        position = match.end()
    tokens.append(_Token("end", "", False, len(text)))
    return tokens


def _unreadable(text: str, position: int) -> NoReturn:
    at = position + len(text[position:]) - len(text[position:].lstrip())
    hint = "; equality is ==" if text[at] == "=" else ""
    raise RelationFault(f"cannot read {text[at : at + 10]!r}{hint}", at)


def _path(token: _Token) -> Path:
    array, rows, leaf = token.value.partition("[]")
    if rows and not leaf:
        raise RelationFault(f"{token.value}: which field of the rows? write {token.value}.field", token.at)
    keys = (leaf.lstrip(".") if rows else array).split(".")
    return Path(token.value, token.optional, token.at, array if rows else None, tuple(keys))


def _walk(node: Expression, into_sums: bool = True) -> Iterator[Expression]:
    yield node
    if isinstance(node, Binary):
        yield from _walk(node.left, into_sums)
        yield from _walk(node.right, into_sums)
    elif isinstance(node, Round) or (isinstance(node, Sum) and into_sums):
        yield from _walk(node.inner, into_sums)


def at_path(value: Any, keys: tuple[str, ...]) -> Any:
    """What stands under nested keys; None where there is nothing."""
    for key in keys:
        # The type of what json reads is asked first: Mapping is an abstract class, and slow to ask.
        value = value.get(key) if type(value) is dict or isinstance(value, Mapping) else None
    return value


def rows_of(value: Any, array: str) -> list[Any]:
    """The rows of an array of an attempt; [] where there is none."""
    found = at_path(value, tuple(array.split(".")))
    return found if isinstance(found, list) else []


def evaluate(
    node: Expression,
    value: Mapping[str, Any],
    row: Mapping[str, Any] | None = None,
    missing: Decimal | None = None,
    sums: dict[str, Decimal | None] | None = None,
) -> Decimal | None:
    """The value of an expression over an attempt, and over one of its rows; None where an operand without ? is absent,
    a sum has no rows, or the divisor is 0. `missing` stands in for absent operands without ?; `sums` keeps the sums of
    one attempt for the next expression over it."""
    if isinstance(node, Path):
        found = amount(at_path(row if node.array is not None else value, node.keys))
        return found if found is not None else _ZERO if node.optional else missing
    if isinstance(node, Binary):
        left = evaluate(node.left, value, row, missing, sums)
        right = evaluate(node.right, value, row, missing, sums)
        return None if left is None or right is None else _apply(node.sign, left, right)
    if isinstance(node, Constant):
        return node.value
    if isinstance(node, Round):
        whole = evaluate(node.inner, value, row, missing, sums)
        return None if whole is None else whole.quantize(node.step, rounding=ROUND_HALF_UP, context=_EXACT)
    if sums is None:
        return _sum(node, value, missing)
    if node.text not in sums:
        sums[node.text] = _sum(node, value, missing)
    return sums[node.text]


def _sum(node: Sum, value: Mapping[str, Any], missing: Decimal | None) -> Decimal | None:
    rows = rows_of(value, node.array)
    if not rows:
        return missing
    total = _ZERO
    inner = node.inner
    column = inner if isinstance(inner, Path) and inner.array is not None else None
    absent = _ZERO if column is not None and column.optional else missing
    for each in rows:
        if column is not None:  # sum(items[].amount), without a call for each row
            part = amount(at_path(each, column.keys))
            part = absent if part is None else part
        else:
            part = evaluate(inner, value, each, missing)
        if part is None:
            return None
        total = _EXACT.add(total, part)
    return total


def _apply(sign: str, left: Decimal, right: Decimal) -> Decimal | None:
    if sign == "+":
        return _EXACT.add(left, right)
    if sign == "-":
        return _EXACT.subtract(left, right)
    if sign == "*":
        return _EXACT.multiply(left, right)
    return _EXACT.divide(left, right) if right else None


def applies(relation: Relation, value: Mapping[str, Any], row: Mapping[str, Any] | None = None) -> bool:
    """Whether the relation's condition holds; a zero and an empty array are as good as absent."""
    return not relation.condition or any(
        all(_given(at_path(row if path.array is not None else value, path.keys)) == wanted for path, wanted in clause)
        for clause in relation.condition
    )


def _given(found: Any) -> bool:
    number = amount(found)
    return bool(found) if number is None else bool(number)
