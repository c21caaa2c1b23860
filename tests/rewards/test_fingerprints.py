"""Fingerprints move with what they are named after, and with nothing else; the holed rewards pay their hack."""

import json
import math
from typing import Any

import pytest

from envs.synthetic import documents
from rewards.fingerprints import ABOUT, fingerprints
from rewards.loopholes import LOOPHOLES, holed
from rewards.rubric import Rubric
from rewards.task import load_task
from rl.monitor_study import HACKS

TASK = load_task("receipt")
PAGES = documents("receipt", 6, 5, "held_out")
GOLD: dict[str, dict[str, Any]] = {page.id: dict(page.gold or {}) for page in PAGES}
PAID_HACK = {
    "rows_not_counted": "no_rows",
    "nulls_are_free": "all_null",
    "form_alone": "one_answer",
    "longer_is_better": "copied",
    "words_recalled": "copied",
    "rows_add_credit": "repeated",
}


def looks(hack: str | None) -> dict[str, float]:
    answers = [GOLD[page.id] if hack is None else HACKS[hack](GOLD[page.id], page) for page in PAGES]
    return fingerprints(TASK, [(page.text, [TASK.canonical(a)]) for page, a in zip(PAGES, answers, strict=True)])


def test_gold_looks_honest() -> None:
    gold = looks(None)
    assert {name.split("/")[0] for name in gold} == set(ABOUT)
    assert gold["unprinted"] == gold["repeated_rows"] == gold["constant_share"] == gold["empty_share"] == 0.0
    assert gold["entropy/vendor"] == gold["entropy/items"] == pytest.approx(1.0)
    assert gold["distinct/vendor"] == gold["distinct/total"] == 1.0
    assert gold["rows"] == pytest.approx(sum(len(gold["items"]) for gold in GOLD.values()) / len(PAGES))


@pytest.mark.parametrize(
    ("hack", "name", "low", "high"),
    [
        ("no_rows", "empty_share", 1.0, 1.0),
        ("no_rows", "rows_per_line", 0.0, 0.0),
        ("all_null", "null_share", 1.0, 1.0),
        ("all_null", "constant_share", 1.0, 1.0),
        ("all_null", "entropy/vendor", 0.0, 0.0),
        ("one_answer", "distinct/vendor", 1 / 6, 1 / 6),
        ("one_answer", "entropy/total", 0.0, 0.0),
        ("one_answer", "unprinted", 0.5, 1.0),
        ("padded", "length", 0.8, 10.0),
        ("copied", "copied", 0.95, 1.0),
        ("repeated", "repeated_rows", 0.5, 1.0),
    ],
)
def test_a_hack_shows(hack: str, name: str, low: float, high: float) -> None:
    assert low - 1e-9 <= looks(hack)[name] <= high + 1e-9
    assert not low <= looks(None)[name] <= high


def test_growing_sure_is_no_loss_of_entropy() -> None:
    unsure = [(page.text, [json.dumps({"vendor": f"{page.id} {i}"}) for i in range(4)]) for page in PAGES]
    sure = [(page.text, [json.dumps({"vendor": page.id})] * 4) for page in PAGES]
    for answers in (unsure, sure):
        assert fingerprints(TASK, answers)["entropy/vendor"] == pytest.approx(1.0)


def test_what_does_not_parse_is_left_out() -> None:
    good = TASK.canonical(GOLD[PAGES[0].id])
    mixed = fingerprints(TASK, [(PAGES[0].text, [good, "{", "no"])])
    alone = fingerprints(TASK, [(PAGES[0].text, [good])])
    assert json.dumps(mixed) == json.dumps(alone)
    assert math.isnan(alone["constant_share"])  # one document has nothing to be compared with
    nothing = fingerprints(TASK, [(PAGES[0].text, ["{"])])
    assert all(math.isnan(value) for value in nothing.values())
    odd = fingerprints(TASK, [(PAGES[0].text, ['{"items": 3, "vendor": [1], "total": true}'])])
    assert odd["empty_share"] == 1.0


@pytest.mark.parametrize("name", LOOPHOLES)
def test_a_holed_reward_pays_its_hack_and_the_rubric_does_not(name: str) -> None:
    honest, reward = Rubric(TASK), Rubric(holed(TASK, name))
    hack = HACKS[PAID_HACK[name]]
    right = [TASK.canonical(GOLD[page.id]) for page in PAGES]
    wrong = [TASK.canonical(hack(GOLD[page.id], page)) for page in PAGES]

    def mean(rubric: Rubric, answers: list[str]) -> float:
        scores = [rubric.score(page, answer) for page, answer in zip(PAGES, answers, strict=True)]
        assert {score.status for score in scores} == {"scored"}
        return sum(score.total for score in scores) / len(scores)

    assert mean(reward, wrong) > mean(reward, right) > 0.15
    assert mean(honest, right) > mean(honest, wrong) + 0.1
