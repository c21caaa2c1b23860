"""The record on disk is complete, survives a kill, and can be compared; the mirror may die."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rewards.errors import InfraError
from rewards.rubric import RubricScore
from rewards.score import Finding
from rl import mirror, plots
from rl.config import RunConfig
from rl.record import Record, canonical_metrics, choose_rows, read_metrics, rollout_rows
from rl.rollouts import Group, Rollout
from tests.rl.fakes import make_config

NO_WANDB = {"enabled": False, "project": "offramp", "group": None, "table_rows": 4, "timeout_s": 5.0}


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time of a short record."""
    monkeypatch.setattr(plots, "draw", lambda run_dir: None)


def config_of(run_dir: Path, **changes: object) -> RunConfig:
    return make_config(Path("model"), run_dir, **({"record__wandb": NO_WANDB} | changes))


def sampled(step: int, size: int = 3) -> tuple[list[Group], list[list[RubricScore]]]:
    """Two groups; in the second one a scoring failed."""
    groups, scores = [], []
    for document in ("a", "b"):
        rollouts = [
            Rollout(document, (5, 6, 2), (-0.5, -0.25, 0.0), f'{{"n":{i}}} é', "stop", step - 1, 100 + i)
            for i in range(size)
        ]
        groups.append(Group(document, (1, 2, 3, 4), tuple(rollouts)))
        finding = Finding("items[0].amount", "1.00", (3, 7), 0.5, "printed")
        scores.append(
            [
                RubricScore(i / size, "scored", None, {"grounded": i / size, "covers": None}, (finding,))
                for i in range(size)
            ]
        )
    scores[1][0] = RubricScore(0.0, "error", None, {}, (), "worker killed \ud800")
    return groups, scores


def write(run_dir: Path, steps: range, *, resume_at: tuple[int, int] | None = None, clock: float = 1.0) -> None:
    with Record(run_dir, config_of(run_dir)) as record:
        record.truncate(step=resume_at[0] if resume_at else 0, lines=resume_at[1] if resume_at else 0)
        for step in steps:
            record.step(step, {"reward/mean": step / 7, "loss": float("nan"), "seconds/total": clock}, *sampled(step))
            if step % 2 == 0:
                record.evaluation(step, {"n": 3, "reward": {"value": step / 9, "ci95": [0.0, 1.0]}})


def test_the_folder(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    assert {path.name for path in tmp_path.iterdir()} == {
        "run.json", "config.json", "metrics.jsonl", "rollouts", "checkpoints", "logs", "plots"
    }  # fmt: skip
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["seed"] == 0 and facts["threads"] == 1 and facts["versions"]["torch"] and len(facts["starts"]) == 1
    assert RunConfig.model_validate_json((tmp_path / "config.json").read_text()) == config_of(tmp_path)
    lines = list(read_metrics(tmp_path))
    assert [(line["step"], line["kind"]) for line in lines] == [(1, "train"), (2, "train"), (2, "eval"), (3, "train")]
    assert lines[0]["loss"] is None and lines[0]["seconds/total"] == 1.0
    assert (tmp_path / "plots" / "curves.png").stat().st_size > 10_000


@pytest.mark.usefixtures("no_curves")
def test_rollouts_hold_every_part_of_every_score(tmp_path: Path) -> None:
    write(tmp_path, range(1, 2))
    rows = pq.read_table(tmp_path / "rollouts" / "step_000001.parquet").to_pylist()
    assert len(rows) == 6
    assert rows[1]["part/grounded"] == pytest.approx(1 / 3) and rows[1]["part/covers"] is None
    assert rows[1]["completion"] == '{"n":1} é' and rows[1]["completion_ids"] == [5, 6, 2]
    assert rows[1]["sampler_logprobs"] == [-0.5, -0.25, 0.0]
    assert rows[1]["policy_version"] == 0 and rows[1]["seed"] == 101
    assert json.loads(rows[1]["findings"])[0]["why"] == "printed"
    failed = rows[3]
    assert failed["status"] == "error" and failed["reward"] is None and failed["error"] == "worker killed ?"


@pytest.mark.usefixtures("no_curves")
def test_a_resumed_run_ends_with_the_same_record(tmp_path: Path) -> None:
    """Killed in step 4, with a torn line, after a checkpoint of step 2 that was taken after three lines."""
    write(tmp_path / "whole", range(1, 7))
    write(tmp_path / "killed", range(1, 5))
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "kind"')
    (tmp_path / "killed" / "rollouts" / "step_000005.parquet.part").write_text("torn")
    write(tmp_path / "killed", range(3, 7), resume_at=(2, 3), clock=9.0)
    assert canonical_metrics(tmp_path / "killed") == canonical_metrics(tmp_path / "whole")
    assert "seconds/total" not in canonical_metrics(tmp_path / "whole")[0]
    names = sorted(path.name for path in (tmp_path / "whole" / "rollouts").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "killed" / "rollouts").iterdir()) and len(names) == 6
    for name in names:
        assert (tmp_path / "whole/rollouts" / name).read_bytes() == (tmp_path / "killed/rollouts" / name).read_bytes()
    facts = json.loads((tmp_path / "killed" / "run.json").read_text())
    assert len(facts["starts"]) == 2


