"""Labels: one form whatever the source, holes known, the rubric's choice, pairs it really prefers."""

import json

from envs.documents import Trace
from envs.labels import (
    as_printed,
    canonical_value,
    graded_labels,
    labels_from_gold,
    labels_from_traces,
    ranked_pairs,
)
from rewards.document import Document
from rewards.rubric import Rubric
from rewards.task import load_task

TASK = load_task("receipt")
TEXT = "KEDAI MAJU SDN BHD\nDATE: 12/03/2018\nMILK 1L  13.00\nTOTAL  13.00\nCASH 20.00"
RIGHT = {
    "vendor": "KEDAI MAJU SDN BHD",
    "date": "2018-03-12",
    "items": [{"name": "MILK 1L", "amount": "13.00"}],
    "tax": None,
    "rounding": None,
    "total": "13.00",
}
DOCUMENT = Document("a", TEXT, "MAJU", RIGHT)


def trace(extractor: str = "x", **changes: object) -> Trace:
    return Trace("a", extractor, json.dumps(RIGHT | changes))


def test_a_label_has_one_form_whatever_wrote_it() -> None:
    messy = json.dumps({"total": "13", "vendor": "KEDAI MAJU SDN BHD", "date": "2018-03-12", "items": [], "note": "?"})
    value = canonical_value(TASK, messy)
    assert value is not None
    assert list(value) == ["vendor", "date", "items", "tax", "rounding", "total"]
    assert value["total"] == "13.00" and value["tax"] is None
    assert canonical_value(TASK, "no JSON") is None


def test_gold_without_a_key_is_a_hole_and_null_is_none() -> None:
    holed = Document("b", TEXT, "MAJU", {"vendor": "MAJU", "date": None, "total": "13.00"})
    whole, partial = labels_from_gold(TASK, [DOCUMENT, holed, Document("c", TEXT, "g", None)])
    assert whole.unknown == ()
    assert partial.unknown == ("items", "tax", "rounding")


def test_distillation_takes_the_last_answer_that_can_be_read() -> None:
    traces = {"a": [trace(total="1.00"), trace(total="2.00"), Trace("a", "x", "cut {")]}
    (label,) = labels_from_traces(TASK, [DOCUMENT, Document("b", TEXT, "g", None)], traces)
    assert label.value["total"] == "2.00"
    assert label.weight == 1.0


def test_grading_takes_the_best_filters_weighs_and_prunes() -> None:
    rubric = Rubric(TASK)
    traces = {"a": [trace("bad", total="20.00"), trace("good"), trace("worse", total="99.00", vendor="FOO")]}
    options = {"min_reward": 0.9, "weight_power": 2.0, "prune": False}
    (label,) = graded_labels(rubric, [DOCUMENT], traces, **options)  # type: ignore[arg-type]
    assert label.source == "good"
    assert label.reward == 1.0 and label.weight == 1.0
    assert graded_labels(rubric, [DOCUMENT], {"a": traces["a"][2:]}, **options) == []  # type: ignore[arg-type]
    invented = {"a": [trace("tax", tax="7.77")]}
    kept = graded_labels(rubric, [DOCUMENT], invented, min_reward=0.0, weight_power=0.0, prune=False)
    pruned = graded_labels(rubric, [DOCUMENT], invented, min_reward=0.0, weight_power=0.0, prune=True)
    assert kept[0].value["tax"] == "7.77" and pruned[0].value["tax"] is None
    assert (pruned[0].reward or 0) > (kept[0].reward or 0)


def test_grading_reads_no_gold() -> None:
    rubric = Rubric(TASK)
    wrong_gold = Document("a", TEXT, "MAJU", RIGHT | {"total": "20.00"})
    traces = {"a": [trace()]}
    options = {"min_reward": 0.0, "weight_power": 1.0, "prune": True}
    assert graded_labels(rubric, [DOCUMENT], traces, **options) == graded_labels(  # type: ignore[arg-type]
        rubric,
        [wrong_gold],
        traces,
        **options,  # type: ignore[arg-type]
    )


def test_pairs_are_far_enough_apart_and_the_right_way_round() -> None:
    rubric = Rubric(TASK)
    traces = {"a": [trace(), trace(total="20.00"), trace(), Trace("a", "x", '{"vendor":')]}
    (pair,) = ranked_pairs(rubric, [DOCUMENT], traces, min_margin=0.1, pairs_per_document=3)
    assert json.loads(pair.chosen)["total"] == "13.00"
    assert pair.rejected == '{"vendor":'
    assert pair.chosen_reward > pair.rejected_reward
    assert ranked_pairs(rubric, [DOCUMENT], {"a": [trace(), trace()]}, min_margin=0.0, pairs_per_document=1) == []


def test_labels_take_the_document_s_own_letters() -> None:
    text = "DION REALTIES  SDN BHD\nPay Parking\n5.00\nTAXI 3.00"
    value = {"vendor": "Dion Realties Sdn Bhd", "items": [{"name": "PAY PARKING"}, {"name": "tax"}], "total": "5.00"}
    assert as_printed(TASK, value, text) == {
        "vendor": "DION REALTIES SDN BHD",
        "items": [{"name": "Pay Parking"}, {"name": "tax"}],
        "total": "5.00",
    }
    assert value["vendor"] == "Dion Realties Sdn Bhd"
