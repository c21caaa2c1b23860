"""A run that was killed and resumed ends like one that was not: same metrics, rollouts and weights, bit for bit."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import rl.run
from rewards.errors import ConfigError, DataError
from rl import checkpoint
from rl.grpo import train
from rl.interrupt import Stopped
from rl.record import Record
from tests.rl.fakes import TorchSampler, ToyPool, make_config, share_of_digits, write_receipts

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rl.run, "Sampler", TorchSampler)
    monkeypatch.setattr(rl.run, "RewardPool", ToyPool)
    monkeypatch.setattr(ToyPool, "reward", staticmethod(share_of_digits))


def outcome(run_dir: Path) -> dict[str, Any]:
    """All that a run leaves behind which must repeat: metrics without seconds, rollouts, answers, weights."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    metrics = [{k: v for k, v in row.items() if not is_time(k)} for row in rows]
    files = sorted([*(run_dir / "rollouts").iterdir(), *(run_dir / "evaluations").iterdir()])
    last = checkpoint.latest(run_dir)
    assert last is not None
    return {
        "metrics": metrics,
        "files": {str(path.relative_to(run_dir)): digest(path.read_bytes()) for path in files},
        "weights": {name: digest(t.contiguous().numpy().tobytes()) for name, t in last.policy_state.items()},
        "best": {name: digest(t.float().numpy().tobytes()) for name, t in load_file(best(run_dir)).items()},
    }


def best(run_dir: Path) -> Path:
    return run_dir / "best" / "model.safetensors"


def is_time(key: str) -> bool:
    return key.startswith("seconds") or key in ("time", "timestamp") or "per_second" in key


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Killed(BaseException):
    pass


