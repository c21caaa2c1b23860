"""Mentions: people, organisations, places and other names in running text.

A name is grounded where the text has it, whole, as a name; names of the text that no row gives lower the coverage.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from rewards import normalize
from rewards.dates import MONTHS, iso
from rewards.document import DocumentIndex
from rewards.plan import FieldPlan, MentionPlan, Plan
from rewards.score import Finding
from rewards.support import ELSEWHERE

PART = 0.5  # of a name that the text goes on with
SHORT = 0.3  # of a row that is a shorter form of another row, and of one whose words speak for another array
NEAR = 240  # characters around a name in which its other leaves are looked for
MAX_WORDS = 20_000

_TOKEN = re.compile(r"[^\W_]+")
_JOINT = re.compile(r"[ \t]?\n?[ \t]?|\. ?|[-'’&] ?| & ")
_SENTENCE = re.compile(r"(?:^|[.!?:;•\n\"“(—–-])\s*$")
_LINKS = frozenset("of de del der la le van von di da do the and for".split())
_COMMON = frozenset(
    (
        "a an the in on at of for to by from with as and but or if it its he she they we you i his her their our this "
        "that these those there here when while where after before since during under over between among about "
        "against not no yes all both each some many most more other such one two three also however meanwhile today "
        "yesterday tomorrow monday tuesday wednesday thursday friday saturday sunday mr mrs ms miss dr prof professor "
        "president minister mayor director chairman chairwoman chair chief executive officer ceo cfo senator governor "
        "judge sir dame lord lady captain colonel general spokesman spokeswoman spokesperson secretary "
    ).split()
) | frozenset(MONTHS)


class Word(NamedTuple):
    """One printed word: folded, its span, whether it is written as a name, and whether it begins a sentence."""

    folded: str
    start: int
    end: int
    capital: bool
    first: bool


def _words(index: DocumentIndex) -> list[Word]:
    found: list[Word] | None = index.cache.get("mention words")
    if found is None:
        found = []
        text = index.text
        for match in _TOKEN.finditer(text):
            folded = normalize.letters_digits(match.group())
            if not folded:
                continue
            raw = match.group()
            first = _SENTENCE.search(text, max(0, match.start() - 4), match.start()) is not None
            found.append(Word(folded, match.start(), match.end(), raw[0].isupper(), first))
            if len(found) >= MAX_WORDS:
                break
        index.cache["mention words"] = found
    return found


def _at(index: DocumentIndex) -> dict[str, list[int]]:
    """Where each folded word stands."""
    found: dict[str, list[int]] | None = index.cache.get("mention places")
    if found is None:
        found = index.cache["mention places"] = {}
        for i, word in enumerate(_words(index)):
            found.setdefault(word.folded, []).append(i)
    return found


def _joined(index: DocumentIndex, left: Word, right: Word) -> bool:
    return _JOINT.fullmatch(index.text, left.end, right.start) is not None


class Place(NamedTuple):
    """A printed form of a name: points, span, why."""

    points: float
    span: tuple[int, int] | None
    why: str


def place(name: str, plan: MentionPlan, index: DocumentIndex) -> list[Place]:
    """Every place where a name is printed, the best first; cached."""
    key = ("mention", plan.array, name)
    found: list[Place] | None = index.cache.get(key)
    if found is not None:
        return found
    wanted = [w for part in normalize.words(name) if (w := normalize.letters_digits(part))]
    words = _words(index)
    found = []
    for i in _at(index).get(wanted[0], ()) if wanted else ():
        j = i + len(wanted)
        if [word.folded for word in words[i:j]] != wanted:
            continue
        span = (words[i].start, words[j - 1].end)
        if not any(word.capital or word.folded.isdigit() for word in words[i:j]):
            found.append(Place(ELSEWHERE, span, "printed, but not as a name"))
        elif _goes_on(plan, index, words, i, j):
            found.append(Place(PART, span, "a part of a longer name"))
        else:
            found.append(Place(1.0, span, "printed"))
    found.sort(key=lambda p: -p.points)
    index.cache[key] = found
    return found


def _goes_on(plan: MentionPlan, index: DocumentIndex, words: Sequence[Word], i: int, j: int) -> bool:
    """Whether the printed name has another word before or behind the words i <= k < j."""
    if j < len(words):
        behind = words[j]
        if behind.capital and not behind.first and _joined(index, words[j - 1], behind) and _named(plan, behind):
            gap = index.text[words[j - 1].end : behind.start]
            if "\n" not in gap and not gap.startswith("."):
                return True
    if i > 0:
        before = words[i - 1]
        gap = index.text[before.end : words[i].start]
        if before.capital and not before.first and gap in (" ", "-", ". ") and _named(plan, before):
            return gap != ". " or len(before.folded) == 1
    return False


def _named(plan: MentionPlan, word: Word) -> bool:
    return word.folded not in _COMMON and word.folded not in plan.ignore and not word.folded.isdigit()


def ground_mentions(
    plan: MentionPlan, task: Plan, index: DocumentIndex, given: Any
) -> tuple[list[float], dict[str, list[float | None]], list[Finding]]:
    """(points of each row, points of each leaf by row, findings)."""
    rows = [row if isinstance(row, dict) else {} for row in given] if isinstance(given, list) else []
    leaf = plan.spec.name
    names = [str(row.get(leaf) or "") for row in rows]
    folded = [tuple(normalize.words(name)) for name in names]
    weights = {key: field.spec.weight for key, field in plan.fields.items()}
    scores: list[float] = []
    leaves: dict[str, list[float | None]] = {key: [] for key in plan.fields}
    findings: list[Finding] = []
    seen: set[tuple[str, ...]] = set()
    for i, row in enumerate(rows):
        printed = place(names[i], plan, index)
        best = printed[0] if printed else Place(0.0, None, "not printed in the document")
        if folded[i] in seen:
            best = Place(0.0, best.span, "repeats a row")
        elif any(
            i != j and len(folded[i]) < len(other) and _inside(folded[i], other) for j, other in enumerate(folded)
        ):
            best = Place(min(SHORT, best.points), best.span, "a shorter form of another row")
        elif (other_array := _speaks_for(plan, task, folded[i])) is not None:
            best = Place(min(SHORT, best.points), best.span, f"its words speak for {other_array}")
        seen.add(folded[i])
        total = whole = 0.0
        for key, field in plan.fields.items():
            one = best if key == leaf else _beside(field, row.get(key), index, printed)
            points = None if one is None else one.points
            why = "the document does not say" if one is None else one.why
            span = one.span if one is not None else None
            leaves[key].append(points)
            findings.append(Finding(f"{plan.array}[{i}].{key}", row.get(key), span, points, why))
            if points is not None:
                total += weights[key] * points
                whole += weights[key]
        scores.append(total / whole if whole else 0.0)
    return scores, leaves, findings


def _inside(short: Sequence[str], long: Sequence[str]) -> bool:
    return any(tuple(long[k : k + len(short)]) == tuple(short) for k in range(len(long) - len(short) + 1))


def _speaks_for(plan: MentionPlan, task: Plan, folded: Sequence[str]) -> str | None:
    """The other array whose `prefer` words this name has and its own array has not (a person called Acme Ltd)."""
    spaced = f" {' '.join(folded)} "
    own = plan.fields[plan.spec.name].prefer
    if own is not None and own.in_spaced(spaced):
        return None
    for array, other in task.mentions.items():
        prefer = other.fields[other.spec.name].prefer
        if array != plan.array and prefer is not None and prefer.in_spaced(spaced):
            return array
    return None


def _beside(field: FieldPlan, value: Any, index: DocumentIndex, printed: Sequence[Place]) -> Place | None:
    """A further leaf of a row: what it says must stand near the name. None where it cannot be told."""
    if value is None:
        return None
    windows = [(max(0, p.span[0] - NEAR), p.span[1] + NEAR) for p in printed if p.span is not None]
    if field.spec.kind == "class":
        listed = field.words.get(str(value))
        if listed is None:
            return None
        for low, high in windows:
            if listed.in_spaced(f" {' '.join(normalize.words(index.text[low:high]))} "):
                return Place(1.0, (low, min(high, len(index.text))), "its word stands near the name")
        return Place(0.0, None, "no word near the name speaks for it")
    if field.spec.kind == "date":
        wanted = iso(value)
        for mention in index.dates(field.spec.formats or ()):
            if any(day == wanted for _, day in mention.readings):
                return Place(1.0, (mention.start, mention.end), "a printed date")
        return Place(0.0, None, "not printed in the document")
    spaced = f" {' '.join(normalize.words(str(value)))} "
    for low, high in windows:
        if spaced.strip() and spaced in f" {' '.join(normalize.words(index.text[low:high]))} ":
            return Place(1.0, (low, min(high, len(index.text))), "printed near the name")
    return Place(0.0, None, "not printed near the name")


def shown(plan: Plan, index: DocumentIndex) -> dict[tuple[str, ...], tuple[int, int]]:
    """The distinct names of a text (runs of capitalised words) with a span of each. Cached.

    A single word at the beginning of a sentence is a name only where it also stands inside one.
    """
    found: dict[tuple[str, ...], tuple[int, int]] | None = index.cache.get("mention runs")
    if found is not None:
        return found
    words = _words(index)
    ignore = frozenset().union(*(mention.ignore for mention in plan.mentions.values()))
    name_like = [w.capital and len(w.folded) > 1 and w.folded not in _COMMON and w.folded not in ignore for w in words]
    inside = {w.folded for w, good in zip(words, name_like, strict=True) if good and not w.first}
    lower = {w.folded for w in words if not w.capital}
    found = {}
    i = 0
    while i < len(words):
        if not name_like[i]:
            i += 1
            continue
        run = [i]
        j = i + 1
        while j < len(words) and _joined(index, words[j - 1], words[j]) and not words[j].first:
            if name_like[j] or (words[j].capital and len(words[j].folded) == 1):
                run.append(j)
            elif not (words[j].folded in _LINKS and j + 1 < len(words) and name_like[j + 1]):
                break
            j += 1
        kept = run
        if words[i].first and (words[i].folded in lower or words[i].folded not in inside):
            kept = run[1:] if words[i].folded in lower or len(run) == 1 else run
        if kept:
            key = tuple(words[k].folded for k in kept)
            found.setdefault(key, (words[kept[0]].start, words[kept[-1]].end))
        i = run[-1] + 1
    index.cache["mention runs"] = found
    return found


def uncovered_names(
    plan: Plan, index: DocumentIndex, value: dict[str, Any]
) -> tuple[float | None, list[tuple[int, int]]]:
    """(share of the text's names that the attempt gives, the spans of those that it does not); None without any."""
    runs = shown(plan, index)
    if not runs:
        return None, []
    given: set[str] = set()
    for array, mention in plan.mentions.items():
        for row in value.get(array) or []:
            name = row.get(mention.spec.name)
            # A row that is the whole text explains nothing.
            if isinstance(name, str) and len(name) <= 120:
                given.update(normalize.words(name))
    for path in plan.scalars:
        text = value.get(path)
        if isinstance(text, str) and plan.scalars[path].spec.kind == "text":
            given.update(normalize.words(text))
    missing = [span for run, span in runs.items() if 2 * sum(word in given for word in run) < len(run)]
    return 1.0 - len(missing) / len(runs), missing
