"""LLM judge: asks a model about the fields that no code checks, after everything else was scored, for a batch at once.

It is the least of the rewards, and it can only take away. With m the weighted mean of the other rewards, W their weight
and w the judge's, a verdict of j in [0, 1] gives m * (W + w * j) / (W + w): m itself where all is right. Whatever a
judge is made to say, no total rises above the one without a judge. Three more defences keep wrong values from escaping:

1. The judge sees the document and the judged values only. Lines of the document that speak to it are withheld, values
   that do so, or say nothing, get 0 points unseen (rewards/injection.py).
2. Both stand between fences of random letters, named as data; the answer is a JSON object of verdicts and nothing else.
3. Among the values is one that no document holds. A judge that calls it right is not believed: it is asked once more
   with other nonsense in the place of all values; where that goes well, the values had turned its head: 0 points.

Trouble (no answer, no verdict, a judge not believed) is not applicable, and counted: never a 0.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import fsum

from rewards.chat import Answer, Request, Trouble
from rewards.document import Document
from rewards.endpoint import Client
from rewards.errors import Paused
from rewards.judge_question import Item, nonsense, not_worth_asking, question, values_at
from rewards.judge_settings import JudgeSpec
from rewards.parse import Attempt, parse
from rewards.rubric import RubricScore
from rewards.score import Finding, Score, not_applicable, scored
from rewards.task import Task

log = logging.getLogger(__name__)

MOST_VALUES = 60
"""Judged values of one attempt; further ones are not judged."""
WINDOW, FEWEST = 200, 10
"""The share of trouble is of so many last answers, and says nothing of fewer than so many."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 60.0


