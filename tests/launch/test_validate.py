"""offramp validate and offramp mutate on files."""

import json
from pathlib import Path
from typing import Any

import pytest

from envs.documents import write_documents
from envs.synthetic import documents
from launch.cli import run
from rewards.document import Document
from rewards.task import TASK_FOLDER


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made = documents("receipt", 6, 0)
    unknown = Document("unknown", "MILK  1.00\nTOTAL  1.00", "g", {"total": "1.00"})
    write_documents("docs.jsonl", [*made, unknown])
    naive = (TASK_FOLDER / "receipt.yaml").read_text(encoding="utf-8")
    at = naive.index("  rewards: {")
    naive = naive[:at] + "  rewards: {has_keys: 1, adds_up: 1, words_in_source: 1}\n  abstain: 0.25\n"
    Path("naive.yaml").write_text(naive, encoding="utf-8")
    return tmp_path


def _last(capsys: pytest.CaptureFixture[str]) -> tuple[str, dict[str, Any]]:
    shown = capsys.readouterr().out
    result: dict[str, Any] = json.loads(shown.splitlines()[-1])
    return shown, result


def test_validate(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", "task=receipt", "docs.jsonl", "gold=gold.jsonl", "--json"]) == 0
    shown, result = _last(capsys)
    assert "1 of 7 documents are left out" in shown
    assert (result["documents"], result["gold_mean"], result["gold_highest"]) == (6, 1.0, 1.0)
    assert result["hacks"]["echo_document"] == {"documents": 6, "below_half": 1.0, "mean": 0.0, "not_below": []}
    assert result["failures"] == []
    assert run(["score", "task=receipt", "docs.path=docs.jsonl", "completions=gold.jsonl", "--json"]) == 0
    assert _last(capsys)[1]["documents_exact"] == 1.0


def test_a_rubric_that_can_be_hacked_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", "task=naive.yaml", "docs.jsonl", "--json"]) == 4
    shown, result = _last(capsys)
    assert result["hacks"]["one_row"]["below_half"] < 0.5
    assert any(failure.startswith("one_row: ") for failure in result["failures"])
    assert "FAILED one_row: " in shown
    assert run(["mutate", "task=naive.yaml", "docs.jsonl", "--json"]) == 4
    shown, result = _last(capsys)
    assert result["kill_rate"] < 0.8
    assert result["misses"]["date_shifted"] or result["misses"]["row_name_of_another"]


def test_mutate(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mutate", "task=receipt", "docs.jsonl", "min_kind=0.5", "--json"]) == 0
    _, result = _last(capsys)
    assert len(result["kinds"]) >= 30
    assert result["kill_rate"] >= 0.97
    assert result["equal"] == {"rows_reordered": 1.0, "keys_reordered": 1.0, "white_space": 1.0}
    kind = result["kinds"]["row_dropped"]
    assert (kind["mutants"], kind["kill_rate"]) == (6, 1.0)
    assert kind["fields"] == {"items": {"mutants": 6, "killed": 6}}


def test_mutate_takes_answers_for_gold(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", "task=receipt", "docs.jsonl", "gold=gold.jsonl"]) == 0
    capsys.readouterr()
    bare = [Document(d.id, d.text, d.group, None) for d in documents("receipt", 6, 0)]
    write_documents("bare.jsonl", bare)
    words = [
        "mutate",
        "task=receipt",
        "bare.jsonl",
        "completions=gold.jsonl",
        "kinds=row_dropped,amount_cent",
        "--json",
    ]
    assert run(words) == 0
    assert set(_last(capsys)[1]["kinds"]) == {"row_dropped", "amount_cent"}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["validate", "task=receipt"], 2, "docs.path: has no value yet"),
        (["validate", "task=receipt", "nowhere.jsonl"], 3, "no such file"),
        (["validate", "task=receipt", "docs.jsonl", "min_gold=2"], 2, "min_gold=2: must be a number from 0 to 1"),
        (["validate", "task=receipt", "docs.jsonl", "gold=/nowhere/gold.jsonl"], 2, "gold=/nowhere/gold.jsonl: cannot"),
        (["validate", "task=invoice", "docs.jsonl"], 3, "no document has gold with all of vendor, invoice_number"),
        (["mutate", "task=receipt", "docs.jsonl", "kinds=row_droped"], 2, "did you mean 'row_dropped'"),
        (["mutate", "task=votes", "synthetic"], 2, "no synthetic documents for task 'votes'"),
        (["mutate", "task=receipt", "docs.jsonl", "mutant_seed=x"], 2, "mutant_seed=x: must be a whole number"),
    ],
)
def test_mistakes(words: list[str], code: int, says: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == code
    assert says in capsys.readouterr().err
