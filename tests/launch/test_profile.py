"""offramp profile: time, spread, abstentions, correlation and saturation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from envs.documents import write_documents
from launch.cli import run
from launch.profile import notes, statistics_of
from rewards.rubric import RubricScore
from rewards.score import Finding
from rewards.task import load_task
from tests.launch.run_folder import make_run, worse

TASK = load_task("receipt")


def scored(total: float, gate: str | None = None, **parts: float | None) -> RubricScore:
    findings = (Finding("items[0].amount", "1", None, parts.get("grounded"), "x"),)
    return RubricScore(total, "scored", gate, {} if gate else parts, findings, None, ("grounded",))


def test_profile_of_files_and_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made = make_run(tmp_path / "runs/x")
    write_documents("docs.jsonl", made)
    rows = [{"id": d.id, "completion": text} for d in made for text in worse(d, TASK)]
    Path("completions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = []
    for words in (["task=receipt", "docs.path=docs.jsonl", "completions=completions.jsonl"], ["run=runs/x"]):
        assert run(["profile", *words, "slowest=3", "--json"]) == 0
        results.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    files, of_run = results
    for result in results:
        assert (result["completions"], result["groups"], result["errors"]) == (16, 4, 0)
        assert result["gates"] == {"parses": 0.25}
        assert 0 < result["wall_ms"]["p50"] <= result["wall_ms"]["p99"] <= result["wall_ms"]["max"]
        assert len(result["slowest"]) == 3
        assert result["spread"]["zero_spread"] == 0.0
        assert result["parts"]["grounded"]["at_1"] == pytest.approx(1 / 3)
        assert result["fields"]["vendor"]["null"] == pytest.approx(1 / 3)
    assert files["parts"] == of_run["parts"]


def test_the_numbers_by_hand() -> None:
    groups = [
        [scored(0.0, grounded=0.0, covers=None), scored(1.0, grounded=1.0, covers=1.0)],
        [scored(0.5, grounded=0.5, covers=1.0), scored(0.5, grounded=0.5, covers=1.0)],
        [scored(0.0, "parses"), RubricScore(0.0, "error", None, {}, (), "mine: boom")],
    ]
    found: dict[str, Any] = statistics_of(TASK, groups)
    assert found["errors"] == 1
    assert found["error"] == "mine: boom"
    assert found["gates"] == {"parses": 0.2}
    # A group with one scored completion has no spread to speak of.
    assert found["spread"] == {"groups": 2, "zero_spread": 0.5, "group_std": 0.25}
    grounded, covers = found["parts"]["grounded"], found["parts"]["covers"]
    assert (grounded["abstained"], grounded["at_1"], grounded["at_0"], grounded["mean"]) == (0.0, 0.25, 0.25, 0.5)
    assert grounded["group_std"] == 0.25
    assert grounded["with_reward"] == pytest.approx(1.0)
    assert (covers["abstained"], covers["at_1"]) == (0.25, 1.0)
    assert found["correlation"]["grounded ~ covers"] is None
    assert found["fields"]["items[].amount"]["points"] == 0.5
    said = notes(found | {"completions": 6})
    assert any("could not be scored: mine: boom" in note for note in said)
    assert any(note.startswith("covers is 1 on 100%") for note in said)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "task: has no value yet; give task=VALUE"),
        (["run=nowhere"], 2, "run=nowhere: no such folder"),
        (["run=x", "completions=y"], 2, "completions: not with run="),
        (["task=receipt", "docs.path=a.jsonl", "completions=b.jsonl"], 3, "a.jsonl: no such file"),
        (["task=receipt", "limit=0"], 2, "has no value yet"),
    ],
)
def test_mistakes(words: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", *words]) == code
    assert says in capsys.readouterr().err