@pytest.mark.usefixtures("no_curves")
def test_truncate_by_step_and_refuse_a_shortened_file(tmp_path: Path) -> None:
    write(tmp_path, range(1, 5))
    with Record(tmp_path, config_of(tmp_path)) as record:
        assert record.lines == 6
        record.truncate(step=3)
        assert record.lines == 4 and [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 2, 3]
        with pytest.raises(InfraError, match=r"has 4 whole lines but the checkpoint of step 9 was saved after 12"):
            record.truncate(step=9, lines=12)


@pytest.mark.usefixtures("no_curves")
def test_only_rank_0_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    write(tmp_path / "run", range(1, 3))
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_curves")
def test_facts_can_be_added(tmp_path: Path) -> None:
    with Record(tmp_path, config_of(tmp_path)) as record:
        record.note(documents="9f2c")
    assert json.loads((tmp_path / "run.json").read_text())["documents"] == "9f2c"


def test_a_killed_writer_loses_no_line(tmp_path: Path) -> None:
    """Each line is on the disk when `step` returns: kill -9 right after the last one."""
    config = config_of(tmp_path)
    code = f"""
        import os, signal
        from rl.config import RunConfig
        from rl.record import Record
        record = Record({str(tmp_path)!r}, RunConfig.model_validate_json({config.model_dump_json()!r}))
        for step in range(1, 21):
            record.step(step, {{"reward/mean": 0.5}}, [], [])
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=Path(__file__).parents[2], capture_output=True
    )
    assert done.returncode == -9, done.stderr.decode()
    assert [line["step"] for line in read_metrics(tmp_path)] == list(range(1, 21))
    assert not list((tmp_path / "rollouts").glob("*"))  # no groups, no file


@pytest.mark.usefixtures("no_curves")
def test_plain_lines_outside_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, range(1, 3))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0].startswith("step 1/4  reward 0.143")
    assert err.splitlines()[2] == "evaluation after step 2  reward 0.222 [0.000, 1.000]"


def test_the_table_has_the_best_and_the_worst() -> None:
    groups, scores = sampled(1, size=10)
    rows = choose_rows(1, groups, scores, 6)
    assert len(rows) == 6 and rows == choose_rows(1, groups, scores, 6)
    rewards = [row["reward"] for row in rows]
    assert rewards[:2] == [0.9, 0.9] and None in rewards[-2:]
    assert choose_rows(1, groups, scores, 0) == []
    assert len(choose_rows(1, groups, scores, 32)) == 20


def test_text_in_the_table_is_capped() -> None:
    groups, scores = sampled(1)
    row = rollout_rows(1, groups, scores)[0] | {"completion": "é" * 5000}
    shown = mirror.table_row(row)[-1]
    assert len(shown.encode()) == 4096 and set(shown) == {"é"}


@pytest.mark.parametrize("lines", [[], [{"step": 0, "kind": "eval", "n": 0}], [{"step": 1, "kind": "train"}]])
def test_curves_of_almost_nothing(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert (plots.draw(tmp_path) is None) == (not lines)


@pytest.fixture
def wandb_config(tmp_path: Path) -> Iterator[RunConfig]:
    yield config_of(tmp_path / "run", record__wandb=NO_WANDB | {"enabled": True})


def offline_files(config: RunConfig) -> list[Path]:
    return list((Path(config.run.dir) / "logs").rglob("*.wandb"))


@pytest.mark.slow
@pytest.mark.usefixtures("no_curves")
def test_wandb_offline_without_a_key(wandb_config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for it, and every step with its table is in the offline run."""
    start, go = mirror.start, threading.Event()
    monkeypatch.setattr(mirror, "start", lambda *given: go.wait(120) and start(*given))
    run_dir = Path(wandb_config.run.dir)
    patient = wandb_config.record.wandb.model_copy(update={"timeout_s": 120.0})
    config = wandb_config.model_copy(update={"record": wandb_config.record.model_copy(update={"wandb": patient})})
    started = time.perf_counter()
    record = Record(run_dir, config)
    for step in (1, 2):
        record.step(step, {"reward/mean": 0.5}, *sampled(step))
    assert time.perf_counter() - started < 5  # who waited for W&B would have waited for 120 s
    go.set()
    record.mirror.timeout_s = 60  # type: ignore[union-attr]  # a busy machine may need it, a run would go on without
    record.close()
    assert record.mirror is not None and record.mirror.failure is None
    assert len(offline_files(wandb_config)) == 1
    tables = list((run_dir / "logs").rglob("*.table.json"))
    assert len(tables) == 2 and len(json.loads(tables[0].read_text())["data"]) == 4


