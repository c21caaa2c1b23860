"""Checks that any rubric has to pass, by hypothesis: one line in a test of your own.

    from rewards.properties import check_rubric

    def test_my_rubric_keeps_its_promises(task, documents):
        check_rubric(task, documents)

Each check is there on its own too; the strategies are in rewards.strategies. A check that fails shows the smallest
completion that breaks the promise, and why it scored as it did.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from rewards.document import Document
from rewards.explain import explain_text
from rewards.rubric import Rubric, RubricScore
from rewards.strategies import WrongAnswer, completions, reordered, rewritten, wrong_answers
from rewards.task import Task, load_task

PERFECT = 0.999
"""Gold that scores less is no start for the check that puts fields right."""
ROUNDING = 1e-9
Drawn = TypeVar("Drawn")


def check_rubric(
    task: Task | str, documents: Document | Iterable[Document], *, examples: int = 20, rows_in_order: bool = False
) -> None:
    """All the checks, over documents with gold: bounds, repeatable, key order, white space, row order, fixing.

    rows_in_order: the task asks for its rows in the document's order, so their order may matter.
    """
    found = [documents] if isinstance(documents, Document) else list(documents)
    check_bounds(task, found, examples=examples)
    check_repeatable(task, found, examples=examples)
    check_writing(task, found, examples=examples)
    if not rows_in_order:
        check_row_order(task, found, examples=examples)
    check_fixing(task, found, examples=examples)


def check_bounds(task: Task | str, documents: Document | Iterable[Document], *, examples: int = 20) -> None:
    """Whatever is written, the score is in [0, 1], and so is each part; nothing is an error."""

    def check(rubric: Rubric, document: Document, completion: str) -> None:
        score = rubric.score(document, completion)
        shown = (completion, score)
        assert score.status == "scored", _message("an error", rubric, document, shown)
        values = [score.total, *(value for value in score.parts.values() if value is not None)]
        assert all(0.0 <= value <= 1.0 for value in values), _message("out of [0, 1]", rubric, document, shown)

    _each(task, documents, examples, lambda rubric, document: completions(rubric.task, document), check)


def check_repeatable(task: Task | str, documents: Document | Iterable[Document], *, examples: int = 20) -> None:
    """The same completion scores the same: again, by a new rubric, and whatever else is in its group."""

    def groups(rubric: Rubric, document: Document) -> SearchStrategy[tuple[Rubric, list[str]]]:
        group = st.lists(completions(rubric.task, document), min_size=2, max_size=4)
        return st.tuples(st.just(Rubric(rubric.task)), group)

    def check(rubric: Rubric, document: Document, drawn: tuple[Rubric, list[str]]) -> None:
        other, group = drawn
        alone = [other.score(document, completion) for completion in group]
        for completion, a, b in zip(group, alone, rubric.score_group(document, group), strict=True):
            assert _same(a, b), _message("not the same in a group", rubric, document, (completion, a), (completion, b))

    _each(task, documents, examples, groups, check)


def check_writing(task: Task | str, documents: Document | Iterable[Document], *, examples: int = 20) -> None:
    """The order of keys, white space between tokens and escapes do not matter."""

    def twice(rubric: Rubric, document: Document) -> SearchStrategy[tuple[str, str]]:
        return _answers(rubric, document).flatmap(lambda text: st.tuples(st.just(text), rewritten(json.loads(text))))

    _each(task, documents, examples, twice, _equal("writing matters"), gold=True)


def check_row_order(task: Task | str, documents: Document | Iterable[Document], *, examples: int = 20) -> None:
    """The order of the rows of an array does not matter."""

    def twice(rubric: Rubric, document: Document) -> SearchStrategy[tuple[str, str]]:
        return _answers(rubric, document).flatmap(
            lambda text: st.tuples(st.just(text), reordered(json.loads(text)).map(json.dumps))
        )

    _each(task, documents, examples, twice, _equal("row order matters"), gold=True)


def check_fixing(
    task: Task | str, documents: Document | Iterable[Document], *, examples: int = 20, most: int = 3
) -> None:
    """Putting one of up to `most` wrong fields (or a missing row) right never lowers the score.

    Starts from gold that scores at least PERFECT; other documents are passed over, and one at least must be left.
    """

    def check(rubric: Rubric, document: Document, drawn: WrongAnswer) -> None:
        before, after = rubric.score_group(document, [drawn.completion, drawn.better])
        why = f"putting {drawn.path} right lowers the score, of {', '.join(drawn.wrong)} wrong"
        shown = (drawn.completion, before), (drawn.better, after)
        assert after.total >= before.total - ROUNDING, _message(why, rubric, document, *shown)

    def answers(rubric: Rubric, document: Document) -> SearchStrategy[WrongAnswer]:
        return wrong_answers(rubric.task, document, most=most)

    _each(task, documents, examples, answers, check, gold=True, perfect=True)


def _each(
    task: Task | str,
    documents: Document | Iterable[Document],
    examples: int,
    strategy: Callable[[Rubric, Document], SearchStrategy[Drawn]],
    check: Callable[[Rubric, Document, Drawn], None],
    *,
    gold: bool = False,
    perfect: bool = False,
) -> None:
    """Runs a check on what the strategy draws for every document; gold, perfect: only where there is such gold."""
    rubric = Rubric(load_task(task) if isinstance(task, str) else task)
    found = [documents] if isinstance(documents, Document) else list(documents)
    chosen = [document for document in found if document.gold is not None or not gold]
    assert chosen, "no document has gold" if found else "no documents"
    if perfect:
        totals = {d.id: rubric.score(d, rubric.task.canonical(d.gold or {})).total for d in chosen}
        chosen = [document for document in chosen if totals[document.id] >= PERFECT]
        assert chosen, f"no gold scores {PERFECT}: the best is {max(totals.values()):.3f}; offramp explain shows why"
    for document in chosen:
        _run(examples, strategy(rubric, document), partial(check, rubric, document))


def _run(examples: int, strategy: SearchStrategy[Drawn], check: Callable[[Drawn], None]) -> None:
    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def run(drawn: Drawn) -> None:
        check(drawn)

    run()


def _equal(what: str) -> Callable[[Rubric, Document, tuple[str, str]], None]:
    """A check that two completions score the same."""

    def check(rubric: Rubric, document: Document, drawn: tuple[str, str]) -> None:
        a, b = rubric.score_group(document, drawn)
        shown = (drawn[0], a), (drawn[1], b)
        assert abs(a.total - b.total) <= ROUNDING, _message(what, rubric, document, *shown)

    return check


def _answers(rubric: Rubric, document: Document) -> SearchStrategy[str]:
    """Gold, or gold with wrong fields."""
    gold = rubric.task.canonical(document.gold or {})
    return st.one_of(st.just(gold), wrong_answers(rubric.task, document).map(lambda wrong: wrong.completion))


def _message(what: str, rubric: Rubric, document: Document, *shown: tuple[str, RubricScore]) -> str:
    lines = [f"{what} (document {document.id})"]
    for completion, score in shown:
        lines += ["", f"completion: {completion[:1500]}", explain_text(score, document, rubric.task)]
    return "\n".join(lines)


def _same(a: RubricScore, b: RubricScore) -> bool:
    return (a.total, a.status, a.gate, a.parts, a.findings) == (b.total, b.status, b.gate, b.parts, b.findings)