class Judge:
    """Adds the judge's verdicts to scores that are otherwise complete. One a process; `counts` is for the record."""

    def __init__(self, task: Task, spec: JudgeSpec, sleep: Callable[[float], None] = time.sleep) -> None:
        """Raises ConfigError where the key is not set, InfraError where the cache cannot be opened."""
        self.task, self.spec = task, spec
        self.client = Client(spec.endpoint, "judge.endpoint")
        self.counts: Counter[str] = Counter()
        self._window: deque[str | None] = deque(maxlen=WINDOW)  # None, or the trouble in words
        self._sleep = sleep

    def judge(
        self, pairs: Sequence[tuple[Document, Sequence[str]]], scores: Sequence[Sequence[RubricScore]]
    ) -> list[list[RubricScore]]:
        """The same scores with the part `judge`. Only attempts that passed the gates are judged; equal ones once.

        Raises Paused when too much of what was asked is in trouble for longer than pause_s.
        """
        asked: dict[str, tuple[Document, list[Item]]] = {}
        keys: list[list[str | None]] = []
        for (document, completions), row in zip(pairs, scores, strict=True):
            keys.append([])
            for completion, score in zip(completions, row, strict=True):
                items = self._items(completion) if score.status == "scored" and score.gate is None else []
                key = json.dumps([document.text, [[item.path, item.value] for item in items]]) if items else None
                keys[-1].append(key)
                if key is not None:
                    asked.setdefault(key, (document, items))
        verdicts = dict(zip(asked, self._verdicts(list(asked.values())), strict=True))
        return [
            [
                score if key is None else with_verdict(self.task, score, verdicts[key])
                for key, score in zip(row_keys, row, strict=True)
            ]
            for row_keys, row in zip(keys, scores, strict=True)
        ]

    def _items(self, completion: str) -> list[Item]:
        attempt = parse(completion)
        if not isinstance(attempt, Attempt):
            return []
        found = [
            Item(path, about, value)
            for field, about in self.spec.fields.items()
            for path, value in values_at(attempt.value, field)
        ]
        return found[:MOST_VALUES]

    def _verdicts(self, asked: Sequence[tuple[Document, list[Item]]]) -> list[Score]:
        refused = [[item.path for item in items if not_worth_asking(item.value)] for _, items in asked]
        open_items = [
            [item for item in items if item.path not in no] for (_, items), no in zip(asked, refused, strict=True)
        ]
        numbers = [i for i, items in enumerate(open_items) if items]
        answers = dict(zip(numbers, self._ask([(asked[i][0], open_items[i]) for i in numbers]), strict=True))
        return [
            self._score(items, set(no), answers.get(i))
            for i, ((_, items), no) in enumerate(zip(asked, refused, strict=True))
        ]

    def _score(self, items: Sequence[Item], refused: set[str], answer: list[str] | str | None) -> Score:
        """answer: verdicts of the items that are not refused, or the trouble in words."""
        points: list[float] = []
        findings: list[Finding] = []
        verdicts: Iterator[str] = iter(answer if isinstance(answer, list) else ())
        for item in items:
            if item.path in refused:
                points.append(0.0)
                findings.append(Finding(item.path, item.value, None, 0.0, "says nothing, or speaks to its judge"))
                self.counts["refused"] += 1
            elif isinstance(answer, list):
                verdict = next(verdicts)
                points.append({"right": 1.0, "wrong": 0.0, "unsure": self.spec.unsure}.get(verdict, 0.0))
                findings.append(Finding(item.path, item.value, None, points[-1], f"the judge: {verdict}"))
                self.counts[verdict] += 1
        if isinstance(answer, str):
            self.counts["abstained"] += 1
            if not points:
                return not_applicable(f"the judge abstains: {answer}")
            findings.append(Finding("", None, None, None, f"the judge abstains: {answer}"))
        return scored(fsum(points) / len(points), findings)

    def _ask(self, asked: Sequence[tuple[Document, list[Item]]]) -> list[list[str] | str]:
        """Verdicts in the order of the items, or the trouble in words."""
        questions = [question(document, items) for document, items in asked]
        results: list[list[str] | str] = [""] * len(asked)
        again: list[int] = []
        for i, outcome in enumerate(self._outcomes([q.request for q in questions])):
            if isinstance(outcome, Trouble):
                results[i] = f"{outcome.kind}: {outcome.message}"
                continue
            results[i] = verdicts = json.loads(outcome.text)
            numbered = [verdicts[str(n + 1)] for n in range(len(asked[i][1]) + 1)]
            control = numbered.pop(questions[i].control - 1)
            results[i] = numbered
            if control == "right":
                again.append(i)
        if again:
            self._test_again(asked, results, again)
        return results

    def _test_again(
        self, asked: Sequence[tuple[Document, list[Item]]], results: list[list[str] | str], again: Sequence[int]
    ) -> None:
        """Where nonsense was called right: was it the document (or the judge), or the values?"""
        plain = [
            question(document, [replace(item, value=nonsense(document, str(n))) for n, item in enumerate(items)])
            for document, items in (asked[i] for i in again)
        ]
        for i, outcome in zip(again, self._outcomes([q.request for q in plain]), strict=True):
            if isinstance(outcome, Trouble):
                results[i] = f"{outcome.kind}: {outcome.message}"
            elif "right" in json.loads(outcome.text).values():
                results[i] = "it calls nonsense right, whatever the values"
                self._window.append("it calls nonsense right")
                self.counts["not_believed"] += 1
            else:
                results[i] = ["wrong"] * len(asked[i][1])
                self.counts["turned"] += len(asked[i][1])
        self._check_window()

    def _outcomes(self, requests: Sequence[Request]) -> list[Answer | Trouble]:
        """Answers and what trouble is left; waits while there is too much of it. Raises Paused."""
        outcomes: list[Answer | Trouble] = [Trouble("client", "not asked")] * len(requests)
        open_, waited, pause = list(range(len(requests))), 0.0, FIRST_PAUSE_S
        while True:
            for n, outcome in self.client.complete_all([requests[i] for i in open_]):
                outcomes[open_[n]] = outcome
            self._window.extend(str(o.kind) if isinstance(o, Trouble) else None for o in (outcomes[i] for i in open_))
            open_ = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, Trouble)]
            if not open_ or not self._too_much():
                return outcomes
            troubles = [outcome for outcome in outcomes if isinstance(outcome, Trouble)]
            if any(trouble.fatal for trouble in troubles) or waited + pause > self.spec.pause_s:
                raise self._paused(troubles[-1].message, waited)
            log.warning("judge: %s; scoring waits %.0f s for the endpoint", self._share(), pause)
            self._sleep(pause)
            waited, pause = waited + pause, min(2 * pause, LONGEST_PAUSE_S)
            for kind in [kind for kind in self._window if kind is not None][-len(open_) :]:
                self._window.remove(kind)  # what is asked again counts once

    def _too_much(self) -> bool:
        trouble = sum(kind is not None for kind in self._window)
        return len(self._window) >= FEWEST and trouble > self.spec.pause_above * len(self._window)

    def _check_window(self) -> None:
        if self._too_much():
            raise self._paused("another model may judge better", 0.0)

    def _share(self) -> str:
        kinds = Counter(kind for kind in self._window if kind is not None)
        named = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(3))
        return f"{sum(kinds.values())} of its last {len(self._window)} answers are trouble ({named})"

    def _paused(self, last: str, waited: float) -> Paused:
        after = f" after waiting {waited:.0f} s" if waited else ""
        return Paused(f"judge: {self._share()}{after}; the last: {last}; mend judge.endpoint and start again")


def with_verdict(task: Task, score: RubricScore, verdict: Score) -> RubricScore:
    """The score with the part `judge`; its total is lower or the same."""
    kept = [i for i, check in enumerate(score.checks) if check != "judge"]
    findings = (*(score.findings[i] for i in kept), *verdict.findings)
    checks = (*(score.checks[i] for i in kept), *("judge" for _ in verdict.findings))
    total, weights = score.total, task.rubric.rewards
    if verdict.value is not None:
        others = fsum(weights[name] for name, value in score.parts.items() if value is not None and name != "judge")
        floor = max(task.rubric.gates.values(), default=0.0)
        share = weights["judge"] / (others + weights["judge"])
        total = min(total, floor + (total - floor) * (1.0 - share * (1.0 - verdict.value)))
    return replace(score, total=total, parts={**score.parts, "judge": verdict.value}, findings=findings, checks=checks)