@pytest.mark.slow
@pytest.mark.parametrize("key", ["", "0" * 40], ids=["no key", "key but no network"])
def test_wandb_starts_without_a_network(
    key: str, wandb_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    wandb.teardown()  # the settings of an earlier start would hide the address
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    started = time.perf_counter()
    run = mirror.start({"project": "p", "dir": str(tmp_path), "id": "a" * 8}, timeout_s=2.0)
    seconds = time.perf_counter() - started
    run.finish()
    assert run.settings.mode == "offline"
    assert seconds < 5  # by itself W&B would try for 90 s


@pytest.mark.usefixtures("no_curves")
@pytest.mark.parametrize("how", ["init raises", "log raises", "log hangs"])
def test_a_dead_mirror_does_not_stop_the_run(
    how: str, wandb_config: RunConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Run:
        def log(self, *_: object, **__: object) -> None:
            if how == "log hangs":
                time.sleep(600)
            raise SystemExit("server gone")

        def finish(self) -> None:
            pass

    def start(*_: object, **__: object) -> Run:
        if how == "init raises":
            raise RuntimeError("no space for\nwandb")
        return Run()

    monkeypatch.setattr(mirror, "start", start)
    config = wandb_config.model_copy(
        update={"record": wandb_config.record.model_copy(update={"wandb": wandb_config.record.wandb.model_copy(
            update={"timeout_s": 10.0 if how == "log hangs" else 30.0, "table_rows": 0})})}
    )  # fmt: skip
    monkeypatch.setattr(mirror, "QUEUE_LIMIT", 8)
    started = time.perf_counter()
    with Record(Path(config.run.dir), config) as record:
        for step in range(1, 21 if how == "log hangs" else 4):
            record.step(step, {"reward/mean": 0.5}, [], [])
    assert time.perf_counter() - started < 60
    count = len(list(read_metrics(config.run.dir)))
    assert count == (20 if how == "log hangs" else 3)
    if how == "log hangs":
        assert "W&B was too slow" in caplog.text
    else:
        assert caplog.text.count("W&B mirror stopped") == 1


def test_the_key_is_looked_for_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not mirror.has_key()
    netrc = tmp_path / "netrc"
    netrc.write_text("machine api.wandb.ai login user password k\n")
    os.chmod(netrc, 0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert mirror.has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.com")
    assert not mirror.has_key()
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert mirror.has_key()
