"""offramp grade on files: the table, the review queue and, with gold, the curve."""

import json
from pathlib import Path
from typing import Any

import pytest

from envs.documents import write_documents
from envs.synthetic import documents
from launch.cli import run
from rewards.task import load_task

COUNT = 8


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Eight receipts; the totals of the first two are wrong, the third has no date, the fourth is no JSON.
    Gives the ids."""
    monkeypatch.chdir(tmp_path)
    task, made = load_task("receipt"), documents("receipt", COUNT, 3)
    write_documents("docs.jsonl", made)
    rows = []
    for i, document in enumerate(made):
        answer: dict[str, Any] = json.loads(task.canonical(document.gold or {}))
        if i < 2:
            answer["total"] = "4711.00"
        if i == 2:
            answer["date"] = None
        rows.append({"id": document.id, "completion": "no JSON" if i == 3 else json.dumps(answer)})
    Path("answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [document.id for document in made]


GIVEN = ["grade", "task=receipt", "docs.path=docs.jsonl", "completions=answers.jsonl"]


def _last(text: str) -> dict[str, Any]:
    return dict(json.loads(text.splitlines()[-1]))


def test_the_worst_come_first_and_the_curve_is_written(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*GIVEN, "field=total", "output=graded", "--json"]) == 0
    shown = capsys.readouterr().out
    result = _last(shown)
    # A broken answer has no total; its truth is known all the same.
    assert (result["n"], result["with_gold"], result["gates"]) == (COUNT, COUNT, {"parses": 1})
    assert result["right"] == 1 - 3 / COUNT
    assert result["precision_accepted"] == 1.0
    assert result["doubted"] == 4
    assert f"review {files[3]}" in shown
    queue = [json.loads(line) for line in Path("graded/graded.jsonl").read_text().splitlines()]
    assert {row["id"] for row in queue[:3]} == {files[0], files[1], files[3]}
    assert [row["confidence"] for row in queue] == sorted(row["confidence"] for row in queue)
    assert [row["doubted"] for row in queue] == [True] * 4 + [False] * 4
    assert "4711" not in Path("graded/graded.jsonl").read_text()
    curve = json.loads(Path("graded/curve.json").read_text())
    assert curve["points"][-1][1] == 1.0
    assert Path("graded/curve.png").read_bytes().startswith(b"\x89PNG")


def test_fields_set_aside_make_no_answer_doubted(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*GIVEN, "aside=items[].name,items", "--json"]) == 2
    assert "aside=items: no field of the task" in capsys.readouterr().err
    assert run([*GIVEN, "aside=vendor", "--json"]) == 0
    assert _last(capsys.readouterr().out)["doubted"] == 4
    assert run([*GIVEN, "aside=vendor,date", "--json"]) == 0
    assert _last(capsys.readouterr().out)["doubted"] == 3


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["field=totl"], 2, "field=totl: no field outside arrays; did you mean 'total'?"),
        (["accept=2"], 2, "accept=2: must be at most 1"),
        (["completions=nowhere.jsonl"], 3, "no such file"),
        (["output=docs.jsonl"], 3, "output=docs.jsonl: cannot be made"),
    ],
)
def test_a_mistake_is_one_line(
    files: list[str], capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    assert run([*GIVEN, *words]) == code
    shown = capsys.readouterr().err
    assert says in shown
    assert len(shown.splitlines()) == 1
