"""What a rubric does with completions that are out to break it: it gives each a verdict, soon, the same everywhere."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

from rewards.document import Document
from rewards.fuzz import HOSTILE, compact, group
from rewards.rubric import Rubric, RubricScore
from rewards.task import Task

LIMIT_MS = 50.0
SAY_EVERY = 50_000
_MEGA = 10 * 2**20


def bombs(gold: str, source: str) -> Mapping[str, Callable[[], str]]:
    """Completions that cost a careless reader its time, its memory or its stack, by name; made when called."""
    value: dict[str, Any] = json.loads(gold)
    array = next((key for key, below in value.items() if isinstance(below, list) and below), None)
    row = value[array][0] if array else None
    lines = [line.strip() for line in source.split("\n") if line.strip()]

    def rows(make: Callable[[int], dict[str, Any]], count: int) -> str:
        return compact(value if array is None else {**value, array: [make(i) for i in range(count)]})

    def text(i: int, long: str) -> dict[str, Any]:
        keys = [key for key, below in (row or {}).items() if isinstance(below, str) and not below[-1:].isdigit()]
        return {**(row or {}), **dict.fromkeys(keys[:1], long)}

    deep = {
        "objects": '{"a":' * 1_000_000,
        "arrays": '{"a":' + "[" * 1_000_000,
        "closed": '{"a":' + "[" * 30_000 + "]" * 30_000 + "}",
        "at the limit": '{"a":' + "[" * 15 + "]" * 15 + "}",
    }
    return {
        **{f"deep {name}": lambda made=made: made for name, made in deep.items()},  # type: ignore[misc]
        "many arrays": lambda: '{"a":[' + "[]," * 2_480 + "[]]}",
        "too many arrays": lambda: '{"a":[' + "[]," * 21_000 + "[]]}",
        "digits": lambda: '{"a":' + "9" * 60_000 + "}",
        "more digits": lambda: '{"a":' + "9" * _MEGA + "}",
        "digits behind the point": lambda: '{"a":0.' + "1" * 60_000 + "}",
        "digits of the exponent": lambda: '{"a":1e' + "9" * 60_000 + "}",
        "many numbers": lambda: '{"a":[' + "1e5," * 4_990 + "1]}",
        "too many numbers": lambda: '{"a":[' + "1e5," * 15_000 + "1]}",
        "digits in a string": lambda: compact({**value, **dict.fromkeys(value, "9" * 9_000)}),
        "a string of 10 MB": lambda: '{"a":"' + "x" * _MEGA + '"}',
        "a string": lambda: '{"a":"' + "x" * 65_000 + '"}',
        "escapes": lambda: '{"a":"' + "\\u0041" * 10_900 + '"}',
        "backslashes": lambda: '{"a":"' + "\\" * 65_000,
        "quotes": lambda: '{"' + '"' * 65_000,
        "surrogates": lambda: '{"a":"' + "\\ud800" * 10_900 + '"}',
        "raw surrogates": lambda: '{"a":"' + "\ud800\udc80" * 32_000 + '"}',
        "one key often": lambda: "{" + '"a":1,' * 10_900 + '"a":1}',
        "many keys": lambda: "{" + ",".join(f'"{i}":0' for i in range(4_990)) + "}",
        "too many keys": lambda: "{" + ",".join(f'"{i}":0' for i in range(7_000)) + "}",
        "10 MB of keys": lambda: "{" + ",".join(f'"{i}":0' for i in range(1_000_000)) + "}",
        "white space": lambda: " " * 65_000,
        "white space of 10 MB": lambda: " " * _MEGA + "{}",
        "white space inside": lambda: "{" + "\n" * 65_000 + "}",
        "white space behind": lambda: gold + " " * 60_000 + "x",
        "combining marks": lambda: compact({**value, **dict.fromkeys(value, "a" + "\u0301\u0323" * 4_000)}),
        "one that grows (NFKC)": lambda: compact({**value, **dict.fromkeys(value, "\ufdfa" * 5_000)}),
        "wrong types": lambda: compact({**value, **dict.fromkeys(value, [[{}]] * 200)}),
        "too many wrong types": lambda: compact({**value, **dict.fromkeys(value, [[{}]] * 1_500)}),
        "rows without end": lambda: rows(lambda i: row or {}, 700),
        "100 rows, one printed": lambda: rows(lambda i: row or {}, 100),
        "100 rows of printed lines": lambda: rows(lambda i: text(i, lines[i % len(lines)][:200]), 100),
        "100 rows of long names": lambda: rows(lambda i: text(i, f"{i} ABCDEFGHI " * 16), 100),
        "100 rows of all words": lambda: rows(lambda i: text(i, " ".join(source.split())[i : i + 200].strip()), 100),
        "100 rows of other letters": lambda: rows(lambda i: text(i, f"\u0430\u200b{i}\ufb01" * 30), 100),
    }


def measure_bombs(task: Task, document: Document) -> dict[str, Any]:
    """CPU milliseconds of each bomb, scored alone on the document, the best of three; the slowest first."""
    rubric = Rubric(task)
    bare = Document(document.id, document.text, document.group, None)
    found: dict[str, tuple[float, str]] = {}
    for name, make in bombs(task.canonical(document.gold or {}), document.text).items():
        completion = make()
        best, verdict = float("inf"), ""
        for _ in range(3):
            start = time.process_time()
            score = rubric.score(bare, completion)
            best = min(best, 1000 * (time.process_time() - start))
            verdict = score.error or score.gate or "passed"
        found[name] = (best, verdict)
    slowest = max(found, key=lambda name: found[name][0])
    return {
        "bombs": len(found),
        "slowest_ms": found[slowest][0],
        "slowest": slowest,
        "over_limit": sorted(name for name, (ms, _) in found.items() if ms > LIMIT_MS),
        "ms": {name: ms for name, (ms, _) in sorted(found.items(), key=lambda item: -item[1][0])},
        "verdicts": {name: verdict for name, (_, verdict) in found.items()},
    }


def verdict(score: RubricScore) -> bytes:
    """Everything that a score says, as bytes: equal scores have equal bytes on every Python version."""
    said = [score.total, score.status, score.gate, score.parts, score.error, score.findings]
    return json.dumps(said, default=str, ensure_ascii=True).encode()


def attacks(task: Task, documents: Sequence[Document], seed: int) -> Iterator[tuple[Document, list[str]]]:
    """An endless stream of groups of malformed completions, one document after the other."""
    gold = [task.canonical(document.gold or {}) for document in documents]
    bare = [Document(document.id, document.text, document.group, None) for document in documents]
    turn = 0
    while True:
        at = turn % len(bare)
        yield bare[at], group(HOSTILE, gold[at], bare[at].text, Random(f"hostile/{seed}/{turn}"))
        turn += 1


def measure(
    task: Task, documents: Sequence[Document], n: int, seed: int = 0, said: Callable[[int, str], None] | None = None
) -> dict[str, Any]:
    """Scores `n` malformed completions. Seconds are CPU seconds of this process; `digest` is over every verdict.

    raised: completions for which something came up: an exception, or a verdict that the rubric itself is at fault.
    said: told (completions, digest so far) now and then, so that runs of other lengths can be compared.
    """
    rubric = Rubric(task)
    digest = hashlib.sha256()
    done = raised = 0
    first: str | None = None
    outcomes: dict[str, int] = {}
    slowest, culprit = 0.0, ""
    scoring = 0.0
    start = time.process_time()
    for document, completions in attacks(task, documents, seed):
        completions = completions[: min(n, done // SAY_EVERY * SAY_EVERY + SAY_EVERY) - done]
        before = time.process_time()
        try:
            scores = rubric.score_group(document, completions)
        except Exception as fault:
            scores = []
            raised += len(completions)
            first = first or f"{document.id}: {type(fault).__name__}: {fault}"[:300]
        spent = time.process_time() - before
        scoring += spent
        if spent > slowest:
            slowest, culprit = spent, document.id
        for completion, score in zip(completions, scores, strict=bool(scores)):
            if score.status == "error":
                raised += 1
                first = first or f"{document.id}: {score.error}: {completion[:80]!r}"
            key = score.status if score.status == "error" else score.gate or "passed"
            outcomes[key] = outcomes.get(key, 0) + 1
            digest.update(verdict(score))
        done += len(completions)
        if said is not None and done % SAY_EVERY == 0:
            said(done, digest.hexdigest()[:16])
        if done >= n:
            break
    seconds = time.process_time() - start
    return {
        "n": done,
        "raised": raised,
        "first": first,
        "seconds": seconds,
        "scoring_seconds": scoring,
        "completions_per_s_core": done / scoring if scoring else None,
        "slowest_group": {"document": culprit, "ms": 1000 * slowest},
        "outcomes": outcomes,
        "digest": digest.hexdigest(),
    }
