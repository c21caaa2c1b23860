"""Words of labels that a reading machine got wrong by one character: SUBIOTAL, ROUMDING, DISCOUUNT, GSI."""

from __future__ import annotations

from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from rewards.document import DocumentIndex, Line
from rewards.plan import Plan

LONG = 5  # from this length on a word is told by one wrong character, wherever it stands


def long_words(plan: Plan, index: DocumentIndex) -> dict[str, str]:
    """Printed word -> the task's label word that it is one misread character away from, for long words; cached."""
    found: dict[str, str] | None = index.cache.get("misread long")
    if found is None:
        found = index.cache["misread long"] = _corrections(plan, index, plan.long_words, LONG, None)
    return found


def short_words(plan: Plan, index: DocumentIndex, rows: frozenset[int]) -> dict[str, str]:
    """The same for the short words of cues (GST), from lines that are no rows: on a row the word may be a name."""
    found: dict[str, str] | None = index.cache.get("misread short")
    if found is None:
        found = index.cache["misread short"] = _corrections(plan, index, plan.short_words, 3, rows)
    return found


def _corrections(
    plan: Plan, index: DocumentIndex, known: tuple[str, ...], least: int, rows: frozenset[int] | None
) -> dict[str, str]:
    found: dict[str, str] = {}
    seen: set[str] = set()
    most = max(map(len, known), default=0) + 1
    lines = index.lines
    for i, line in enumerate(lines):
        if not (line.money or (i + 1 < len(lines) and lines[i + 1].money)) or (rows is not None and i in rows):
            continue
        for word in line.words:
            if not least - 1 <= len(word) <= most or word in seen or word in plan.label_words or word.isdigit():
                continue
            seen.add(word)
            near = process.extractOne(word, known, scorer=Levenshtein.distance, score_cutoff=1)
            if near is not None and _misreading(word, near[0]):
                found[word] = near[0]
    return found


def _misreading(printed: str, meant: str) -> bool:
    """One character confused, lost or doubled; another letter added makes another word (SUMME, SUMMER)."""
    if len(printed) <= len(meant):
        return True
    return any(printed == meant[: i + 1] + meant[i:] for i in range(len(meant)))


def reread(lines: list[Line], fixes: dict[str, str]) -> list[Line]:
    """The lines with their words corrected."""
    if not fixes:
        return lines
    texts = [respaced(line.spaced, fixes) for line in lines]
    return [line._replace(words=text.split(), spaced=text) for line, text in zip(lines, texts, strict=True)]


def respaced(spaced: str, fixes: dict[str, str]) -> str:
    """A line's folded words between spaces, corrected."""
    if not fixes:
        return spaced
    return f" {' '.join([fixes.get(word, word) for word in spaced.split()])} "
