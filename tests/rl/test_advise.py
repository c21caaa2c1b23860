"""Advice: the sums can be redone, and each answer of the tree changes what follows."""

from pathlib import Path
from typing import Any

import pytest

from launch.cli import run
from launch.compose import compose_advise
from rl.advise import advise


def entry(quality: float, low: float, high: float, **cost: float) -> dict[str, Any]:
    return {"documents": 600, "header_exact": {"value": quality, "ci95": [low, high]}, "cost": cost}


SUMMARY: dict[str, Any] = {
    "metric": "header_exact",
    "methods": {
        "starter": {"documents": None, "header_exact": {"value": 0.5, "ci95": [0.4, 0.6]}, "cost": {}},
        "sft": entry(0.80, 0.75, 0.85, human_labels=600, seconds_training=3600),
        "grpo": entry(0.78, 0.72, 0.84, seconds_training=7200),
        "distill": entry(0.60, 0.5, 0.7, teacher_calls=600, seconds_training=3600),
    },
}


def result(*overrides: str, summary: dict[str, Any] | None = SUMMARY) -> dict[str, Any]:
    return advise(compose_advise(["labels=600", "drift=0.0", *overrides]), summary)


def test_the_sums_can_be_redone() -> None:
    options = {o["method"]: o for o in result("labels=0")["options"]}
    assert options["sft"]["once"] == pytest.approx(8 * 60 + 600 * 0.5 + 0.1)
    a_document = 0.1 / 20000 + 0.1 * 0.005
    assert options["grpo"]["once"] == pytest.approx(480.2)
    assert options["grpo"]["a_document"] == pytest.approx(a_document)
    assert options["grpo"]["break_even"] == pytest.approx(480.2 / ((0.005 - a_document) * 12), abs=0.1)
    assert "starter" not in options


def test_volume_decides() -> None:
    assert result("volume=1000")["recommendation"] == "stay on the frontier model"
    assert result("volume=1000000")["recommendation"].startswith("train ")
    assert result("volume=1000000", "price_a_call=0.0000001")["recommendation"] == "stay on the frontier model"


def test_quality_is_that_of_as_many_documents_as_there_are() -> None:
    curve = [{**entry(q, q - 0.05, q + 0.05), "method": "grpo", "documents": n} for n, q in ((100, 0.6), (300, 0.7))]
    summary = SUMMARY | {"curve": curve}
    for documents, size, quality in ((100, 100, 0.6), (350, 300, 0.7), (600, 600, 0.78), (50, 100, 0.6)):
        options = {o["method"]: o for o in result(f"documents={documents}", summary=summary)["options"]}
        assert (options["grpo"]["measured_on"], options["grpo"]["quality"]) == (size, quality)


def test_between_equal_prices_the_better_one_wins() -> None:
    better = SUMMARY["methods"] | {"distill+grpo": entry(0.9, 0.85, 0.95, seconds_training=36000)}
    found = result("volume=1000000", "target=0.7", "setup_hours=100", summary=SUMMARY | {"methods": better})
    assert found["recommendation"] == "train distill+grpo"
    assert any("the best of them is distill+grpo" in line for line in found["reasons"])


def test_quality_decides() -> None:
    poor = result("volume=1000000", "target=0.9")
    assert poor["recommendation"] == "stay on the frontier model"
    assert any("the best is sft with 0.800" in line for line in poor["reasons"])
    assert result("volume=1000000", "target=0.74")["recommendation"] == "train sft"  # alone surely good enough


def test_documents_that_must_stay_leave_no_other_choice() -> None:
    assert result("volume=10", "privacy=must_stay")["recommendation"].startswith("train ")
    reasons = result("privacy=must_stay", "labels=0")["reasons"]
    assert any("Can distill be done? no" in line for line in reasons)
    assert any("Can sft be done? no" in line for line in reasons)


def test_without_a_check_nothing_is_rewarded() -> None:
    told = result("checkable=false", "volume=1000000")
    assert any("Can grpo be done? no" in line for line in told["reasons"])
    assert told["recommendation"] == "train sft"


def test_drift_favours_what_needs_no_label() -> None:
    calm, fast = (result("labels=600", f"drift={d}", "volume=1000000") for d in (0.0, 1.0))
    assert fast["recommendation"] == "train grpo"
    once = {o["method"]: o["once"] for o in fast["options"]}
    assert once["sft"] > {o["method"]: o["once"] for o in calm["options"]}["sft"]


def test_the_best_of_several_answers_is_dearer_and_needs_what_its_policy_needs() -> None:
    both = SUMMARY | {"methods": {"sft@8": entry(0.85, 0.8, 0.9, human_labels=600, seconds_training=3600)}}
    (option,) = result("labels=0", summary=both)["options"]
    assert "human labels" in option["needs"]
    assert option["a_document"] == pytest.approx(8 * 0.1 / 20000 + 0.1 * 0.005)
    fast = result("labels=600", "drift=0.5", "volume=1000000", summary=both)["reasons"]
    assert any("new labels or traces are needed" in line for line in fast)


def test_a_few_labels_are_enough_where_they_only_choose() -> None:
    chosen = SUMMARY | {"methods": {"grpo": entry(0.85, 0.8, 0.9, human_labels=16, seconds_training=3600)}}
    assert result("labels=20", summary=chosen)["options"][0]["needs"] == ""
    assert "at least 16" in result("labels=9", summary=chosen)["options"][0]["needs"]


def test_pairs_of_a_teacher_need_its_answers() -> None:
    pairs = SUMMARY | {"methods": {"dpo": entry(0.85, 0.8, 0.9, teacher_calls=600, seconds_training=3600)}}
    (option,) = result("traces=0", "privacy=must_stay", summary=pairs)["options"]
    assert "no recorded answers" in option["needs"]
    (option,) = result("traces_may_train=false", summary=pairs)["options"]
    assert "do not allow" in option["needs"]


def test_without_a_comparison_it_says_so() -> None:
    told = result("volume=1000000", summary=None)
    assert not told["measured"]
    assert any("run offramp compare first" in line for line in told["reasons"])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["advise", "volume=1000000", "--json"]) == 0
    out = capsys.readouterr().out
    assert "pays from, a month" in out and '"recommendation"' in out.splitlines()[-1]
    assert run(["advise", f"comparison={tmp_path / 'no'}"]) == 3
    assert run(["advise", "volume=-1"]) == 2
    assert "volume=-1" in capsys.readouterr().err
