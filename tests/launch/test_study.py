"""The honesty study from runs that are there, what it refuses, and rubric=naive."""

import json
from pathlib import Path
from typing import Any

import pytest

from launch.compose import compose_evaluate, compose_run
from launch.study import study
from rewards.errors import ConfigError
from rewards.task import load_task
from rl import honesty
from rl.config import RunConfig
from rl.evaluate import Answer, report, summarise, write_answers
from rl.prepare import load_documents
from rl.task_of import task_of

SMALL = ["docs.train=8", "docs.test=5", "run.steps=4", "eval.every_steps=2", "optim.warmup_steps=0"]


def test_rubric_naive_takes_the_place_of_any_tasks_own() -> None:
    for task in ("receipt", "invoice"):
        config = compose_run([f"task={task}", "rubric=naive"])
        assert set(task_of(config).rubric.rewards) == {"has_keys", "adds_up", "words_in_source"}
        assert task_of(config).schema == load_task(task).schema
        assert task_of(compose_run([f"task={task}"])).rubric == load_task(task).rubric
    assert compose_run(["rubric=naive", "rubric.rewards.adds_up=3"]).rubric.rewards["adds_up"] == 3  # type: ignore[union-attr]
    assert compose_evaluate(["docs.path=x.jsonl", "rubric=naive"]).rubric is not None


@pytest.mark.parametrize(
    ("rewards", "fault"),
    [
        ({"has_kys": 1.0}, r"rubric\.rewards\.has_kys: unknown reward; did you mean 'has_keys'"),
        ({"os:remove": 1.0}, r"rubric\.rewards\.os:remove: runs code"),
        ({"has_keys": 0.0}, "at least one weight must be above 0"),
    ],
)
def test_what_a_rubric_in_a_configuration_may_not_say(rewards: dict[str, float], fault: str) -> None:
    config = compose_run(["rubric=naive"])
    assert config.rubric is not None
    rubric = config.rubric.model_copy(update={"rewards": rewards})
    with pytest.raises(ConfigError, match=fault):
        task_of(config.model_copy(update={"rubric": rubric}))


def make_runs(runs: Path, seeds: tuple[int, ...]) -> None:
    """Runs as `offramp train experiment=honesty` leaves them, answered from gold: the naive ones lose their rows."""
    for rubric in honesty.RUBRICS:
        for seed in seeds:
            job = honesty.Job(rubric, seed, runs / f"{rubric}-{seed}")
            config = compose_run(job.overrides(SMALL))
            job.dir.mkdir(parents=True)
            (job.dir / "config.json").write_text(config.model_dump_json())
            task = task_of(config)
            pages = load_documents(config.docs, task, None).test
            lines: list[dict[str, Any]] = []
            for step in range(5):
                if step:
                    lines.append({"step": step, "kind": "train", "reward/mean": 0.4 + 0.1 * step, "seconds/total": 1.0})
                if step % 2 == 0:
                    answers = []
                    for page in pages:
                        gold = dict(page.gold or {})
                        text = task.canonical(gold | {"items": []} if rubric == "naive" and step else gold)
                        score = honesty.Rubric(task).score(page, text)
                        answers.append(Answer(page.id, page.group, text, "stop", 9, score, report(task, text, gold)))
                    write_answers(job.answers_path(step), answers)
                    lines.append({"step": step, "kind": "eval", **summarise(answers, resamples=100, seen_groups=None)})
            (job.dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_study_whose_jobs_are_done_is_only_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_runs(tmp_path / "runs", (0, 1))
    words = ["honesty", "seeds=0,1", f"runs={tmp_path / 'runs'}", f"out={tmp_path / 'out'}", *SMALL]
    summary = study(words, True)
    assert summary is not None
    naive, full = summary["naive"], summary["full"]
    assert full["f1/items[].amount"]["step 4"] == {"mean": 1.0, "min": 1.0, "max": 1.0}
    assert naive["f1/items[].amount"]["step 0"]["mean"] == 1.0 and naive["f1/items[].amount"]["step 4"]["mean"] == 0.0
    assert naive["scored_by/full"]["step 4"]["mean"] < full["scored_by/full"]["step 4"]["mean"] == 1.0
    assert naive["scored_by/naive"]["step 0"]["mean"] == pytest.approx(naive["reward"]["step 0"]["mean"])
    out = tmp_path / "out"
    assert (out / "honesty.png").stat().st_size > 20_000
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {(line["rubric"], line["seed"]) for line in lines} == {(r, s) for r in honesty.RUBRICS for s in (0, 1)}
    assert not any("seconds/total" in line for line in lines)
    kept = RunConfig.model_validate_json((out / "config-naive.json").read_bytes())
    assert kept.rubric is not None
    assert json.loads((out / "summary.json").read_text())["full"] == full
    assert "scored_by/naive" in capsys.readouterr().out

    with pytest.raises(ConfigError, match=r"holds jobs with docs\.train=8"):
        study([*words, "optim.lr=1e-3"], True)


def test_jobs_that_are_not_done_are_started_and_failures_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def call(command: list[str], **_: Any) -> Any:
        started.append(command)
        return type("Done", (), {"returncode": 3 if len(started) == 2 else 0})

    monkeypatch.setattr(honesty.subprocess, "run", call)
    make_runs(tmp_path / "runs", (0,))
    metrics = tmp_path / "runs" / "naive-0" / "metrics.jsonl"
    metrics.write_text("\n".join(metrics.read_text().splitlines()[:3]) + "\n")
    with pytest.raises(honesty.InfraError, match=r"naive-1: ended with code 3"):
        honesty.study(SMALL, seeds=(0, 1), runs=tmp_path / "runs", out=tmp_path / "out")
    assert ["rubric=naive" in command for command in started] == [True, True]
    assert "run.seed=1" in started[1] and "experiment=honesty" in started[1] and SMALL[0] in started[1]
