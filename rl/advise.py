"""When which method pays: break-even volumes and a recommendation, from prices, documents and measured quality.

Everything here is arithmetic that a reader can redo. `tree` asks one question after another, and each answer says what
follows from it; without a comparison it goes by the rules alone and says that nothing was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rl.compare_config import AdviseConfig

LABELS_FOR_SFT = 30
"""Fewer human labels than that teach no layout that the starter does not know."""
DOCUMENTS_FOR_GRPO = 100
ABOUT_THE_SAME = 1.02
"""Totals within it are one price: quality decides."""
RULES = ("sft", "distill", "graded_sft", "grpo")
"""Methods that are weighed where nothing was measured."""


@dataclass(frozen=True, slots=True)
class Option:
    """One way to serve the workload.

    Example: Option("grpo", quality=0.72, ci95=(0.65, 0.78), once=1200.0, a_document=0.0006, ...)
    """

    method: str
    quality: float | None
    ci95: tuple[float, float] | None
    once: float
    """Money before the first document, and to keep up with drift, over all months."""
    a_document: float
    """Money for each document in service, fallback included."""
    break_even: float | None
    """Documents a month from which it is cheaper than the frontier model; None: never."""
    total: float
    """Money over all months at the volume asked about."""
    needs: str
    """Why it cannot be had, or ""."""
    fresh: bool
    """Whether it asks for labels or a teacher again when layouts change."""
    measured_on: int | None
    """Training documents that the quality was measured with."""

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def advise(config: AdviseConfig, summary: Mapping[str, Any] | None) -> dict[str, Any]:
    """{"recommendation", "reasons": [...], "options": [...], "frontier": {...}}. `summary` is that of a comparison."""
    options = [_option(config, method, entry) for method, entry in _methods(summary, config.documents).items()]
    frontier = config.volume * config.months * config.price_a_call
    reasons, choice = tree(config, options, summary)
    return {
        "recommendation": choice,
        "reasons": reasons,
        "frontier": {"total": round(frontier, 2), "a_document": config.price_a_call},
        "options": [option.as_dict() for option in options],
        "measured": summary is not None,
    }


def _methods(summary: Mapping[str, Any] | None, documents: int) -> dict[str, Mapping[str, Any] | None]:
    """Of each method what was measured at the largest size that the documents at hand reach, else at its smallest."""
    if summary is None:
        return dict.fromkeys(RULES)
    measured = [*summary["methods"].items(), *((entry["method"], entry) for entry in summary.get("curve", ()))]
    trained = [(name, entry) for name, entry in measured if entry["documents"] is not None]
    found: dict[str, Mapping[str, Any] | None] = {}
    for name, entry in sorted(trained, key=lambda named: named[1]["documents"]):
        if name not in found or entry["documents"] <= documents:
            found[name] = {**entry, "quality": entry.get(summary["metric"])}
    return found


def stages_of(method: str) -> list[str]:
    """Example: distill+grpo@8 -> [distill, grpo]"""
    return method.partition("@")[0].split("+")


def labels_and_calls(method: str, entry: Mapping[str, Any] | None) -> tuple[float, float]:
    """Human labels and answers of the teacher that a method takes: as measured, else by the rules."""
    cost, stages = (entry or {}).get("cost", {}), stages_of(method)
    return (
        float(cost.get("human_labels", LABELS_FOR_SFT if "sft" in stages else 0)),
        float(cost.get("teacher_calls", DOCUMENTS_FOR_GRPO if {"distill", "graded_sft"} & set(stages) else 0)),
    )


def needs(config: AdviseConfig, method: str, entry: Mapping[str, Any] | None) -> str:
    """What a method lacks here, or ""."""
    stages = stages_of(method)
    labels, calls = labels_and_calls(method, entry)
    lacks = []
    enough = LABELS_FOR_SFT if "sft" in stages else math.ceil(labels)
    if labels and config.labels < enough:
        lacks.append(f"{config.labels} human labels, at least {enough} are needed")
    if calls:
        if not config.traces_may_train:
            lacks.append("the provider's terms do not allow training on its answers")
        elif config.traces == 0 and config.privacy == "must_stay":
            lacks.append("no recorded answers, and documents must not leave to get some")
    if {"graded_sft", "dpo", *REINFORCED} & set(stages) and not config.checkable:
        lacks.append("no check without gold: there is nothing to grade by")
    if set(REINFORCED) & set(stages) and config.documents < DOCUMENTS_FOR_GRPO:
        lacks.append(f"{config.documents} documents, at least {DOCUMENTS_FOR_GRPO} are needed")
    return "; ".join(lacks)


REINFORCED = ("grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo")


def _option(config: AdviseConfig, method: str, entry: Mapping[str, Any] | None) -> Option:
    cost: Mapping[str, Any] = (entry or {}).get("cost", {})
    # What is at hand already costs nothing more the first time; drift asks for fresh ones.
    labels, calls = labels_and_calls(method, entry)
    training = float(cost.get("seconds_training", 3600)) / 3600 * config.machine_hour
    first = max(labels - config.labels, 0) * config.label_cost + max(calls - config.traces, 0) * config.price_a_call
    renewed = config.drift * config.months / 12 * (labels * config.label_cost + calls * config.price_a_call + training)
    once = config.setup_hours * config.hour + first + training + renewed
    fallback = config.fallback if config.privacy == "may_leave" else 0.0
    answers = int(method.partition("@")[2] or 1)
    a_document = answers * config.machine_hour / config.documents_per_hour + fallback * config.price_a_call
    saved = config.price_a_call - a_document
    quality = (entry or {}).get("quality") or {}
    return Option(
        method=method,
        quality=quality.get("value"),
        ci95=tuple(quality["ci95"]) if quality else None,
        once=round(once, 2),
        a_document=round(a_document, 6),
        break_even=round(once / (saved * config.months), 1) if saved > 0 else None,
        total=round(once + config.volume * config.months * a_document, 2),
        needs=needs(config, method, entry),
        fresh=bool(labels or calls),
        measured_on=(entry or {}).get("documents"),
    )


def tree(config: AdviseConfig, options: Sequence[Option], summary: Mapping[str, Any] | None) -> tuple[list[str], str]:
    """(questions with their answers and what follows, the recommendation)."""
    lines: list[str] = []

    def ask(question: str, answer: str, follows: str) -> None:
        lines.append(f"{question} {answer}: {follows}")

    leave = config.privacy == "may_leave"
    ask(
        "May the documents leave?",
        "yes" if leave else "no",
        "the frontier model stays an option, and a fallback" if leave else "only a model of your own can serve them",
    )
    ask(
        "Can an answer be checked without gold?",
        "yes" if config.checkable else "no",
        "the task's rubric can grade traces and reward attempts"
        if config.checkable
        else "only human labels or a teacher can teach; relations and grounding in the task file would change that",
    )
    possible = [option for option in options if not option.needs]
    for option in options:
        if option.needs:
            ask(f"Can {option.method} be done?", "no", option.needs)
    if not possible:
        ask("Is any method left?", "no", "bring documents, labels or recorded answers first")
        return lines, "stay on the frontier model" if leave else "bring documents, labels or recorded answers first"
    if summary is None:
        ask("Was it measured on your documents?", "no", "run offramp compare first; what follows goes by rules alone")
        choice = _by_rules(config, possible)
        good = [choice]
    else:
        measured = [option for option in possible if option.quality is not None]
        good = [option for option in measured if (option.quality or 0) >= config.target]
        what = f"{summary['metric']} of at least {config.target}"
        if not good:
            best = max(measured, key=lambda option: option.quality or 0.0, default=None)
            shown = f"the best is {best.method} with {best.quality:.3f}" if best else "nothing was measured"
            ask(f"Does a method reach {what}?", "no", f"{shown}; more documents, a better starter, or a lower target")
            return lines, (
                "stay on the frontier model"
                if leave
                else f"train {best.method} and review by hand"
                if best
                else "compare"
            )
        sure = [option for option in good if option.ci95 is not None and option.ci95[0] >= config.target]
        named = ", ".join(f"{o.method} {o.quality:.3f} (on {o.measured_on} documents)" for o in good)
        certain = f"surely (95 %): {', '.join(o.method for o in sure)}" if sure else "for none does the interval say so"
        ask(f"Does a method reach {what}?", "yes", f"{named}; {certain}")
        good = sure or good
        least = min(option.total for option in good)
        near = [option for option in good if option.total <= ABOUT_THE_SAME * least]
        choice = max(near, key=lambda option: (option.quality or 0, -option.total))
        ask(
            "Which of these costs least?",
            ", ".join(option.method for option in near),
            f"{least:.2f} over {config.months:g} months"
            + (f"; the best of them is {choice.method}" if near[1:] else ""),
        )
    if config.drift >= 0.3:
        unlabelled = [option for option in good if not option.fresh]
        free = unlabelled[0] if unlabelled else None
        follows = (
            f"{free.method} needs no label and no teacher when layouts change"
            if free
            else "new labels or traces are needed again and again; they are in the sums"
        )
        ask("Do layouts change fast?", f"{config.drift:.0%} a year", follows)
        if free is not None and free.total <= 1.1 * choice.total:
            choice = free
    if not leave:
        ask("Is it worth it?", "it must be", "no frontier model may be asked")
        return lines, f"train {choice.method}"
    if choice.break_even is None:
        ask("Does it ever pay?", "no", f"a document costs {choice.a_document} here and {config.price_a_call} there")
        return lines, "stay on the frontier model"
    pays = config.volume >= choice.break_even
    ask(
        "Is the volume above the break-even?",
        "yes" if pays else "no",
        f"{config.volume:g} documents a month, {choice.method} pays from {choice.break_even:g} on",
    )
    if not pays:
        return lines, "stay on the frontier model"
    return lines, f"train {choice.method}"


def _by_rules(config: AdviseConfig, possible: Sequence[Option]) -> Option:
    """Checks beat copying; traces come before labels; the chain of both where both are there."""
    by_name = {option.method: option for option in possible}
    order = ("grpo", "graded_sft", "distill", "sft") if config.checkable else ("distill", "sft")
    for name in order:
        if name in by_name:
            return by_name[name]
    return possible[0]
