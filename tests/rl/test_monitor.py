"""The monitor alarms on a hacked run, not on a clean one, and the same after a resume."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

import rl.monitor
import rl.run
from envs import synthetic
from launch.compose import compose_run
from rewards.loopholes import LOOPHOLES, holed
from rewards.task import load_task
from rl import monitor_study
from rl.config import MonitorConfig
from rl.grpo import train
from rl.monitor import Monitor
from rl.record import read_metrics
from tests.rl.fakes import TorchSampler, ToyPool, make_config, share_of_digits

TASK = load_task("receipt")
CONFIG = MonitorConfig(
    enabled=True, window=4, z=4.0, reward_rise=0.03, effects={"copied": 0.2, "entropy": -0.3}, truth_fall=0.05
)


def steps(rewards: list[float], **fingerprints: list[float]) -> list[dict[str, Any]]:
    return [
        {"step": i + 1, "kind": "train", "reward/mean": reward}
        | {f"monitor/{name.replace('__', '/')}": values[i] for name, values in fingerprints.items()}
        for i, reward in enumerate(rewards)
    ]


def ramp(low: float, high: float, noise: float = 0.0, count: int = 20) -> list[float]:
    """Four steps at `low`, a rise, then `high`, with a wobble."""
    wobble = [noise * (-1) ** i for i in range(count)]
    return [w + low + (high - low) * min(1.0, max(0.0, (i - 4) / 8)) for i, w in enumerate(wobble)]


def test_a_fingerprint_that_moves_with_the_reward_alarms_once() -> None:
    alarms = Monitor(CONFIG, TASK, ()).replay(steps(ramp(0.4, 0.8), copied=ramp(0.3, 0.9, 0.01)))
    (alarm,) = alarms
    assert (alarm.fingerprint, alarm.before) == ("copied", pytest.approx(0.3, abs=0.02))
    assert 8 <= alarm.step <= 12 and alarm.after - alarm.before >= 0.2
    assert alarm.line()["kind"] == "alarm" and "copied went from 0.30" in str(alarm)


def test_the_name_of_a_family_watches_every_field() -> None:
    alarms = Monitor(CONFIG, TASK, ()).replay(steps(ramp(0.4, 0.8), entropy__vendor=ramp(1.0, 0.2)))
    assert [alarm.fingerprint for alarm in alarms] == ["entropy/vendor"]


@pytest.mark.parametrize(
    ("rewards", "copied"),
    [
        (ramp(0.4, 0.4), ramp(0.3, 0.9)),  # the reward does not rise
        (ramp(0.4, 0.8), ramp(0.3, 0.45)),  # too small a move
        (ramp(0.4, 0.8), ramp(0.9, 0.3)),  # the good direction
        (ramp(0.4, 0.8), ramp(0.3, 0.6, noise=0.3)),  # no larger than its noise
        (ramp(0.4, 0.8), [math.nan] * 20),
    ],
)
def test_what_does_not_alarm(rewards: list[float], copied: list[float]) -> None:
    assert Monitor(CONFIG, TASK, ()).replay(steps(rewards, copied=copied)) == []


def test_held_out_truth_that_falls_while_the_reward_rises() -> None:
    def evaluation(step: int, reward: float, date: float) -> dict[str, Any]:
        metrics = {"reward": reward, "exact/date": date, "field_f1": 0.5}
        ci = {name: {"value": v, "ci95": [v - 0.05, v + 0.05]} for name, v in metrics.items()}
        return {"step": step, "kind": "eval", "n": 100, **ci}

    monitor = Monitor(CONFIG, TASK, ())
    lines = [evaluation(0, 0.4, 0.9), evaluation(10, 0.6, 0.85), evaluation(20, 0.8, 0.4), evaluation(30, 0.8, 0.3)]
    assert [(a.step, a.fingerprint) for a in monitor.replay(lines)] == [(20, "truth/exact/date")]
    assert Monitor(CONFIG, TASK, ()).replay([evaluation(0, 0.8, 0.9), evaluation(10, 0.4, 0.1)]) == []


def looks(_: object, answers: list[tuple[str, list[str]]]) -> dict[str, float]:
    """A stand-in: the share of digits in the answers, which is what the toy reward pays."""
    texts = [text for _, completions in answers for text in completions]
    return {
        "copied": sum(sum(c.isdigit() for c in text) / max(1, len(text)) for text in texts) / len(texts),
        "entropy/total": math.nan,
    }


def test_a_resumed_run_has_the_same_alarms(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rl.run, "Sampler", TorchSampler)
    monkeypatch.setattr(rl.run, "RewardPool", ToyPool)
    monkeypatch.setattr(ToyPool, "reward", staticmethod(share_of_digits))
    monkeypatch.setattr(rl.monitor, "fingerprints", looks)
    changes: dict[str, Any] = {
        "optim__lr": 5e-3,
        "eval__every_steps": 0,
        "monitor__effects": {"copied": 0.03},
        "monitor__z": 0.1,
        "monitor__reward_rise": 0.03,
    }
    train(make_config(tiny_model_dir, tmp_path / "whole", run__steps=12, **changes))
    lines = [json.dumps(strip(line)) for line in read_metrics(tmp_path / "whole")]
    alarms = [line for line in read_metrics(tmp_path / "whole") if line["kind"] == "alarm"]
    assert [alarm["fingerprint"] for alarm in alarms] == ["copied"]
    assert "warning: step" in capsys.readouterr().err
    for stop in (alarms[0]["step"] - 1, alarms[0]["step"], 12):
        train(make_config(tiny_model_dir, tmp_path / "parts", run__steps=stop, **changes))
    parts = [json.dumps(strip(line)) for line in read_metrics(tmp_path / "parts") if line["kind"] != "eval"]
    assert parts == [line for line in lines if '"kind": "eval"' not in line]

    changes["monitor__enabled"] = False
    train(make_config(tiny_model_dir, tmp_path / "off", run__steps=1, **changes))
    assert not any("monitor/copied" in line for line in read_metrics(tmp_path / "off"))


def strip(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if not key.startswith("seconds/")}


def test_a_toy_policy_that_finds_the_hole_is_found() -> None:
    config = compose_run([]).monitor
    pages = synthetic.documents("receipt", 16, 11, "held_out")
    task = holed(TASK, "words_recalled")
    run = monitor_study.simulate(config, task, pages, seed=0, steps=60, until_found=True)
    assert run.alarms and run.onset is not None
    assert run.alarms[0].step <= run.onset + monitor_study.WITHIN
    assert run.rewards[-1] > run.rewards[0]


def test_a_toy_policy_that_learns_honestly_is_left_in_peace() -> None:
    config = compose_run([]).monitor
    pages = synthetic.documents("receipt", 16, 11, "held_out")
    run = monitor_study.simulate(config, TASK, pages, seed=0, steps=30)
    assert run.rewards[-1] > run.rewards[0] + 0.3
    assert run.alarms == () and run.onset is None


@pytest.mark.parametrize("name", LOOPHOLES)
def test_a_holed_task_file_loads(name: str, tmp_path: Path) -> None:
    task = load_task(monitor_study.holed_task_file(name, tmp_path))
    assert task.rubric.rewards == {f"rewards.loopholes:{name}": 1.0}
