"""A comparison in numbers: seeds add up, pairs are pairs, costs count once, the sentence says what the data can."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from envs.documents import Trace
from rewards.document import Document
from rewards.errors import ConfigError, DataError
from rewards.rubric import Rubric
from rewards.task import load_task
from rl import compare, report
from rl.compare_config import CompareConfig, Prices
from rl.evaluate import Answer
from rl.evaluate import report as field_report

TASK = load_task("receipt")
RUBRIC = Rubric(TASK)
PRICES = Prices(
    currency="USD",
    human_label=0.5,
    teacher_prompt=5.0,
    teacher_completion=15.0,
    teacher_prompt_overhead=100.0,
    characters_per_token=4.0,
    machine_hour=0.1,
)


def document(i: int) -> Document:
    gold = {
        "vendor": f"KEDAI {chr(65 + i)} SDN BHD",
        "date": "2018-03-12",
        "items": [{"name": "MILK 1L", "amount": "13.00"}],
        "tax": None,
        "rounding": None,
        "total": "13.00",
    }
    text = f"KEDAI {chr(65 + i)} SDN BHD\nDATE: 12/03/2018\nMILK 1L  13.00\nTOTAL  13.00\nCASH  20.00"
    return Document(f"d{i}", text, f"g{i}", gold)


DOCUMENTS = [document(i) for i in range(12)]


def answers(right: int, **changes: object) -> list[Answer]:
    """Right on the first `right` documents, with `changes` to gold on the others."""
    found = []
    for i, d in enumerate(DOCUMENTS):
        value = dict(d.gold or {}) | ({} if i < right else changes)
        text = TASK.canonical(value)
        found.append(Answer(d.id, d.group, text, "stop", 9, RUBRIC.score(d, text), field_report(TASK, text, d.gold)))
    return found


def measured(right: int, **changes: object) -> compare.Measured:
    return compare.measure(TASK, DOCUMENTS, answers(right, **changes))


def value(m: compare.Measured, name: str) -> float:
    top, below = m.ratios[name]
    return float(top.sum() / below.sum())


def test_what_is_invented_and_what_is_left_out() -> None:
    invented = measured(6, vendor="FOO BAR TRADING")
    assert value(invented, "hallucination") == pytest.approx(6 / (12 * 5))
    assert value(invented, "omission") == 0.0  # a wrong value is no gap
    silent = measured(6, vendor=None)
    assert value(silent, "hallucination") == 0.0
    assert value(silent, "omission") == pytest.approx(6 / (12 * 5))
    elsewhere = measured(0, total="20.00")  # the cash: printed, if not as this
    assert value(elsewhere, "hallucination") == 0.0


def test_seeds_add_up_document_by_document() -> None:
    both = compare.combine([measured(6, total=None), measured(12)])
    assert value(both, "header_exact") == pytest.approx(18 / 24)
    assert both.ratios["header_exact"][0].tolist() == [2.0] * 6 + [1.0] * 6


def test_a_difference_is_paired_and_over_documents_that_both_answered() -> None:
    before = measured(4, total=None)
    shuffled = list(reversed(answers(8, total=None)))
    after = compare.measure(TASK, DOCUMENTS, shuffled[:-2])  # without d0 and d1, in another order
    groups = {d.id: d.group for d in DOCUMENTS}
    delta = compare.differences(before, after, resamples=500, groups=groups, seen=frozenset({"g2", "g3", "g4"}))
    assert delta["n"] == 10
    assert delta["header_exact"]["value"] == pytest.approx(4 / 10)
    assert delta["seen"]["n"] == 3 and delta["unseen"]["n"] == 7
    assert delta["seen"]["header_exact"]["value"] == pytest.approx(1 / 3)


def test_an_answer_to_another_document_is_an_error() -> None:
    with pytest.raises(DataError, match="document d11: answered"):
        compare.measure(TASK, DOCUMENTS[:11], answers(12))


def test_the_teachers_row_is_its_traces_and_the_best_of_them() -> None:
    right = json.dumps(DOCUMENTS[0].gold)
    wrong = json.dumps((DOCUMENTS[0].gold or {}) | {"total": "99.00"})
    traces = {"d0": [Trace("d0", "t", right), Trace("d0", "t", wrong)]}
    (last,) = compare.recorded_answers(TASK, DOCUMENTS, traces)
    (best,) = compare.recorded_answers(TASK, DOCUMENTS, traces, best=True)
    assert last.report is not None and best.report is not None
    assert (last.report.header_exact, best.report.header_exact) == (False, True)


def test_costs_of_a_chain_and_of_seeds() -> None:
    first = {"human_labels": 0, "teacher_calls": 10, "teacher_prompt_tokens": 2e6, "seconds_training": 1800.0}
    second = {"human_labels": 0, "seconds_training": 1800.0, "peak_memory_mb": 7.0}
    chain = compare.add_costs([first, second])
    assert chain["teacher_calls"] == 10 and chain["seconds_training"] == 3600.0 and chain["peak_memory_mb"] == 7.0
    assert compare.money(chain, PRICES) == pytest.approx(10.0 + 0.1)
    assert compare.mean_costs([{"updates": 10}, {"updates": 20}]) == {"updates": 15.0}


def test_tokens_of_a_teacher_are_reckoned_from_its_texts() -> None:
    d = DOCUMENTS[0]
    tokens = compare.teacher_tokens([d], {"d0": [Trace("d0", "t", "x" * 40)] * 2}, PRICES)
    assert tokens["teacher_calls"] == 2
    assert tokens["teacher_tokens"] == round(2 * (len(d.text) / 4 + 100 + 10))


def row(name: str, m: compare.Measured, documents: int | None = 10, **cost: float) -> compare.Row:
    return compare.Row(name, documents, (0,) if documents else (), m, (m,), {"seconds_training": 60.0, **cost})


def test_the_sentence_says_when_the_data_cannot_tell() -> None:
    starter = row("starter", measured(2, total=None), None)
    near, far = row("distill", measured(9, total=None), human_labels=0), row("sft", measured(10, total=None))
    options = {"resamples": 500, "prices": PRICES, "teacher": None}
    sentence, facts = compare.verdict([starter, near, far], "header_exact", starter, **options)  # type: ignore[arg-type]
    assert facts["winner"] == "sft" and facts["ties"] == ["distill"]
    assert "the data cannot tell it from distill" in sentence and "12 test documents" in sentence
    clear, facts = compare.verdict(
        [starter, row("distill", measured(2, total=None)), far],
        "header_exact",
        starter,
        **options,  # type: ignore[arg-type]
    )
    assert facts["ties"] == [] and "tell it from every other" in clear
    teacher = row("teacher", measured(9, total=None), None)
    level, facts = compare.verdict(
        [teacher, far], "header_exact", teacher, resamples=500, prices=PRICES, teacher="teacher"
    )
    assert facts["ties"] == ["teacher"] and "cannot tell it from teacher" in level
    with pytest.raises(DataError, match="no method"):
        compare.verdict([starter], "header_exact", starter, **options)  # type: ignore[arg-type]


def test_a_method_of_several_sizes_stands_for_itself_by_its_best() -> None:
    starter = row("starter", measured(2, total=None), None)
    rows = [row(name, measured(right, total=None), size) for name, size, right in (("sft", 30, 2), ("sft", 100, 9))]
    rows += [row("distill", measured(right, total=None), size) for size, right in ((30, 2), (100, 10), (300, 9))]
    sentence, facts = compare.verdict(
        [starter, *rows[::-1]], "header_exact", starter, resamples=500, prices=PRICES, teacher=None
    )
    assert (facts["winner"], facts["documents"], facts["runner_up"]) == ("distill", 100, "sft")
    # Told from sft on 30 documents, but not from sft on 100; nor from its own 300.
    assert set(facts["ties"]) == {"sft", "distill on 300 documents"}
    assert facts["over_runner_up"]["value"] == pytest.approx(1 / 12) and "(next: sft, +0.083" in sentence


def test_of_equals_the_cheaper_one_wins() -> None:
    starter = row("starter", measured(2, total=None), None)
    dear, cheap = row("sft", measured(9, total=None), human_labels=99), row("grpo", measured(9, total=None))
    _, facts = compare.verdict(
        [starter, dear, cheap], "header_exact", starter, resamples=200, prices=PRICES, teacher=None
    )
    assert facts["winner"] == "grpo"


def config(folder: Path) -> CompareConfig:
    from launch.compose import compose_compare

    return compose_compare(["docs.path=x.jsonl", f"dir={folder}", "name=t", "bootstrap=200", "wandb=false"])


SEEN = {None: frozenset({"g0", "g1", "g2"}), 10: frozenset({"g0", "g1", "g2"}), 5: frozenset({"g0"})}
DATA = {k: {"documents": 12, "hash": "aa"} for k in ("train", "select", "test")} | {"task": "bb"}


def test_a_method_that_harms_has_not_won(tmp_path: Path) -> None:
    starter, worse = row("starter", measured(10, total=None), None), row("distill", measured(2, total=None))
    told, facts = compare.verdict([starter, worse], "header_exact", starter, resamples=500, prices=PRICES, teacher=None)
    assert told.startswith("no method beat starter: the best, distill on 10 documents, has header_exact 0.167")
    assert facts["lost_to"] == ["starter"] and " won " not in told


def test_the_card_is_of_the_size_that_won_and_seeds_without_a_value_stand_apart(tmp_path: Path) -> None:
    silent = compare.measure(TASK, DOCUMENTS, [replace(a, completion="no JSON") for a in answers(12)])
    some = measured(4, total=None)
    large = compare.Row("sft", 10, (0, 1), compare.combine([some, silent]), (some, silent))
    rows = [row("starter", measured(1, total=None), None), row("sft", measured(11, total=None), 5), large]
    report.write(config(tmp_path), tmp_path, DATA, rows, SEEN, DOCUMENTS, {})
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["verdict"]["documents"] == 5 and summary["methods"]["sft"]["documents"] == 10
    assert [e["seen"]["n"] for e in summary["curve"]] == [1, 3]  # by what each was trained on
    assert (tmp_path / "cards" / "sft.md").read_text().startswith("# sft on 5 documents")
    assert "0.000 -" in (tmp_path / "report.md").read_text()  # hallucination: the second seed gave no value
    assert (tmp_path / "report.html").read_text().count("<tr class=best>") == 1


@pytest.mark.parametrize(
    ("metric", "says"),
    [("heder_exact", "give one of reward, documents_exact, header_exact"), ("tokens", "the lower the better")],
)
def test_a_metric_that_cannot_decide_is_refused(metric: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        compare.check_metric(TASK, DOCUMENTS, metric)


def test_gold_that_lacks_keys_decides_what_it_can() -> None:
    short = [replace(d, gold={k: v for k, v in (d.gold or {}).items() if k not in ("items", "tax")}) for d in DOCUMENTS]
    compare.check_metric(TASK, short, "header_exact")
    bare = [replace(d, gold={"items": [{"name": "MILK 1L"}]}) for d in DOCUMENTS]
    with pytest.raises(ConfigError, match="metric=header_exact"):
        compare.check_metric(TASK, bare, "header_exact")


def test_a_starter_that_never_passes_a_gate_has_no_difference() -> None:
    silent = compare.measure(TASK, DOCUMENTS, [_silent(a) for a in answers(12)])
    rows = [row("teacher", measured(9, total=None), None), row("starter", silent, None), row("grpo", measured(10))]
    told, facts = compare.verdict(rows, "reconciles", rows[0], resamples=200, prices=PRICES, teacher="teacher")
    assert "grpo on 10 documents won with reconciles" in told and facts["lost_to"] == []
    told, facts = compare.verdict(rows, "reconciles", rows[1], resamples=200, prices=PRICES, teacher="teacher")
    assert "over_baseline" not in facts and "against teacher itself" in told


def _silent(answer: Answer) -> Answer:
    score = RUBRIC.score(DOCUMENTS[0], "no JSON")
    return replace(answer, completion="no JSON", score=score)


def test_without_gold_the_rubric_decides() -> None:
    bare = [replace(d, gold=None) for d in DOCUMENTS]
    with pytest.raises(ConfigError, match="metric=header_exact: none of the 12 test documents can have it"):
        compare.check_metric(TASK, bare, "header_exact")
    for metric in ("reward", "reconciles", "part/grounded"):
        compare.check_metric(TASK, bare, metric)


def test_the_report_has_everything_and_stands_alone(tmp_path: Path) -> None:
    runs = {}
    for seed, size in ((0, 5), (1, 5), (0, 10)):
        run = tmp_path / "jobs" / f"sft-{size}-s{seed}-abc"
        run.mkdir(parents=True)
        lines = [{"step": s, "kind": "eval", "reward": {"value": 0.5 + s / 10, "ci95": [0.4, 0.9]}} for s in (0, 2)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        runs[run.name] = run
    small = compare.Row(
        "sft", 5, (0, 1), compare.combine([measured(5, total=None)] * 2), (measured(5, total=None),) * 2
    )
    rows = [
        row("teacher", measured(8, vendor=None), None),
        row("starter", measured(2, total=None), None),
        small,
        row("sft", measured(9, total=None), 10, human_labels=10),
    ]
    result = report.write(config(tmp_path), tmp_path, DATA, rows, SEEN, DOCUMENTS, runs)
    summary = json.loads((tmp_path / "summary.json").read_text())
    entry = summary["methods"]["sft"]
    assert entry["documents"] == 10 and entry["seeds"] == [0]
    assert entry["header_exact"]["value"] == pytest.approx(0.75)
    assert entry["header_exact"]["ci95"][0] <= 0.75 <= entry["header_exact"]["ci95"][1]
    assert entry["over_baseline"]["header_exact"]["value"] == pytest.approx(7 / 12)
    assert entry["seen"]["n"] == 3 and entry["unseen"]["n"] == 9
    assert summary["methods"]["teacher"]["header_exact"]["value"] == pytest.approx(8 / 12)
    assert {(e["method"], e["documents"]) for e in summary["curve"]} == {("sft", 5), ("sft", 10)}
    assert result["methods"]["sft"]["header_exact"] == entry["header_exact"]
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4 and "http" not in page
    assert "sft on 10 documents won" in page
    assert {p.name for p in (tmp_path / "plots").iterdir()} == {
        "quality_cost.png", "fields.png", "curves_steps.png", "curves_documents.png",
    }  # fmt: skip
    text = (tmp_path / "report.md").read_text()
    assert "| sft | 10 | 1 | 12 |" in text and "plots/quality_cost.png" in text
    card = (tmp_path / "cards" / "sft.md").read_text()
    assert "version bb" in card and "test aa" in card and "Limits" in card


def test_wandb_has_the_tables_and_the_group_offline_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    told = config(tmp_path).model_copy(update={"wandb": True, "name": "receipts-of-march"})
    rows = [row("starter", measured(2, total=None), None), row("sft", measured(9, total=None))]
    report.write(told, tmp_path, DATA, rows, SEEN, DOCUMENTS, {})
    [run] = (tmp_path / "logs" / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"receipts-of-march-comparison" in run.read_bytes()  # the run's name; its group begins alike
    tables = [json.loads(file.read_text()) for file in run.parent.glob("files/media/table/*.table.json")]
    quality = next(table for table in tables if "header exact" in table["columns"])
    assert [line[0] for line in quality["data"]] == ["starter", "sft"] and quality["data"][1][4].startswith("0.750 [")
    assert list(run.parent.glob("files/media/images/plots/*.png"))


def test_the_hash_of_documents_sees_every_part() -> None:
    base = compare.data_hash(DOCUMENTS)
    changed = Document("d0", DOCUMENTS[0].text, "other", DOCUMENTS[0].gold)
    assert compare.data_hash([changed, *DOCUMENTS[1:]]) != base
    assert compare.data_hash(DOCUMENTS[::-1]) != base
    assert np.isfinite(int(base, 16))
