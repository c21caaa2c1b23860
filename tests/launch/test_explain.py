"""offramp explain on files and on a run's rollouts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from envs.documents import write_documents
from launch.cli import run
from launch.explain import rich_tree
from rewards.document import Document
from rewards.rubric import Rubric
from rewards.task import load_task
from tests.launch.run_folder import DOCS, make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_documents(folder / "docs.jsonl", make_run(folder / "runs/x"))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def explained(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert run(["explain", *words, "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_the_worst_and_the_best_of_a_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worst = explained(capsys, "run=runs/x")
    assert (worst["step"], worst["sample"], worst["total"], worst["recorded"], worst["gate"]) == (
        2,
        3,
        0.0,
        0.0,
        "parses",
    )
    best = explained(capsys, "run=runs/x", "step=1", "sample=best")
    assert (best["step"], best["sample"], best["total"]) == (1, 0, 1.0)


def test_a_sample_of_a_document(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = json.loads(Path("docs.jsonl").read_text().splitlines()[1])["id"]
    found = explained(capsys, "run=runs/x", "step=1", f"id={name}", "sample=1")
    assert (found["id"], found["sample"]) == (name, 1)
    assert found["total"] == pytest.approx(found["recorded"])
    # Without an id the samples of the step are counted through.
    assert explained(capsys, "run=runs/x", "step=1", "sample=5")["findings"] == found["findings"]


def test_the_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = explained(capsys, "run=runs/x", "sample=best", "html=page.html")
    assert found["html"] == "page.html"
    page = Path("page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert 'class="m right' in page


@pytest.mark.parametrize("docs", [DOCS, {"kind": "jsonl"}])
def test_a_run_that_did_not_record_the_text(
    docs: dict[str, object], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(folder / "runs/old", texts=False, config={"docs": docs})
    if docs is DOCS:
        made = json.loads(Path("runs/old/config.json").read_text())
        assert made["docs"] == DOCS
    else:
        assert run(["explain", "run=runs/old"]) == 3
        assert "give docs.path=FILE" in capsys.readouterr().err
    assert explained(capsys, "run=runs/old", "sample=best", "docs.path=docs.jsonl")["total"] == 1.0


def test_a_terminal_gets_colours_and_reads_no_markup() -> None:
    task = load_task("receipt")
    document = Document("r", "KEDAI [bold]MAJU[/]\nTOTAL 5.00", "r", None)
    given = {"vendor": "KEDAI [bold]MAJU[/]", "date": None, "items": [], "tax": None, "rounding": None, "total": "5.00"}
    console = Console(force_terminal=True, width=120, record=True, file=None)
    with console.capture() as shown:
        console.print(rich_tree(Rubric(task).score(document, json.dumps(given)), document, task))
    assert "\x1b[" in shown.get()
    assert "[bold]MAJU[/]" in shown.get()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["run=runs/emty"], 2, "run=runs/emty: no such folder; is runs/empty meant?"),
        (["run=."], 2, "it has no config.json"),
        (["run=runs/empty"], 3, "it holds no rollouts"),
        (["run=runs/torn"], 3, "config.json: cannot be read"),
        (["run=runs/broken"], 3, "no record of rollouts"),
        (["run=runs/x", "step=9"], 2, "step=9: not recorded; runs/x has the steps 1 to 2"),
        (["run=runs/x", "step=first"], 2, "step=first: write a number"),
        (["run=runs/x", "step=1-2"], 2, "give one step"),
        (["run=runs/x", "sample=8"], 2, "has the samples 0 to 7"),
        (["run=runs/x", "sample=-1"], 2, "write a number, worst or best"),
        (["run=runs/x", "id=nobody"], 3, "id=nobody: not sampled in step 2"),
        (["run=runs/x", "completion={}"], 2, "completion: not with run="),
        (["run=runs/x", "task=nothing"], 2, "no task named 'nothing'"),
        (["run=runs/x", "html=no/where/page.html"], 2, "html=no/where/page.html: cannot be written"),
        (["task=receipt", "docs.path=docs.jsonl"], 2, "id: has no value yet"),
        (["task=receipt", "docs.path=docs.jsonl", "id=x", "step=1"], 2, "only with run=FOLDER"),
    ],
)
def test_mistakes(words: list[str], code: int, says: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("empty", "torn", "broken"):
        (folder / f"runs/{name}/rollouts").mkdir(parents=True)
        (folder / f"runs/{name}/config.json").write_text("{" if name == "torn" else "{}")
    (folder / "runs/broken/rollouts/step_000001.parquet").write_text("not parquet")
    (folder / "runs/broken/config.json").write_text('{"task": "receipt"}')
    assert run(["explain", *words]) == code
    shown = capsys.readouterr().err
    assert says in shown
    assert "Traceback" not in shown
