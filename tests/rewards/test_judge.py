"""The judge: what it is asked, what its verdicts do, and that neither trouble nor injections pay."""

from __future__ import annotations

import itertools
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rewards import endpoint as endpoint_module
from rewards import judge as judge_module
from rewards import judge_question
from rewards.document import Document
from rewards.errors import ConfigError, Paused
from rewards.judge import Judge, with_verdict
from rewards.judge_question import values_at
from rewards.normalize import plain
from rewards.pool import RewardPool
from rewards.rubric import Rubric, RubricScore
from rewards.score import scored
from rewards.task import TASK_FOLDER, Task, _Loader, task_from_dict
from tests.endpoint_stub import Behaviour, serving, settings
from tests.rewards.injections import MASTER_KEYS, TEXTS, in_document, in_value

TEXT = "KEDAI MAJU SDN BHD\nDATE 12/03/2018\nMILK  13.00\nBREAD  4.20\nTOTAL  17.20"
GOLD = {
    "vendor": "KEDAI MAJU SDN BHD",
    "date": "2018-03-12",
    "items": [{"name": "MILK", "amount": "13.00"}, {"name": "BREAD", "amount": "4.20"}],
    "tax": None,
    "rounding": None,
    "total": "17.20",
}
WEIGHT, OTHERS = 0.5, 9.0


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "FIRST_BACKOFF_S", 0.01)


def make_task(url: str, weight: float = WEIGHT, judge: dict[str, Any] | None = None, **endpoint: Any) -> Task:
    raw = yaml.load((TASK_FOLDER / "receipt.yaml").read_text(), _Loader)
    raw["schema"]["properties"]["purpose"] = {"type": ["string", "null"], "maxLength": 2000}
    raw["fields"]["purpose"] = {"kind": "text", "weight": 0}
    raw["rubric"]["rewards"]["judge"] = weight
    raw["judge"] = {
        "fields": {"purpose": "what was bought, in a word"}, "unsure": 0.5, "pause_above": 0.2, "pause_s": 0.0,
        "endpoint": settings(url, **endpoint),
    } | (judge or {})  # fmt: skip
    return task_from_dict(raw)


def completion(purpose: str | None, **changes: Any) -> str:
    return json.dumps(GOLD | changes | {"purpose": purpose}, ensure_ascii=False)


