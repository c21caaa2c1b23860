"""offramp replay: the same rollouts under another rubric."""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launch.cli import run
from launch.numbers import kendall, pearson, percentile, ranks, spearman
from launch.replay import advantages
from tests.launch.run_folder import make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_run(folder / "runs/x")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def replayed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert run(["replay", "run=runs/x", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_the_same_rubric_changes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = replayed(capsys)
    assert (found["rollouts"], found["compared"], found["steps"], found["ranks"]["groups"]) == (16, 16, 2, 4)
    assert found["reward"]["changed"] == 0.0
    assert found["ranks"]["kendall"] == found["ranks"]["spearman"] == found["ranks"]["same_best"] == 1.0
    assert found["advantages"]["mean_abs_change"] == pytest.approx(0.0)
    assert found["advantages"]["mean_abs"]["recorded"] > 0.5
    assert found["advantages"]["sign_flips"] == 0.0
    assert found["disagreements"] == []
    assert found["gates"]["recorded"] == found["gates"]["replayed"] == {"parses": 4}


def test_another_rubric_changes_ranks_and_says_where(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = replayed(capsys, "rewards=plausible:1", "show=2")
    assert found["rewards"] == {"plausible": 1.0}
    # A wrong total is as plausible as the right one: what told them apart is gone.
    assert found["ranks"]["kendall"] < 0.9
    assert found["reward"]["replayed"] > found["reward"]["recorded"]
    assert found["advantages"]["sign_flips"] > 0.0
    assert found["parts"]["grounded"]["replayed"] is None
    assert len(found["disagreements"]) == 2
    first = found["disagreements"][0]
    change = [abs(d["advantage"]["recorded"] - d["advantage"]["replayed"]) for d in found["disagreements"]]
    assert change[0] >= change[1] > 0.1
    assert first["parts"]["grounded"]["recorded"] is not None
    assert len({d["id"] for d in found["disagreements"]}) == 2


def test_the_naive_rubric_and_a_task_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(replayed(capsys, "rubric=naive")["parts"]) >= {"has_keys", "adds_up", "words_in_source", "grounded"}
    (folder / "mine.yaml").write_text("gates: {parses: 0.0, schema: 0.05}\nrewards: {covers: 1}\nabstain: 0.25\n")
    assert replayed(capsys, "rubric=mine.yaml", "step=2")["rewards"] == {"covers": 1.0}
    # Another document type: nothing fits its schema.
    assert replayed(capsys, "task=invoice")["gates"]["replayed"] == {"schema": 12, "parses": 4}


def test_a_reward_that_fails_is_counted_and_no_zero(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rewards.task import TASK_FOLDER

    (folder / "broken_reward.py").write_text("def boom(document, attempt, task):\n    raise KeyError('gone')\n")
    monkeypatch.syspath_prepend(str(folder))
    text = (TASK_FOLDER / "receipt.yaml").read_text()
    start = text.index("  rewards:")
    text = text[:start] + '  rewards: {"broken_reward:boom": 1}\n  allow: ["broken_reward:boom"]\n  abstain: 0.25\n'
    (folder / "mine.yaml").write_text(text)
    found = replayed(capsys, "task=mine.yaml")
    assert found["errors"] == {"recorded": 0, "replayed": 12}
    assert "KeyError: 'gone'" in found["error"]
    assert found["compared"] == 4


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "run: has no value yet"),
        (["run=runs/x", "rewards=grounded"], 2, "write NAME:WEIGHT"),
        (["run=runs/x", "rewards=groundet:1"], 2, "groundet: unknown reward; did you mean 'grounded'?"),
        (["run=runs/x", "rewards=os:system:1"], 2, "os:system: runs code"),
        (["run=runs/x", "rewards=grounded:0"], 2, "at least one weight must be above 0"),
        (["run=runs/x", "rewards=grounded:-1"], 2, "rewards.grounded"),
        (["run=runs/x", "rubric=naiv"], 2, "rubric=naiv: no such file; did you mean 'naive'?"),
        (["run=runs/x", "show=many"], 2, "show=many: must be a whole number"),
        (["run=runs/x", "docs.path=nowhere.jsonl"], 3, "no such file"),
        (["run=runs/x", "taks=receipt"], 2, "taks: unknown key; did you mean task?"),
    ],
)
def test_mistakes(words: list[str], code: int, says: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", *words]) == code
    shown = capsys.readouterr().err
    assert says in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_advantages_are_those_of_training(kind: str, scale: Any) -> None:
    import torch

    from rl.methods import METHODS

    rng = random.Random(0)
    rows: list[list[float | None]] = [[rng.random() for _ in range(4)] for _ in range(3)]
    rows[1][2] = None
    rows.append([0.5] * 4)
    table = torch.tensor([[math.nan if v is None else v for v in row] for row in rows], dtype=torch.float64)
    expected = METHODS[kind].advantage_function(table, scale)
    assert advantages(rows, kind, scale) == [pytest.approx(row, abs=1e-6) for row in expected.tolist()]


def test_statistics_by_hand() -> None:
    assert kendall([1, 2, 3], [1, 2, 3]) == 1.0
    assert kendall([1, 2, 3], [3, 2, 1]) == -1.0
    assert kendall([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(2 * 3))
    assert kendall([1, 1], [1, 2]) is None
    assert spearman([1, 2, 3, 4], [10, 20, 40, 30]) == pytest.approx(0.8)
    assert ranks([5.0, 1.0, 5.0]) == [2.5, 1.0, 2.5]
    assert pearson([1.0], [2.0]) is None
    assert percentile([4, 1, 3, 2], 50) == 2
    assert percentile([1], 99) == 1
    assert percentile([], 99) is None


def test_no_command_for_authors_loads_torch_or_hydra() -> None:
    code = (
        "import sys, launch.explain, launch.profile, launch.replay, rl.config, rl.prepare; "
        "sys.exit(bool({'torch', 'transformers', 'hydra', 'vllm'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
