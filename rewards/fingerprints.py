"""Fingerprints: what the answers of a step look like, whatever the reward says of them. Gold is never read.

A policy that found a hole in its reward changes its looks: nulls, fewer or repeated rows, one answer for all documents,
the document copied, values that are printed nowhere. rl/monitor.py watches these numbers.

Answers that do not parse are left out (they are counted elsewhere): what form alone moves is no fingerprint.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewards import normalize
from rewards.document import DocumentIndex, read
from rewards.parse import Attempt, parse
from rewards.task import Task

ABOUT: Mapping[str, str] = {
    "null_share": "share of the schema's required scalars that are null",
    "empty_share": "share of the answers without a row in any array",
    "rows": "rows in an answer",
    "rows_per_line": "rows in an answer, for each line of the document that shows an amount",
    "repeated_rows": "share of the rows that an earlier row of the same answer has said",
    "length": "characters of the answer's values, for each character of the document",
    "copied": "share of the document's words that stand in the answer",
    "unprinted": "share of the values (dates aside) that the document does not print",
    "constant_share": "share of the answers that are also the answer to another document",
    "distinct": "by field: distinct values, for each document that has one (the value that most of its answers give)",
    "entropy": "by field: bits of the values' entropy that the document explains, of the bits that it could",
}
"""Every fingerprint, in words. `distinct` and `entropy` have one number a field: "distinct/vendor"."""


@dataclass(frozen=True, slots=True)
class _Looks:
    """One answer: its text in canonical form, its fields' values as text, and its own numbers."""

    said: str
    fields: dict[str, str]
    numbers: dict[str, float]


def fingerprints(task: Task, groups: Sequence[tuple[str, Sequence[str]]]) -> dict[str, float]:
    """Name -> number, over the answers of one step: (text of a document, its completions). NaN where nothing says it.

    The number of each document is the mean of its answers, and each document counts alike.
    """
    scalars = [path for path in task.fields if "[]" not in path]
    arrays = list(dict.fromkeys(path.split("[]")[0] for path in task.fields if "[]" in path))
    looks: list[list[_Looks]] = []
    for text, completions in groups:
        index = read(text)
        known: dict[str, _Looks | None] = {}
        for completion in completions:
            if completion not in known:
                attempt = parse(completion)
                known[completion] = (
                    _looks(task, scalars, arrays, index, attempt.value) if isinstance(attempt, Attempt) else None
                )
        row = [found for completion in completions if (found := known[completion]) is not None]
        if row:
            looks.append(row)
    names = dict.fromkeys(name for row in looks for one in row for name in one.numbers)
    result = {
        name: _mean([_mean([one.numbers[name] for one in row if name in one.numbers]) for row in looks])
        for name in names
    }
    result["constant_share"] = _constant_share(looks)
    for field in (*scalars, *arrays):
        values = [Counter(one.fields[field] for one in row if field in one.fields) for row in looks]
        result[f"distinct/{field}"] = _distinct(values)
        result[f"entropy/{field}"] = _entropy(values)
    return result


def _looks(
    task: Task, scalars: Sequence[str], arrays: Sequence[str], index: DocumentIndex, value: Mapping[str, Any]
) -> _Looks:
    given = {path: _get(value, path) for path in scalars}
    rows = {array: _rows(value, array) for array in arrays}
    said = [json.dumps([array, row], sort_keys=True) for array in arrays for row in rows[array]]
    required = [path for path in scalars if path.split(".")[0] in task.schema.get("required", ())]
    texts = [(task.fields[path].kind, str(v)) for path, v in given.items() if v is not None]
    for array in arrays:
        for row in rows[array]:
            for leaf, v in row.items():
                if v is not None and (spec := task.fields.get(f"{array}[].{leaf}")) is not None:
                    texts.append((spec.kind, str(v)))
    numbers: dict[str, float] = {}
    if required:
        numbers["null_share"] = sum(given[path] in (None, "") for path in required) / len(required)
    if arrays:
        numbers["empty_share"] = float(not said)
        numbers["rows"] = float(len(said))
        numbers["rows_per_line"] = len(said) / max(sum(bool(line.money) for line in index.lines), 1)
        numbers["repeated_rows"] = 1.0 - len(set(said)) / len(said) if said else 0.0
    numbers["length"] = sum(len(text) for _, text in texts) / max(len(index.text), 1)
    page = _page(index)
    words = Counter(word for _, text in texts for word in normalize.words(text))
    numbers["copied"] = (page & words).total() / max(page.total(), 1)
    checked = [_printed(index, page, kind, text) for kind, text in texts if kind not in ("date", "class")]
    if checked:
        numbers["unprinted"] = 1.0 - sum(checked) / len(checked)
    fields = {path: json.dumps(v) for path, v in given.items()}
    fields |= {array: json.dumps(rows[array], sort_keys=True) for array in arrays}
    return _Looks(json.dumps(value, sort_keys=True), fields, numbers)


def _rows(value: Mapping[str, Any], array: str) -> list[Mapping[str, Any]]:
    found = value.get(array)
    return [row for row in found if isinstance(row, Mapping)] if isinstance(found, list) else []


def _get(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, (str, int, float)) else None


def _page(index: DocumentIndex) -> Counter[str]:
    """The document's words, counted."""
    found = index.cache.get("counted words")
    if found is None:
        found = index.cache["counted words"] = Counter(word for line in index.lines for word in line.words)
    return found


def _printed(index: DocumentIndex, page: Counter[str], kind: str, text: str) -> bool:
    if kind in ("money", "number"):
        amount = normalize.amount(text)
        return amount is not None and any(abs(number.value) == abs(amount) for number in index.numbers)
    return all(word in page for word in normalize.words(text))


def _constant_share(looks: Sequence[Sequence[_Looks]]) -> float:
    if len(looks) < 2:
        return math.nan
    of: Counter[str] = Counter(said for row in looks for said in {one.said for one in row})
    return _mean([_mean([float(of[one.said] > 1) for one in row]) for row in looks])


def _distinct(values: Sequence[Counter[str]]) -> float:
    """Distinct values for each document with one, each document by the value that most of its answers give; NaN where
    fewer than half of the documents have one: two receipts of eight may well be rounded alike."""
    modes = [max(sorted(counts), key=counts.__getitem__) for counts in values if counts]
    given = [mode for mode in modes if mode not in ("null", "[]")]
    return len(set(given)) / len(given) if len(given) > 1 and 2 * len(given) >= len(modes) else math.nan


def _entropy(values: Sequence[Counter[str]]) -> float:
    """Mutual information of document and value over log2 of the documents: 1 where each has its own, 0 where all are
    alike. What the answers to one document differ among themselves is taken off, so that a policy that merely grows
    sure does not move it. Null is a value."""
    shares = [{v: n / counts.total() for v, n in counts.items()} for counts in values if counts]
    if len(shares) < 2:
        return math.nan
    pooled: Counter[str] = Counter()
    for one in shares:
        for value, share in one.items():
            pooled[value] += share / len(shares)  # type: ignore[assignment]
    return (_bits(pooled.values()) - _mean([_bits(one.values()) for one in shares])) / math.log2(len(shares))


def _bits(shares: Any) -> float:
    return -math.fsum(share * math.log2(share) for share in shares if share > 0)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if value == value]
    return math.fsum(known) / len(known) if known else math.nan
