"""Synthetic documents: exact, varied, repeatable, and their gold stands on the page."""

import re
from collections import Counter
from dataclasses import replace
from decimal import Decimal

import pytest

from envs import synthetic
from envs.prompts import messages
from envs.synthetic import FAMILIES, documents, families, generate, mixture
from rewards.errors import RewardError
from rewards.rubric import Rubric
from rewards.task import Bounds, load_task

COUNT = 1500


def letters_and_digits(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


@pytest.mark.parametrize("task", ["receipt", "invoice"])
def test_same_seed_same_document_and_other_seed_another(task: str) -> None:
    assert generate(task, 3, 17) == generate(task, 3, 17)
    assert generate(task, 3, 17).text != generate(task, 4, 17).text
    assert documents(task, 2, 3, start=5)[1] == generate(task, 3, 6)


def test_there_are_enough_layout_families_and_a_quarter_is_held_out() -> None:
    everything = [f for task in FAMILIES for f in families(task, "all")]
    held_out = [f for f in everything if f.held_out]
    assert len({(f.locales, f.item, f.head, f.date, f.totals) for f in everything}) == len(everything) >= 20
    assert 0.25 <= len(held_out) / len(everything) < 0.27
    for task in FAMILIES:
        assert set(families(task, "seen")).isdisjoint(families(task, "held_out"))
        drawn = {d.id.rsplit("-", 1)[1] for d in documents(task, 300, 1, "held_out")}
        assert drawn == {f.name for f in families(task, "held_out")}


@pytest.mark.parametrize("task", ["receipt", "invoice"])
def test_gold_closes_to_the_cent(task: str) -> None:
    for document in documents(task, COUNT, 11):
        gold = document.gold
        assert gold is not None
        money = {
            k: Decimal(v)
            for k, v in gold.items()
            if k not in {"vendor", "date", "items", "invoice_number", "currency"} and v is not None
        }
        items = sum(Decimal(item["amount"]) for item in gold["items"])
        if task == "invoice":
            assert items == money["subtotal"]
            for item in gold["items"]:
                assert Decimal(item["quantity"]) * Decimal(item["unit_price"]) == Decimal(item["amount"])
        base = (
            items
            - money.get("discount", Decimal(0))
            + money.get("service_charge", Decimal(0))
            + money.get("shipping", Decimal(0))
        )
        base += money.get("rounding", Decimal(0))
        assert money["total"] in {base, base + money.get("tax", Decimal(0))}, document.id


@pytest.mark.parametrize("task", ["receipt", "invoice"])
def test_names_and_amounts_stand_on_the_page(task: str) -> None:
    for document in documents(task, COUNT, 12):
        gold, page = document.gold, letters_and_digits(document.text)
        assert gold is not None
        assert letters_and_digits(gold["vendor"]) in page
        assert letters_and_digits(gold["total"]).lstrip("0") in page
        for item in gold["items"]:
            words = item["name"].split(" ")
            assert all(letters_and_digits(word) in page for word in words), (document.id, item)
            assert letters_and_digits(item["amount"]).lstrip("0") in page


def test_variety() -> None:
    drawn = documents("receipt", COUNT, 13)
    golds = [d.gold for d in drawn if d.gold is not None]
    assert len({d.group for d in drawn}) > 0.98 * COUNT
    counts = Counter(min(len(g["items"]), 8) for g in golds)
    assert set(counts) == set(range(1, 9))
    for key in ("discount", "service_charge"):
        assert 0.005 * COUNT < sum(key in g for g in golds) < 0.5 * COUNT
    for key in ("tax", "rounding"):
        assert 0.2 * COUNT < sum(g[key] is not None for g in golds) < 0.9 * COUNT
    text = "\n".join(d.text for d in drawn)
    for sign in ("RM", "$", "£", "€", "EUR", "RS"):
        assert sign in text
    for form in (
        r"\b\d\d/\d\d/\d{4}",
        r"\b\d\d\.\d\d\.\d{4}",
        r"\b\d{4}-\d\d-\d\d",
        r"\b\d\d [A-Z]{3} \d{4}",
        r"\b\d\d-\d\d-\d\d\b",
        r"[A-Z]{3} \d\d, \d{4}",
    ):
        assert re.search(form, text), form


def test_mixture_draws_by_weight() -> None:
    stream = mixture({"receipt": 0.8, "invoice": 0.2}, 1, "seen")
    names = Counter(next(stream)[0] for _ in range(1000))
    assert 740 < names["receipt"] < 860


def test_unknown_task_is_named() -> None:
    with pytest.raises(ValueError, match="no synthetic documents for task 'passport'"):
        documents("passport", 1, 1)


def test_prompt_holds_the_text_and_no_gold() -> None:
    task, document = load_task("receipt"), generate("receipt", 1, 0)
    assert document.gold is not None
    [message] = messages(task, document.text)
    assert message["role"] == "user" and message["content"].endswith(document.text)
    assert task.canonical(document.gold) not in message["content"]
    assert '"additionalProperties"' in messages(task, document.text, schema_in_prompt=True)[0]["content"]


def test_a_rubric_that_is_never_pleased_ends_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task("receipt")
    other = replace(task, plausible=task.plausible | {"total": Bounds(min=0, max=0)})
    monkeypatch.setattr(synthetic, "_judge", lambda name: (other, Rubric(other)))
    with pytest.raises(
        RewardError, match=r"document 4 of seed 3: .*'receipt' gave none of 50 golds .*: total: "
    ) as caught:
        generate("receipt", seed=3, index=4)
    assert "\n" not in str(caught.value)
