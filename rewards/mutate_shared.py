"""What the edits of `rewards.mutants` share: the page that they read, and small tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any

from rewards import normalize
from rewards.document import DocumentIndex
from rewards.plan import FieldPlan, Plan
from rewards.task import Task

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """A document as the edits read it."""

    task: Task
    plan: Plan
    index: DocumentIndex


# (page, a copy of gold that may be changed, rng) -> (path, the whole answer after the edit), none where it cannot be.
Edit = Callable[[Page, Answer, Random], Iterator[tuple[str, Answer]]]

# Kinds that nobody can tell without gold on every page that has them: why.
INVISIBLE: Mapping[str, str] = {
    "date_elsewhere": "a page with two dates and no label beside either does not say which one is its own",
    "record_names_swapped": "where proposals are described far from their counts (Proposal 1), or in words that two of "
    "them share, the words beside the counts do not say which is whose",
}
INVENTED = ("PREMIUM", "DELUXE", "GLOBAL", "ORGANIC", "CLASSIC")
LOOKALIKE = str.maketrans("ABEKMHOPCTXaeopcyx", "АВЕКМНОРСТХаеорсух")


def get(value: Any, path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def put(value: Answer, path: str, given: Any) -> Answer:
    """The same answer with another value at a dotted path."""
    *above, key = path.split(".")
    result = below = dict(value)
    for name in above:
        below[name] = below = dict(below.get(name) or {})
    below[key] = given
    return result


def without(value: Answer, path: str) -> Answer:
    """The same answer without an optional key at the top."""
    return {key: given for key, given in value.items() if key != path}


def of_kind(plan: Plan, *kinds: str) -> Iterator[FieldPlan]:
    """The scalar fields of these kinds."""
    for field in plan.scalars.values():
        if field.spec.kind in kinds:
            yield field


def text(number: Decimal, like: Any) -> Any:
    """A number, written as the gold value `like` is: a string with as many decimals, or a JSON number."""
    if isinstance(like, str):
        decimals = len(like.partition(".")[2])
        return f"{number:.{decimals}f}"
    return int(number) if isinstance(like, int) and number == int(number) else float(number)


def digit_changed(given: Any, rng: Random) -> Any:
    """The number with one digit changed, never to zero digits more or less."""
    if not isinstance(given, str):
        number = normalize.amount(given)
        return given if number is None else text(number + rng.choice([1, 10, -1]), given)
    places = [i for i, char in enumerate(given) if char.isdigit()]
    first = places[0]
    at = rng.choice(places)
    choices = [d for d in "0123456789" if d != given[at] and not (at == first and d == "0" and len(places) > 1)]
    return given[:at] + rng.choice(choices) + given[at + 1 :]


def scaled(given: Any, rng: Random) -> Any:
    """The number times 10, 100 or 1,000: a slip of the decimal mark."""
    number = normalize.amount(given)
    return given if not number else text(number * rng.choice([10, 100, 1000]), given)


def names_of(page: Page, gold: Answer) -> list[str]:
    """All text values of gold."""
    found = [value for field in of_kind(page.plan, "text") if isinstance(value := get(gold, field.path), str)]
    for array, rows in page.plan.rows.items():
        found += [str(row.get(rows.spec.name)) for row in gold.get(array) or []]
    return found