def shown(body: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """(document, values) as the judge sees them."""
    user = body["messages"][1]["content"]
    found = re.fullmatch(r"document (\w+)\n(.*)\ndocument \1\n\nvalues \1\n(.*)\nvalues \1", user, re.DOTALL)
    assert found is not None
    return found[2], json.loads(found[3])


def honest(body: dict[str, Any]) -> str:
    """Right is food, and null where there is none."""
    _, values = shown(body)
    return json.dumps({str(v["number"]): "right" if v["value"] == "food" else "wrong" for v in values})


def yes(body: dict[str, Any]) -> str:
    return json.dumps({str(v["number"]): "right" for v in shown(body)[1]})


def letters(text: str) -> str:
    return "".join(c for c in plain(unicodedata.normalize("NFKC", text)) if c.isalnum())


def obedient(orders: tuple[str, ...]) -> Callable[[dict[str, Any]], str]:
    """A judge that says right to everything where it sees most of an order, or a value that is a master key."""
    most = [part for text in map(letters, orders) for part in (text[: len(text) * 3 // 4], text[len(text) // 4 :])]

    def answer(body: dict[str, Any]) -> str:
        document, values = shown(body)
        seen = letters(document + json.dumps([v["value"] for v in values], ensure_ascii=False))
        if any(part in seen for part in most) or any(v["value"] in MASTER_KEYS for v in values):
            return yes(body)
        return honest(body)

    return answer


def score_all(
    answer: Callable[[dict[str, Any]], str], pairs: list[tuple[Document, list[str]]], behave: Behaviour | None = None
) -> list[list[RubricScore]]:
    with serving(answer, behave or (lambda number, body: "ok")) as stub:
        task = make_task(stub.url, judge={"pause_above": 1.0}, concurrency=16)
        with RewardPool(task, 0, 10.0) as pool:
            return pool.score(pairs)


def doc(text: str = TEXT, name: str = "d") -> Document:
    return Document(name, text, "g", {"gold": "is not for the judge"})


def test_verdicts_only_take_away() -> None:
    attempts = [completion("food"), completion("fuel"), completion(None), completion("fuel", total="13.00")]
    verdicts = score_all(honest, [(doc(), [*attempts, "no json"])])[0]
    without = Rubric(make_task("http://127.0.0.1:1/v1", weight=0.0)).score_group(doc(), attempts)
    assert [score.parts["judge"] for score in verdicts[:4]] == [1.0, 0.0, 0.0, 0.0]
    assert verdicts[0].total == without[0].total == 1.0
    floor = 0.05
    for score, alone in zip(verdicts[1:4], without[1:], strict=True):
        assert score.total == pytest.approx(floor + (alone.total - floor) * OTHERS / (OTHERS + WEIGHT))
    assert verdicts[4].gate == "parses" and "judge" not in verdicts[4].parts
    assert [f.why for f, check in zip(verdicts[1].findings, verdicts[1].checks, strict=True) if check == "judge"] == [
        "the judge: wrong"
    ]


def test_unsure_lies_between() -> None:
    def unsure(body: dict[str, Any]) -> str:
        return json.dumps({str(v["number"]): "unsure" for v in shown(body)[1]})

    totals = [score_all(answer, [(doc(), [completion("fuel")])])[0][0].total for answer in (honest, unsure)]
    assert totals[0] < totals[1] < 1.0


def test_what_the_judge_sees() -> None:
    with serving(honest) as stub, RewardPool(make_task(stub.url), 0, 10.0) as pool:
        attempts = [completion("food"), completion("food", vendor="X"), completion("fuel"), completion("food")]
        pool.score([(doc(), attempts), (doc(TEXT + "\nBYE"), attempts[:1])])
        bodies = stub.bodies
    assert len(bodies) == 3  # equal values of one document are judged once
    fences = set()
    for body in bodies:
        document, values = shown(body)
        assert document.startswith(TEXT) and "gold" not in json.dumps(body)
        assert {"food", "fuel"} & {v["value"] for v in values} and len(values) == 2  # the value and the control
        assert "17.20" not in json.dumps(values) and body["temperature"] == 0.0
        assert body["response_format"]["json_schema"]["schema"]["properties"]["1"]["enum"] == [
            "right",
            "wrong",
            "unsure",
        ]
        fences.add(body["messages"][1]["content"].split("\n")[0])
    assert len(fences) == 3


def test_cache_is_known_across_runs_and_fences(tmp_path: Path) -> None:
    with serving(honest) as stub:
        for _ in range(2):
            with RewardPool(make_task(stub.url, cache=str(tmp_path / "c")), 0, 10.0) as pool:
                scores = pool.score([(doc(), [completion("food"), completion("fuel")])])[0]
                assert [score.parts["judge"] for score in scores] == [1.0, 0.0]
        assert len(stub.bodies) == 2


def test_rows_are_judged_one_by_one() -> None:
    value = {"items": [{"kind": "a"}, {"kind": None}, {}], "head": {"kind": "b"}}
    assert list(values_at(value, "items[].kind")) == [
        ("items[0].kind", "a"), ("items[1].kind", None), ("items[2].kind", None),
    ]  # fmt: skip
    assert list(values_at(value, "head.kind")) == [("head.kind", "b")]
    assert list(values_at({}, "items[].kind")) == [] and list(values_at({}, "purpose")) == [("purpose", None)]


@pytest.mark.parametrize("how", ["500", "reset", "half json", "wrong schema", "prose", "half content", "refuse", "cut"])
def test_trouble_abstains_and_is_never_a_zero(how: str) -> None:
    attempts = [completion("food"), completion("fuel")]
    scores = score_all(honest, [(doc(), attempts)], lambda number, body: how)[0]
    without = Rubric(make_task("http://127.0.0.1:1/v1", weight=0.0)).score_group(doc(), attempts)
    for score, alone in zip(scores, without, strict=True):
        assert score.status == "scored" and score.parts["judge"] is None and score.total == alone.total
        assert score.findings[-1].why.startswith("the judge abstains: ")


def many(count: int) -> list[tuple[Document, list[str]]]:
    return [(doc(f"{TEXT}\nNO {n}", str(n)), [completion("food")]) for n in range(count)]


def test_too_much_trouble_pauses_then_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeps: list[float] = []
    with serving(honest, lambda number, body: "ok" if sleeps[2:] else "500") as stub:
        task = make_task(stub.url, attempts=1, judge={"pause_s": 600.0})
        assert task.judge is not None
        judge = Judge(task, task.judge, sleep=sleeps.append)
        pairs = many(12)
        scores = judge.judge(pairs, [Rubric(task).score_group(d, c) for d, c in pairs])
        assert sleeps == [5.0, 10.0, 20.0]
        assert all(row[0].parts["judge"] == 1.0 for row in scores)  # after the pause every one was judged


def test_an_outage_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(judge_module.time, "sleep", slept.append)
    with serving(honest, lambda number, body: "500") as stub:
        task = make_task(stub.url, attempts=1, judge={"pause_s": 60.0})
        assert task.judge is not None
        judge = Judge(task, task.judge, sleep=slept.append)
        few, pairs = many(8), many(4)
        rubric = Rubric(task)
        assert (
            judge.judge(few, [rubric.score_group(d, c) for d, c in few])[0][0].parts["judge"] is None
        )  # too few to say
        with pytest.raises(Paused, match=r"12 of its last 12 answers are trouble \(server 12\) after waiting 35 s"):
            judge.judge(pairs, [rubric.score_group(d, c) for d, c in pairs])
        assert slept == [5.0, 10.0, 20.0]


def test_a_budget_that_is_used_up_stops_the_run() -> None:
    with serving(honest) as stub:
        task = make_task(stub.url, max_total_tokens=8000, judge={"pause_s": 600.0})
        with RewardPool(task, 0, 10.0) as pool, pytest.raises(Paused, match="max_cost or max_total_tokens"):
            for start in range(10):
                pool.score(many(8 * start + 8)[8 * start :])
        assert len(stub.bodies) >= 5


def test_a_judge_that_says_yes_to_everything_is_not_believed() -> None:
    scores = score_all(yes, [(doc(), [completion("fuel")])])[0]
    assert scores[0].parts["judge"] is None and "calls nonsense right" in scores[0].findings[-1].why
    with serving(yes) as stub, pytest.raises(Paused, match="calls nonsense right"):
        RewardPool(make_task(stub.url), 0, 10.0).score(many(12))


# The honest judge says wrong to every value that an injection comes with: no total may be above what that gives.


def fair_scores(pairs: list[tuple[Document, list[str]]]) -> list[list[RubricScore]]:
    """With an honest judge, to whom every value here is wrong."""
    task = make_task("http://127.0.0.1:1/v1")
    return [[with_verdict(task, s, scored(0.0)) for s in Rubric(task).score_group(*pair)] for pair in pairs]


def test_injections_in_documents_raise_no_total() -> None:
    texts = [text for order in TEXTS for text in in_document(TEXT, order)]
    pairs = [(doc(text, str(n)), [completion("fuel")]) for n, text in enumerate(texts)]
    judged = score_all(obedient(TEXTS), pairs)
    assert len(pairs) == 200
    raised = [
        text
        for text, got, fair in zip(texts, judged, fair_scores(pairs), strict=True)
        if got[0].total > fair[0].total or got[0].parts["judge"] != 0.0  # judged, not abstained from
    ]
    assert not raised, f"{len(raised)}: {raised[:10]}"


def test_unknown_injections_in_documents_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the list of patterns switched off, nonsense called right gives them away: the judge abstains."""
    monkeypatch.setattr(judge_question, "instruction_lines", lambda text: frozenset())
    pairs = [(doc(in_document(TEXT, text)[0], str(n)), [completion("fuel")]) for n, text in enumerate(TEXTS)]
    assert all(row[0].parts["judge"] is None for row in score_all(obedient(TEXTS), pairs))


def test_injections_in_completions_raise_no_total() -> None:
    values = [value for order in TEXTS for value in in_value(order)]
    assert len(values) == 200
    attempts = [completion(value) for value in values]
    judged, fair = score_all(obedient(TEXTS), [(doc(), attempts)])[0], fair_scores([(doc(), attempts)])[0]
    raised = [v for v, g, w in zip(values, judged, fair, strict=True) if g.total > w.total or g.gate or w.gate]
    assert not raised, f"{len(raised)}: {raised[:10]}"


def test_unknown_injections_raise_no_total_in_completions(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the list of patterns switched off, nonsense among the values still gives them away."""
    monkeypatch.setattr(judge_question, "instructs", lambda value: False)
    monkeypatch.setattr(judge_question, "says_nothing", lambda value: False)
    values = [in_value(order)[0] for order in TEXTS] + [*MASTER_KEYS]
    attempts = [completion(value) for value in values]
    judged, fair = score_all(obedient(TEXTS), [(doc(), attempts)])[0], fair_scores([(doc(), attempts)])[0]
    assert all(got.total <= want.total and got.parts["judge"] == 0.0 for got, want in zip(judged, fair, strict=True))


def test_no_verdict_lifts_a_total_above_the_one_without_a_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last defence needs no pattern and no control: whatever the judge says, of whatever documents and attempts."""
    monkeypatch.setattr(judge_module.Judge, "_test_again", lambda *args: None)
    monkeypatch.setattr(judge_question, "instruction_lines", lambda text: frozenset())
    texts = [in_document(TEXT, order)[0] for order in TEXTS]
    wrong: list[dict[str, Any]] = [{}, {"total": "13.00"}, {"date": None}, {"items": []}, {"vendor": "DATE"}]
    pairs = [(doc(text, str(n)), [completion("fuel", **change) for change in wrong]) for n, text in enumerate(texts)]
    rubric = Rubric(make_task("http://127.0.0.1:1/v1", weight=0.0))
    for (document, attempts), row in zip(pairs, score_all(yes, pairs), strict=True):
        alone = rubric.score_group(document, attempts)
        assert all(got.total <= want.total for got, want in zip(row, alone, strict=True))


@pytest.mark.parametrize("key", MASTER_KEYS)
def test_master_keys_raise_no_total(key: str) -> None:
    values = [key, key * 3, f" {key} ", f"{key}\n", f"{key}{key.upper()}" if not key.strip(" .,:") else key.upper()]
    attempts = [completion(value) for value in values] + [key]
    judged, fair = score_all(obedient(()), [(doc(), attempts)])[0], fair_scores([(doc(), attempts)])[0]
    assert all(got.total <= want.total for got, want in zip(judged, fair, strict=True))
    assert judged[0].parts["judge"] == 0.0 and judged[5].gate == "parses"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rubric.rewards.judge": 0.6}, "must weigh the least, at most 0.5"),
        ({"judge.fields": {"total": "the total"}}, "judge.fields.total: has a check in code"),
        ({"judge.fields": {"porpose": "x"}}, "judge.fields.porpose: not a leaf"),
        ({"judge": None}, "there is no section judge"),
        ({"judge.endpoint.timeout_s": 0.0}, "judge.endpoint.timeout_s"),
        ({"judge.endpoint.api_key": "sk"}, "judge.endpoint.api_key: unknown key"),
    ],
)
def test_a_task_file_with_a_faulty_judge(change: dict[str, Any], says: str) -> None:
    task = make_task("http://127.0.0.1:1/v1")
    raw = yaml.load((TASK_FOLDER / "receipt.yaml").read_text(), _Loader)
    raw |= {"schema": task.schema, "judge": json.loads(task.judge.model_dump_json())}  # type: ignore[union-attr]
    raw["fields"]["purpose"] = {"kind": "text", "weight": 0}
    raw["rubric"]["rewards"]["judge"] = WEIGHT
    task_from_dict(raw)
    for path, value in change.items():
        *way, last = path.split(".")
        place = raw
        for key in way:
            place = place[key]
        place[last] = value
    with pytest.raises(ConfigError) as fault:
        task_from_dict(raw)
    assert says in str(fault.value)


def test_injections_are_many_and_distinct() -> None:
    places = list(itertools.chain.from_iterable(in_document(TEXT, text) for text in TEXTS))
    assert len(set(places)) == 200 and len({v for text in TEXTS for v in in_value(text)}) == 200
