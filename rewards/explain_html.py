"""One score as one web page: the document with its evidence marked, the fields beside it, each linked to the other.

The page stands alone: no script, no font, no picture, nothing is fetched, and its own policy forbids all of it. Hover
and click work by CSS. Every text that came from a document or a model is escaped, and what is invisible or reorders
is spelled out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from itertools import pairwise
from typing import NamedTuple

from rewards.document import Document
from rewards.explain import MARKS, Branch, Remark, grade, remarks, tree, weight_of
from rewards.parse import Attempt, parse
from rewards.rubric import RubricScore
from rewards.task import Task

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
LIT = "{background:color-mix(in srgb,var(--tone) 42%,transparent);box-shadow:0 0 0 1px var(--tone)}"
LIT_ROW = "{border-left-color:var(--tone);background:color-mix(in srgb,var(--tone) 10%,transparent)}"
MOST_COSTS = 10
MOST_SPANS = 1000  # more marks than a page can show; the field list has them all
WORDS = {"right": "right", "part": "in part", "wrong": "wrong", "out": "left out"}


class Span(NamedTuple):
    """The evidence of one remark: (start, end) offsets, the remark's number and grade."""

    start: int
    end: int
    number: int
    grade: str


def explain_html(score: RubricScore, document: Document, completion: str, task: Task | None = None) -> str:
    """The page, as text. With the task, the parts show their weights."""
    found = [remark for _, remark in remarks(score, document)]
    paths = {remark.number: path for path, remark in remarks(score, document)}
    spans = [Span(*r.span, r.number, grade(r.points)) for r in found if r.span is not None and r.span[0] < r.span[1]]
    spans = spans[:MOST_SPANS]
    fields = "".join(_top(branch) for branch in tree(score, document))
    shown = _bars(score, task)
    style = resources.files("rewards").joinpath("explain.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="referrer" content="no-referrer">
<title>{safe(document.id)}: {_number(score)}</title>
<style>
{style}</style>
<style>
{"".join(_rule(span.number) for span in spans)}</style>
</head>
<body>
<header>
<div class="name"><div class="kicker">{safe(task.name) if task else "document"}</div><h1>{safe(document.id)}</h1></div>
<div class="reward {"wrong" if score.status == "error" else grade(score.total)}">
<small>reward</small>{_number(score)}</div>
{shown}
</header>
<main>
<section class="source"><h2>Document<span>{_legend(found)}</span></h2>
<pre>{_source(document.text, spans)}</pre></section>
<div>
<section><h2>Fields<span>{len(found)} remarks</span></h2>
{_costs(found, paths)}{fields}</section>
<section class="answer"><details{" open" if score.gate == "parses" else ""}><summary>Completion as written</summary>
<pre>{_completion(completion)}</pre></details></section>
</div>
</main>
<footer>Hover or click a remark to see its evidence in the document, and the evidence to see its remark.</footer>
</body>
</html>
"""


def safe(text: str) -> str:
    """Text for the page: escaped, and every character that is invisible, reorders or controls spelled out."""
    if text.isascii() and text.isprintable():
        return escape(text)
    return "".join(
        escape(char)
        if char.isprintable() or char in "\n\t"
        else f'<i class="c">{"CR" if char == chr(13) else f"U+{ord(char):04X}"}</i>'
        for char in text
    )


def _number(score: RubricScore) -> str:
    return "error" if score.status == "error" else f"{score.total:.3f}"


def _rule(i: int) -> str:
    """Evidence lights up with its remark and the remark with its evidence, under the pointer and when clicked."""
    lit = f"body:has(#f{i}:hover) .x{i},body:has(#f{i}:target) .x{i},body:has(#s{i}:target) .x{i}{LIT}"
    return f"{lit}body:has(.x{i}:hover) #f{i},body:has(#s{i}:target) #f{i}{LIT_ROW}\n"


def _bars(score: RubricScore, task: Task | None) -> str:
    """Each part of the rubric as a bar: as wide as its weight, filled as far as its value."""
    if score.status == "error":
        return f'<p class="stop wrong"><b>Not scored.</b> {safe(score.error or "")}</p>'
    if score.gate is not None:
        return f'<p class="stop wrong"><b>Stopped at the gate “{safe(score.gate)}”.</b> Nothing else was looked at.</p>'
    bars = []
    for name, value in score.parts.items():
        weight = weight_of(task, name)
        note = "does not apply" if value is None else f"{value:.2f}" + ("" if weight is None else f" × {weight:g}")
        style = f"--w:{1 if weight is None else weight:g};--v:{100 * (value or 0):.1f}%"
        bars.append(
            f'<div class="bar {grade(value)}" style="{style}" title="{safe(name)} {note}"><i><b></b></i>'
            f"<span>{safe(name)}</span><span>{note}</span></div>"
        )
    return f'<div class="parts">{"".join(bars)}</div>'


def _legend(found: Sequence[Remark]) -> str:
    counts = {name: sum(grade(remark.points) == name for remark in found) for name in WORDS}
    return " ".join(
        f'<span class="key {name}">{MARKS[name]} {count} {WORDS[name]}</span>'
        for name, count in counts.items()
        if count
    )


def _costs(found: Sequence[Remark], paths: dict[int, str]) -> str:
    """Links to what cost points, the worst first."""
    bad: dict[str, list[Remark]] = {}
    for remark in sorted(found, key=lambda r: r.points or 0.0):
        if remark.points is not None and grade(remark.points) != "right":
            bad.setdefault(paths[remark.number] or "the whole", []).append(remark)
    if not bad:
        return ""
    links = []
    for path, costs in list(bad.items())[:MOST_COSTS]:
        times = f" × {len(costs)}" if len(costs) > 1 else ""
        worst = costs[0]
        links.append(
            f'<a class="{grade(worst.points)}" href="#f{worst.number}">{safe(path)} {worst.points:.2f}{times}</a>'
        )
    more = f"<span>and {len(bad) - MOST_COSTS} more</span>" if len(bad) > MOST_COSTS else ""
    return f'<div class="cost"><span>Lost points at</span>{"".join(links)}{more}</div>'


def _top(branch: Branch) -> str:
    """A field, or a group of them: the rows of an array, the relations."""
    if not branch.children:
        return _field(branch)
    rows = []
    for child in branch.children.values():
        inner = "".join(_field(leaf) for leaf in child.walk() if leaf.remarks)
        indexed = child.name.startswith("[")
        rows.append(f'<div class="row"><b>{safe(child.name[1:-1])}</b><div>{inner}</div></div>' if indexed else inner)
    own = _field(branch) if branch.remarks else ""
    count = sum(child.name.startswith("[") for child in branch.children.values())
    note = f"<span>{count} {'row' if count == 1 else 'rows'}</span>" if count else ""
    return f'<div class="group"><h3>{safe(branch.name)}{note}</h3>{"".join(rows)}{own}</div>'


def _field(branch: Branch) -> str:
    value = branch.value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    given = "" if value is None else f"<code>{safe(text)}</code>"
    if value is None and any("null" in remark.why for remark in branch.remarks):
        given = "<em>null</em>"
    lines = "".join(_remark(remark) for remark in branch.remarks)
    return f'<div class="field"><div class="given"><b>{safe(branch.name)}</b>{given}</div><div>{lines}</div></div>'


def _remark(remark: Remark) -> str:
    tone = grade(remark.points)
    points = "–" if remark.points is None else f"{remark.points:.2f}"
    tag, link = "div", ""
    where = ""
    if remark.span is not None:
        tag, link = "a", f' href="#s{remark.number}"'
        evidence = (remark.evidence or "").replace("\n", " ⏎ ")
        cut = evidence if len(evidence) <= 160 else evidence[:159] + "…"
        where = f' · line {remark.line} <span class="evidence">{safe(cut)}</span>'
    return (
        f'<{tag} class="r {tone}" id="f{remark.number}"{link}><span class="points">{MARKS[tone]} {points}</span>'
        f'<span class="why">{safe(remark.why)}</span><span class="more">{safe(remark.check)}{where}</span></{tag}>'
    )


def _source(text: str, spans: Sequence[Span]) -> str:
    """The document, line by line with numbers, cut at the ends of all spans; the shortest span owns a piece."""
    lines = []
    placed: set[int] = set()
    start = 0
    for number, row in enumerate(text.split("\n"), start=1):
        end = start + len(row)
        here = [span for span in spans if span.start < end and span.end > start]
        cuts = sorted({start, end, *(max(start, s.start) for s in here), *(min(end, s.end) for s in here)})
        pieces = []
        for low, high in pairwise(cuts):
            over = sorted((s for s in here if s.start <= low and s.end >= high), key=lambda s: s.end - s.start)
            piece = safe(text[low:high])
            if over:
                marks = " ".join(f"x{span.number}" for span in over)
                piece = f'<a class="m {over[0].grade} {marks}" href="#f{over[0].number}">{piece}</a>'
                for span in over:
                    if span.number not in placed:
                        placed.add(span.number)
                        piece = f'<span id="s{span.number}"></span>{piece}'
            pieces.append(piece)
        lines.append(f'<span class="l"><span class="n">{number}</span><span class="t">{"".join(pieces)}</span></span>')
        start = end + 1
    return "".join(lines)


def _completion(completion: str) -> str:
    attempt = parse(completion)
    if isinstance(attempt, Attempt):
        return safe(json.dumps(attempt.value, ensure_ascii=False, indent=2))
    return safe(completion) or '<em class="none">empty</em>'
