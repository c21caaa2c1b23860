"""offramp score and offramp explain on files."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from envs.documents import write_documents
from envs.synthetic import documents
from launch.cli import run
from rewards.task import load_task


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    task, made = load_task("receipt"), documents("receipt", 4, 0)
    write_documents("docs.jsonl", made)
    rows: list[dict[str, Any]] = [{"id": d.id, "completion": task.canonical(d.gold or {})} for d in made[:3]]
    rows += [{"id": made[0].id, "completion": "no JSON"}, {"id": "stranger", "completion": "{}"}]
    Path("completions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("ids").write_text("\n".join(d.id for d in made))
    return tmp_path


GIVEN = ["task=receipt", "docs.path=docs.jsonl"]


def test_score(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["score", *GIVEN, "completions=completions.jsonl", "--json"]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out.splitlines()[-1])
    assert (result["n"], result["documents"], result["with_gold"], result["errors"]) == (4, 3, 4, 0)
    assert result["documents_exact"] == 0.75
    assert result["gates"] == {"parses": 1}
    assert 0.7 < result["reward"] <= 0.76
    assert result["parts"]["grounded"] == 1.0
    assert "1 of 4 ids are no document here, such as 'stranger'" in shown.err


def test_explain(files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    name = Path("ids").read_text().splitlines()[0]
    assert run(["explain", *GIVEN, f"id={name}", "completions=completions.jsonl", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["total"], result["gate"]) == (1.0, None)
    assert any(finding["path"] == "total" and finding["span"] for finding in result["findings"])
    monkeypatch.setattr("sys.stdin", io.StringIO("not = JSON"))
    assert run(["explain", *GIVEN, f"id={name}", "completion=-"]) == 0
    assert "parses" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["score", "completions=nowhere.jsonl"], 3, "no such file"),
        (["score", "completions=completions.jsonl", "workers=two"], 2, "workers=two: must be a whole number"),
        (["score", "completions=completions.jsonl", "deadline_s=0"], 2, "deadline_s=0: must be more than 0"),
        (["score", "completions=docs.jsonl"], 3, "docs.jsonl line 1: no 'completion'"),
        (["explain", "id=nobody", "completion={}"], 3, "id=nobody: no such document"),
        (["explain", "completion={}"], 2, "id: has no value yet"),
    ],
)
def test_mistake(words: list[str], code: int, says: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([words[0], *GIVEN, *words[1:]]) == code
    assert says in capsys.readouterr().err


HOSTILE: dict[str, tuple[bytes, str]] = {
    "binary": (bytes(range(128, 256)) * 40, "invalid UTF-8 at byte"),
    "zeros": (b"\0" * 5000, "not JSON"),
    "empty": (b"", "no completions"),
    "blank": (b"\n \n\n", "no completions"),
    "sixteen": ('{"id": "r1"}\n'.encode("utf-16"), "the file is UTF-16"),
    "torn": (b'{"id": "r1", "completion": "{', "torn last line"),
    "deep": (b"[" * 200_000 + b"\n", "nested too deeply"),
    "digits": (b'{"id": "r1", "completion": ' + b"9" * 50_000 + b"}\n", "Exceeds the limit"),
    "huge": (b'{"id": "r1", "completion": "' + b"x" * (16 * 2**20) + b'"}\n', "longer than 16777216 bytes"),
    "letters": (b'{"id": "r1", "completion": "\xff\xfe"}\n', "invalid UTF-8 at byte"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_line(name: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, says = HOSTILE[name]
    Path("hostile.jsonl").write_bytes(content)
    for words in ([*GIVEN, "completions=hostile.jsonl"], [GIVEN[0], "docs.path=hostile.jsonl", "completions=x"]):
        assert run(["score", *words]) == 3
        shown = capsys.readouterr().err
        assert len(shown.splitlines()) == 1 and len(shown) < 300
    # Beside a good line it is left out, and said.
    good = Path("completions.jsonl").read_bytes().splitlines(keepends=True)[0]
    Path("hostile.jsonl").write_bytes(good + content)
    code = run(["score", *GIVEN, "completions=hostile.jsonl", "max_bad=200", "--json"])
    shown_both = capsys.readouterr()
    assert code == 0
    assert json.loads(shown_both.out.splitlines()[-1])["n"] == 1
    if name not in ("empty", "blank"):
        assert "left out, the first is line 2" in shown_both.err
        assert run(["score", *GIVEN, "completions=hostile.jsonl"]) == 3
        shown = capsys.readouterr().err
        assert "allow bad lines with max_bad" in shown or "bad lines, more than max_bad=0" in shown
        assert says in shown or name == "sixteen"  # its mark stands at the beginning only


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"a: " + b"{b: " * 50_000, "nested too deeply"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"a: " + b"x" * 2**20, "larger than 1048576 bytes"),
        (b"", "must be a mapping"),
    ],
)
def test_a_hostile_task_file_is_one_line(
    content: bytes, says: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("hostile.yaml").write_bytes(content)
    assert run(["score", "task=hostile.yaml", *GIVEN[1:], "completions=completions.jsonl"]) == 2
    shown = capsys.readouterr().err
    assert says in shown and len(shown.splitlines()) == 1
