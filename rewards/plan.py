"""A task, compiled: what the rewards need of it, worked out once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Any

import jsonschema_rs

from rewards import normalize
from rewards.document import Line
from rewards.task import NUMERIC, Bounds, FieldSpec, MentionSpec, RecordSpec, RowSpec, Task, leaves


@dataclass(frozen=True, slots=True)
class Phrases:
    """Words to look for in a line: phrases at word boundaries, and marks such as # that are no words. `first`: the
    words with which the phrases begin."""

    pattern: re.Pattern[str] | None
    marks: tuple[str, ...]
    first: frozenset[str]

    def in_spaced(self, spaced: str) -> bool:
        """Whether a line (its folded words between spaces, Line.spaced) has one of the phrases."""
        return self.pattern is not None and self.pattern.search(spaced) is not None

    def lines(self, lines: Sequence[Line]) -> list[int]:
        """The numbers of the lines that have one of the phrases."""
        if self.pattern is None:
            return []
        has, first = self.pattern.search, self.first
        # Most lines have no word with which a phrase begins, which is asked faster than a pattern.
        return [i for i, line in enumerate(lines) if not first.isdisjoint(line.words) and has(line.spaced)]

    def fills(self, spaced: str) -> bool:
        """Whether a line is one of the phrases and nothing else."""
        match = self.pattern.match(spaced) if self.pattern is not None else None
        return match is not None and match.end() == len(spaced) - 1

    def last(self, spaced: str) -> str | None:
        """The words behind the last phrase in a line; None where there is no phrase."""
        at = None
        for match in self.pattern.finditer(spaced) if self.pattern is not None else ():
            at = match.end()
        return None if at is None else spaced[at:]

    def before(self, spaced: str) -> str:
        """The words before the first phrase in a line."""
        match = self.pattern.search(spaced) if self.pattern is not None else None
        return spaced if match is None else spaced[: match.start()]

    def starts(self, spaced: str) -> bool:
        """Whether a line begins with one of the phrases."""
        return self.pattern is not None and self.pattern.match(spaced) is not None


_MARK = re.compile(r"[^\w\s.,/&'()-]")  # S$ is a mark, not the word S


def phrases(listed: Sequence[str] | None) -> Phrases | None:
    """Compiles a list of a task file; None stays None."""
    if listed is None:
        return None
    marks = tuple(phrase.strip() for phrase in listed if _MARK.search(phrase))
    spaced = {" ".join(normalize.words(phrase)) for phrase in listed if not _MARK.search(phrase)} - {""}
    # By their first character, so that few are tried at a word; among these the longest first.
    rests: dict[str, list[str]] = {}
    for phrase in sorted(spaced, key=len, reverse=True):
        rests.setdefault(phrase[0], []).append(re.escape(phrase[1:]))
    grouped = "|".join(f"{re.escape(char)}(?:{'|'.join(rest)})" for char, rest in rests.items())
    pattern = re.compile(f" (?:{grouped})(?= )") if rests else None
    return Phrases(pattern, marks, frozenset(phrase.split()[0] for phrase in spaced))


@dataclass(frozen=True, slots=True)
class FieldPlan:
    """A leaf: its path, its spec, and its compiled words."""

    path: str
    spec: FieldSpec
    nullable: bool
    cue: Phrases | None
    avoid: Phrases | None
    prefer: Phrases | None
    other: Phrases | None
    stop: Phrases | None
    day_first: Phrases | None
    month_first: Phrases | None
    words: dict[str, Phrases]
    unsigned: bool


@dataclass(frozen=True, slots=True)
class RowPlan:
    """An array: its name, its spec, its leaves by key, and its compiled words; `glue` are words beside a name that are
    no part of it (units, marks, headings), `beside` only units and marks. summed: a relation has
    the sum of its amounts."""

    array: str
    spec: RowSpec
    fields: dict[str, FieldPlan]
    heading: Phrases
    heading_words: frozenset[str]
    summary: Phrases
    end: Phrases
    vocabulary: frozenset[str]
    glue: frozenset[str]
    beside: frozenset[str]
    summed: bool


@dataclass(frozen=True, slots=True)
class RecordPlan:
    """An array of labelled numbers: its leaves by key, the key of its name, the keys of its numbers, and the pattern of
    their labels with the leaves that each can mean. `whole`: only whole numbers count."""

    array: str
    spec: RecordSpec
    fields: dict[str, FieldPlan]
    name: str | None
    numbers: tuple[str, ...]
    needs: str | None
    labels: re.Pattern[str] | None
    leaves_of: dict[str, tuple[str, ...]]
    whole: bool


@dataclass(frozen=True, slots=True)
class MentionPlan:
    """An array of mentions: its leaves by key, and the words that are no name."""

    array: str
    spec: MentionSpec
    fields: dict[str, FieldPlan]
    ignore: frozenset[str]


@dataclass(frozen=True, slots=True)
class Plan:
    """A task, compiled. `scalars` are the leaves outside arrays, by path; `table_words` stand only in headings of rows.
    `rows`, `records` and `mentions` are its arrays; `arrays` has the leaves of them all.
    `texts` are the paths of texts and codes.
    `label_words` are all words of labels; long and short ones are looked for with one misread character."""

    task: Task
    validator: Any
    scalars: dict[str, FieldPlan]
    rows: dict[str, RowPlan]
    table_words: frozenset[str]
    label_words: frozenset[str]
    long_words: tuple[str, ...]
    short_words: tuple[str, ...]
    bounds: dict[str, tuple[Decimal | date | None, Decimal | date | None]]
    weight: float
    records: dict[str, RecordPlan]
    mentions: dict[str, MentionPlan]
    texts: tuple[str, ...]
    arrays: dict[str, dict[str, FieldPlan]]

    def array_weight(self, array: str) -> float:
        """The weight of an array in `grounded`."""
        specs: tuple[Mapping[str, RowPlan | RecordPlan | MentionPlan], ...] = (self.rows, self.records, self.mentions)
        return next(section[array].spec.weight for section in specs if array in section)


def _limit(value: Any) -> Decimal | date | None:
    return value if value is None or isinstance(value, date) else Decimal(str(value))


def _field(task: Task, path: str, schema: Any) -> FieldPlan:
    spec = task.fields[path]
    types = schema.get("type", ())
    return FieldPlan(
        path=path,
        spec=spec,
        nullable="null" in types if isinstance(types, list) else types == "null",
        cue=phrases(spec.cue),
        avoid=phrases(spec.avoid),
        prefer=phrases(spec.prefer),
        other=phrases(spec.other),
        stop=phrases(spec.stop),
        day_first=phrases(spec.day_first),
        month_first=phrases(spec.month_first),
        words={value: found for value, listed in (spec.words or {}).items() if (found := phrases(listed))},
        unsigned="-?" not in str(schema.get("pattern", "-?")),
    )


def _phrases(listed: Sequence[str]) -> Phrases:
    found = phrases(listed)
    assert found is not None
    return found


def _record(array: str, spec: RecordSpec, own: dict[str, FieldPlan]) -> RecordPlan:
    numbers = tuple(key for key, field in own.items() if field.spec.kind in NUMERIC)
    leaves_of: dict[str, tuple[str, ...]] = {}
    for key in numbers:
        for cue in own[key].spec.cue or ():
            folded = " ".join(normalize.words(cue))
            leaves_of[folded] = (*leaves_of.get(folded, ()), key)
    for other in spec.other or ():
        leaves_of.setdefault(" ".join(normalize.words(other)), ())
    listed = sorted(leaves_of, key=len, reverse=True)
    # Between the words of a label stands whatever a page puts there: Broker Non- Votes.
    patterns = [r"[^\w.;:!?]{1,40}".join(map(re.escape, label.split())) for label in listed]
    labels = re.compile(r"(?<![^\W_])(?:" + "|".join(patterns) + r")(?![^\W_])", re.IGNORECASE) if listed else None
    return RecordPlan(
        array=array,
        spec=spec,
        fields=own,
        name=spec.name,
        numbers=numbers,
        needs=spec.needs,
        labels=labels,
        leaves_of=leaves_of,
        whole=all(own[key].spec.kind == "count" for key in numbers),
    )


@lru_cache(maxsize=32)
def compile_plan(task: Task) -> Plan:
    """The Plan of a task, built once."""
    known = {path: _field(task, path, schema) for path, schema in leaves(task.schema)}
    scalars = {path: field for path, field in known.items() if "[]" not in path}
    arrays: dict[str, dict[str, FieldPlan]] = {array: {} for array in (*task.rows, *task.records, *task.mentions)}
    for path, field in known.items():
        if "[]." in path:
            array, leaf = path.split("[].", 1)
            arrays[array][leaf] = field
    rows = {}
    operands = {
        path for alternatives in task.relations.values() for relation in alternatives for path in relation.paths
    }
    for array, spec in task.rows.items():
        own = arrays[array]
        cues = [word for f in scalars.values() if f.spec.kind == "money" for word in f.spec.cue or ()]
        vocabulary = {w for phrase in (*spec.summary, *spec.end, *cues) for w in normalize.words(phrase)}
        vocabulary |= {mark.strip(".$").lower() for mark in normalize.CURRENCY}
        rows[array] = RowPlan(
            array=array,
            spec=spec,
            fields=own,
            heading=_phrases(spec.heading),
            heading_words=frozenset(w for phrase in spec.heading for w in normalize.words(phrase) if len(w) > 1),
            summary=_phrases([*spec.summary, *spec.end]),
            end=_phrases(spec.end),
            vocabulary=frozenset(vocabulary),
            glue=frozenset(
                vocabulary | {w for phrase in (*spec.heading, *(spec.units or ())) for w in normalize.words(phrase)}
            ),
            beside=frozenset(
                w for text in (*(spec.units or ()), *normalize.CURRENCY) for w in normalize.words(text) if len(w) > 1
            )
            - {w for phrase in spec.heading for w in normalize.words(phrase)},
            summed=f"{array}[].{spec.amount}" in operands,
        )
    bounds: dict[str, Bounds] = task.plausible
    cued = [f for f in scalars.values() if f.spec.kind == "money" and f.spec.cue is not None]
    labels = {w for f in cued for p in (*(f.spec.cue or ()), *(f.spec.avoid or ())) for w in normalize.words(p)}
    every = labels | {w for r in rows.values() for w in r.vocabulary | r.heading_words}
    # Only words that are a label by themselves are looked for misread: PAPER is no PAYER.
    listed = [p for f in cued for p in (*(f.spec.cue or ()), *(f.spec.avoid or ()))]
    listed += [p for r in rows.values() for p in (*r.spec.summary, *r.spec.end)]
    alone = {words[0] for phrase in listed if len(words := normalize.words(phrase)) == 1}
    short = {w for f in cued if f.spec.expected == "cued" for p in f.spec.cue or () for w in normalize.words(p)}
    return Plan(
        task=task,
        validator=jsonschema_rs.validator_for(task.schema),
        scalars=scalars,
        rows=rows,
        table_words=frozenset(w for r in rows.values() for w in r.heading_words - r.vocabulary),
        label_words=frozenset(every),
        long_words=tuple(sorted(w for w in alone if len(w) >= 5)),
        short_words=tuple(sorted(w for w in short if 3 <= len(w) < 5)),
        bounds={path: (_limit(b.min), _limit(b.max)) for path, b in bounds.items()},
        weight=sum(task.rubric.rewards.values()),
        records={array: _record(array, spec, arrays[array]) for array, spec in task.records.items()},
        mentions={
            array: MentionPlan(
                array, spec, arrays[array], frozenset(w for p in spec.ignore or () for w in normalize.words(p))
            )
            for array, spec in task.mentions.items()
        },
        texts=tuple(path for path, spec in task.fields.items() if spec.kind in ("text", "code")),
        arrays=arrays,
    )
