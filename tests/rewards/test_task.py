from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rewards.errors import ConfigError, DataError
from rewards.relations import RelationFault, parse_relation
from rewards.task import TASK_FOLDER, load_task, task_from_dict

RECEIPT: dict[str, Any] = yaml.safe_load((TASK_FOLDER / "receipt.yaml").read_text())


@pytest.mark.parametrize("name", ["receipt", "invoice"])
def test_our_tasks_load(name: str) -> None:
    task = load_task(name)
    assert task.name == name
    assert task.prompt
    assert set(task.relations) >= {"total"}


def test_a_path_loads(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text((TASK_FOLDER / "receipt.yaml").read_text().replace("name: receipt", "name: mine"))
    assert load_task(path).name == "mine"
    assert load_task(str(path)).name == "mine"


def test_canonical_orders_keys_and_keeps_required_nulls() -> None:
    task = load_task("receipt")
    gold = {
        "total": "5.00",
        "items": [{"amount": "5.00", "name": "TEA é"}],
        "vendor": "X",
        "unknown": 1,
        "discount": None,
    }
    assert task.canonical(gold) == (
        '{"vendor":"X","date":null,"items":[{"name":"TEA é","amount":"5.00"}],"tax":null,"rounding":null,'
        '"total":"5.00"}'
    )
    assert json.loads(task.canonical({}))["items"] == []


def test_canonical_refuses_a_row_without_its_amount() -> None:
    with pytest.raises(DataError, match=r"gold\.items\[0\]\.amount"):
        load_task("receipt").canonical({"items": [{"name": "TEA"}]})


def _set(path: str, value: Any) -> dict[str, Any]:
    raw = copy.deepcopy(RECEIPT)
    at: Any = raw
    *above, last = path.split("/")
    for key in above:
        at = at[key]
    if value is KeyError:
        del at[last]
    else:
        at[last] = value
    return raw


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("promt", "x", "promt: unknown key; did you mean 'prompt'"),
        ("prompt", KeyError, "prompt: field required"),
        ("fields/vendor/wieght", 1, "fields.vendor.wieght: unknown key; did you mean 'weight'"),
        ("fields/vendor/kind", "txt", "fields.vendor.kind:"),
        ("fields/vendor/weight", -1, "fields.vendor.weight:"),
        ("fields/vendor/weight", "2", "fields.vendor.weight:"),
        ("fields/vendor/avoid", [False], "put it in quotes"),
        (
            "fields/vendr",
            {"kind": "text", "weight": 1},
            "fields.vendr: not a leaf of the schema; did you mean 'vendor'",
        ),
        ("fields/tax", KeyError, "the schema's leaf 'tax' has no entry"),
        ("fields/date/formats", KeyError, "fields.date.formats"),
        ("fields/date/formats", ["dmyy"], "fields.date.formats.0"),
        (
            "relations/total",
            ["sum(items[].amount) == totl"],
            "relations.total[0]: no field 'totl' at character 24 of 'sum(items[].amount) == totl'; did you mean",
        ),
        ("relations/total", ["sum(items[].amount) == vendor"], "'vendor' is text"),
        ("relations/total", ["sum(items[].amount) = total"], "at character 21"),
        ("relations/total", [], "relations.total: must list at least one"),
        ("rubric/rewards/groundd", 1, "rubric.rewards.groundd: unknown reward; did you mean 'grounded'"),
        ("rubric/rewards/os:system", 1, "rubric.rewards.os:system: runs code; add it to rubric.allow"),
        ("rubric/rewards", {"grounded": 0}, "at least one weight must be above 0"),
        ("rubric/abstain", 1.5, "rubric.abstain:"),
        ("rubric/gates/parses", float("nan"), "rubric.gates.parses:"),
        ("plausible/totale", {"min": 0}, "plausible.totale: not a leaf"),
        ("rows/items/name", "nam", "rows.items.name: no leaf items[].nam"),
        ("schema", {"type": "objekt"}, "schema"),
        (
            "fields/total/adjusted_by",
            "roundin",
            "fields.total.adjusted_by: no field 'roundin'; did you mean 'rounding'",
        ),
    ],
)
def test_faults_are_one_line_with_the_key(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as fault:
        task_from_dict(_set(path, value), "receipt.yaml")
    text = str(fault.value)
    assert message in text
    assert text.startswith("receipt.yaml: ")
    assert "\n" not in text
    assert fault.value.exit_code == 2


def test_unknown_names_and_files() -> None:
    with pytest.raises(ConfigError, match="did you mean 'receipt'"):
        load_task("reciept")
    with pytest.raises(ConfigError, match="no such file"):
        load_task("nowhere/mine.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "not valid YAML"), ("- a\n- b", "must be a mapping"), ("name: a\nname: b",
        "the key 'name' appears twice"),
        ("!!python/object:os.system {}", "not valid YAML"), ("", "must be a mapping"),
    ],
)  # fmt: skip
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as fault:
        load_task(path)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("a + == b", 4), ("a == ", 5), ("sum(a) == b", 4), ("a == b c", 7), ("a ** b == c", 3),
        ("a == b; import os", 6), ("", 0),
        ("sum(x[].a == b", 10), ("x[].a == y[].b", 9), ("__import__('os') == a", 11),
    ],
)  # fmt: skip
def test_relation_faults_have_a_position(text: str, position: int) -> None:
    with pytest.raises(RelationFault) as fault:
        parse_relation(text)
    assert fault.value.position == position


def test_relations_name_their_fields() -> None:
    relation = parse_relation("items[].quantity * items[].unit_price == items[].amount")
    assert relation.rows == "items"
    assert relation.paths == ("items[].quantity", "items[].unit_price", "items[].amount")