def kill_after(events: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise at the given event; events: begin and end of each metrics line, checkpoint, load and sampling."""
    left = [events]

    def tick() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            tick()
            result = function(*args, **kwargs)
            tick()
            return result

        return wrapped

    for owner, name in ((Record, "step"), (Record, "evaluation"), (checkpoint, "save"), (TorchSampler, "rollout")):
        monkeypatch.setattr(owner, name, around(getattr(owner, name)))
    monkeypatch.setattr(TorchSampler, "load", around(TorchSampler.load))


@pytest.mark.usefixtures("stand_ins")
def test_killed_again_and_again(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"run__steps": 4, "eval__every_steps": 2, "checkpoint__every_steps": 2, "batch__resample_rounds": 1}
    train(make_config(tiny_model_dir, tmp_path / "whole", **changes))

    config = make_config(tiny_model_dir, tmp_path / "killed", **changes)
    for events in (1, 4, 9, 14, 19, 21, 23, 24, 6, 11, 15, 16, 17, 18):
        with monkeypatch.context() as patch:
            kill_after(events, patch)
            with pytest.raises(Killed):
                train(config)
    train(config)
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


@pytest.mark.usefixtures("stand_ins")
def test_a_signal_saves_the_last_whole_step(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"run__steps": 3, "checkpoint__every_steps": 100, "eval__every_steps": 2}
    train(make_config(tiny_model_dir, tmp_path / "whole", **changes))
    config = make_config(tiny_model_dir, tmp_path / "stopped", **changes)
    calls = [0]
    greedy = TorchSampler.greedy

    def signalled(self: TorchSampler, *args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:  # in the middle of the evaluation after step 2: nothing of it is on disk yet
            os.kill(os.getpid(), signal.SIGTERM)
        return greedy(self, *args)

    with monkeypatch.context() as patch, pytest.raises(Stopped) as stopped:
        patch.setattr(TorchSampler, "greedy", signalled)
        train(config)
    assert stopped.value.exit_code == 143
    saved = checkpoint.latest(tmp_path / "stopped")
    assert saved is not None and saved.step == 2
    train(config)
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


@pytest.mark.usefixtures("stand_ins")
def test_a_broken_checkpoint_is_passed_over(tiny_model_dir: Path, tmp_path: Path) -> None:
    config = make_config(tiny_model_dir, tmp_path / "run", run__steps=3)
    train(config)
    expected = outcome(tmp_path / "run")
    newest = max((path for path in (tmp_path / "run" / "checkpoints").rglob("*.safetensors")), key=str)
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(bytes(data))
    train(config)
    assert outcome(tmp_path / "run") == expected


@pytest.mark.usefixtures("stand_ins")
def test_more_steps_go_on_where_the_run_ended(tiny_model_dir: Path, tmp_path: Path) -> None:
    train(make_config(tiny_model_dir, tmp_path / "whole", run__steps=4))
    train(make_config(tiny_model_dir, tmp_path / "longer", run__steps=2))
    train(make_config(tiny_model_dir, tmp_path / "longer", run__steps=4))
    assert outcome(tmp_path / "longer") == outcome(tmp_path / "whole")


@pytest.mark.usefixtures("stand_ins")
def test_what_resume_refuses(tiny_model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.resume=must: .* no whole checkpoint"):
        train(make_config(tiny_model_dir, tmp_path / "run", run__resume="must"))
    train(make_config(tiny_model_dir, tmp_path / "run", run__steps=1))
    with pytest.raises(ConfigError, match=r"run\.resume=never: .* holds a run already"):
        train(make_config(tiny_model_dir, tmp_path / "run", run__steps=1, run__resume="never"))
    with pytest.raises(ConfigError, match=r"optim\.lr: .* was made with 0\.001, not 0\.5"):
        train(make_config(tiny_model_dir, tmp_path / "run", run__steps=2, optim__lr=0.5))
    with pytest.raises(ConfigError, match=r"docs\.split_seed"):
        train(make_config(tiny_model_dir, tmp_path / "run", run__steps=2, docs__split_seed=7))


@pytest.mark.usefixtures("stand_ins")
def test_other_documents_under_the_same_name_are_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    write_receipts(path, total="1.00")
    train(make_config(tiny_model_dir, tmp_path / "run", docs__path=str(path), run__steps=1))
    moved = path.rename(tmp_path / "elsewhere.jsonl")
    train(make_config(tiny_model_dir, tmp_path / "run", docs__path=str(moved), run__steps=2))
    write_receipts(path, total="2.00")
    with pytest.raises(DataError, match="not the documents that the run began with"):
        train(make_config(tiny_model_dir, tmp_path / "run", docs__path=str(path), run__steps=3))


def start(model: Path, run_dir: Path, hold_at_line: int = 0) -> subprocess.Popen[bytes]:
    engine = {"kv_cache_memory_bytes": 2**27}
    config = make_config(
        model, run_dir, run__steps=9, eval__every_steps=4, checkpoint__every_steps=2, sampler__engine=engine
    )
    path = run_dir.with_suffix(".json")
    path.write_text(config.model_dump_json())
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HOLD_AT_LINE": str(hold_at_line)}
    command = [sys.executable, "-m", "tests.rl.toy_run", str(path)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for_line(run_dir: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    path = run_dir / "metrics.jsonl"
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.01)
    assert process.stderr is not None
    pytest.fail(f"no {count} lines of metrics: {process.stderr.read().decode()[-2000:] if process.poll() else ''}")


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.slow
def test_kill_9_and_sigterm_with_vllm(
    tiny_model_dir: Path, tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    processes.append(start(tiny_model_dir, whole))
    processes.append(start(tiny_model_dir, killed, 4))
    wait_for_line(killed, 4, processes[1])
    processes[1].kill()
    processes[1].wait()

    processes.append(start(tiny_model_dir, killed, 7))
    wait_for_line(killed, 7, processes[2])
    asked = time.monotonic()
    processes[2].send_signal(signal.SIGTERM)
    assert processes[2].wait(timeout=120) == 143
    assert time.monotonic() - asked < 20

    processes.append(start(tiny_model_dir, killed))
    for process in (processes[3], processes[0]):
        _, error = process.communicate(timeout=600)
        assert process.returncode == 0, error.decode()[-2000:]
    assert outcome(killed) == outcome(whole)
    assert len(json.loads((killed / "run.json").read_text())["starts"]) == 3
