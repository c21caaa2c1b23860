"""The rubric as filter, table, confidence and queue."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.document import Document
from rewards.grade import confidence, grade, reasons, review_order, risk_coverage, table
from rewards.task import load_task

TASK = load_task("receipt")
TEXT = "KEDAI MAJU SDN BHD\nDATE: 12/03/2018\nMILK 1L  13.00\nBREAD  3.20\nTOTAL  16.20\nCASH  20.00"
RIGHT = {
    "vendor": "KEDAI MAJU SDN BHD", "date": "2018-03-12", "tax": None, "rounding": None, "total": "16.20",
    "items": [{"name": "MILK 1L", "amount": "13.00"}, {"name": "BREAD", "amount": "3.20"}],
}  # fmt: skip
DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "receipts"


def _graded(*attempts: dict[str, object] | str) -> list:  # type: ignore[type-arg]
    document = Document("r1", TEXT, "MAJU", {"total": "never read"})
    return grade([(document, a if isinstance(a, str) else json.dumps(a)) for a in attempts], TASK)


def test_confidence_follows_what_is_wrong() -> None:
    cash = RIGHT | {"total": "20.00"}
    other_day = RIGHT | {"date": "2018-12-03"}
    right, wrong_total, wrong_date, broken = _graded(RIGHT, cash, other_day, "no JSON")
    assert confidence(right) == pytest.approx(1.0)
    assert confidence(wrong_total) < 0.2
    # The date is doubted, the total is not.
    assert confidence(wrong_date, ["date"]) < 0.5 < 0.85 < confidence(wrong_date, ["total"])
    assert confidence(broken) == 0.0
    assert broken.value is None


def test_the_queue_begins_with_the_least_sure_and_says_why() -> None:
    queue = review_order(_graded(RIGHT, RIGHT | {"total": "20.00"}, RIGHT | {"items": RIGHT["items"][:1]}))  # type: ignore[index]
    assert [entry.attempt.value["total"] for entry in queue] == ["20.00", "16.20", "16.20"]  # type: ignore[index]
    assert any(reason.startswith("total: ") for reason in queue[0].reasons)
    assert any("a printed line that no row explains" in reason for reason in queue[1].reasons)
    assert queue[2].reasons == ()
    assert not any("20.00" in reason for entry in queue for reason in entry.reasons)


def test_the_table_counts_every_attempt() -> None:
    found = table(_graded(RIGHT, RIGHT, RIGHT | {"total": "20.00"}, "no JSON"), accept=0.9)
    assert (found["n"], found["errors"], found["gates"]) == (4, 0, {"parses": 1})
    assert found["accepted"] == 0.5
    assert found["fields"]["total"]["doubted"] == pytest.approx(1 / 3)
    assert set(found["fields"]) <= set(TASK.fields)
    assert table([])["reward"] is None


def test_a_reward_in_trouble_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    def trouble(*_: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr("rewards.rubric.reconciles", trouble)
    (attempt,) = _graded(RIGHT)
    assert confidence(attempt) == 0.0
    assert reasons(attempt)[0].startswith("not scored: reconciles: RuntimeError")
    assert table([attempt])["errors"] == 1


def test_risk_coverage_by_hand() -> None:
    curve = risk_coverage([0.9, 0.5, 0.5, 0.1], [True, True, False, False])
    assert [(p.threshold, p.coverage, p.precision) for p in curve.points] == [
        (0.9, 0.25, 1.0), (0.5, 0.75, 2 / 3), (0.1, 1.0, 0.5),
    ]  # fmt: skip
    assert curve.aurc == pytest.approx(0.5 / 3 + 0.25 * 0.5)
    assert curve.augrc == pytest.approx(0.5 * 0.25 + 0.25 * 0.5)
    assert curve.at_coverage(0.3).coverage == 0.75
    assert curve.at_precision(0.99) == curve.points[0]
    assert curve.at_precision(0.6) == curve.points[1]
    with pytest.raises(ValueError, match="at least one"):
        risk_coverage([], [])


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), min_size=1), st.randoms())
def test_the_order_of_the_attempts_does_not_matter(pairs: list[tuple[float, bool]], rng: object) -> None:
    shuffled = list(pairs)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    one, two = (risk_coverage([c for c, _ in some], [r for _, r in some]) for some in (pairs, shuffled))
    assert one == two
    assert one.points[-1].coverage == 1.0
    assert 0.0 <= one.augrc <= one.aurc + 1e-12 <= 1.0 + 2e-12


def test_the_rubric_judges_gpt4o_without_gold() -> None:
    """At least 0.98 of the totals right at 75 % coverage; the training receipts only."""
    if not DATA.is_dir():
        warnings.warn(f"{DATA} is missing: the judge of real answers is not tested", stacklevel=2)
        pytest.skip(f"no real receipts at {DATA}")
    rows = [json.loads(line) for line in (DATA / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    gold = {row["id"]: row["gold"] for row in rows}
    documents = {row["id"]: Document(row["id"], row["text"], row["group"], None) for row in rows}
    traces = [json.loads(line) for line in (DATA / "traces_gpt4o.jsonl").read_text(encoding="utf-8").splitlines()]
    attempts = grade([(documents[t["id"]], t["completion"]) for t in traces if t["id"] in documents], TASK)
    known = [a for a in attempts if gold[a.document]["total"] is not None]
    right = [a.value is not None and a.value["total"] == gold[a.document]["total"] for a in known]
    curve = risk_coverage([confidence(a, ["total"]) for a in known], right)
    assert curve.n >= 600
    assert curve.at_coverage(0.75).precision >= 0.98
    assert curve.at_coverage(0.9).precision >= 0.98
    assert curve.right / curve.n < 0.96  # what accepting everything gives
