"""Two processes under torchrun (gloo) take the same steps as one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from rewards.errors import ConfigError
from rl import checkpoint, distributed
from rl.config import RunConfig
from tests.rl.fakes import make_config

ROOT = Path(__file__).resolve().parents[2]
STEPS = 20


def test_one_process_is_the_trivial_case() -> None:
    accelerator = distributed.start(1, 60.0)
    assert isinstance(accelerator, Accelerator)
    assert distributed.shard([1, 2, 3], accelerator) == distributed.gather([1, 2, 3], accelerator) == [1, 2, 3]
    assert distributed.sum_numbers({"loss": 0.5}, accelerator) == {"loss": 0.5}
    layer = torch.nn.Linear(2, 1)
    distributed.sum_gradients(layer.parameters(), accelerator)
    assert all(p.grad is not None and not p.grad.any() for p in layer.parameters())


def test_a_wrong_world_size_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"run\.world_size: the config says 2 but 1 process"):
        distributed.start(2, 60.0)


def run(config: RunConfig, processes: int) -> subprocess.Popen[bytes]:
    path = Path(config.run.dir).with_suffix(".json")
    path.write_text(config.model_dump_json())
    command = [sys.executable, "-m", "tests.rl.toy_run", str(path)]
    if processes > 1:
        command[1:1] = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_twenty_steps_with_vllm(tiny_model_dir: Path, tmp_path: Path) -> None:
    changes: dict[str, object] = {
        "run__steps": STEPS,
        "batch__documents_per_step": 5,
        "eval__every_steps": STEPS,
        "eval__at_start": False,
        "checkpoint__every_steps": STEPS,
        "sampler__engine": {"kv_cache_memory_bytes": 2**27},
    }
    two = {"run__world_size": 2, "launch__kind": "torchrun", "launch__processes": 2}
    started = [
        run(make_config(tiny_model_dir, tmp_path / "one", **changes), 1),
        run(make_config(tiny_model_dir, tmp_path / "two", **changes, **two), 2),
    ]
    for process in started:
        _, error = process.communicate(timeout=900)
        assert process.returncode == 0, error.decode()[-2000:]

    one, both = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert [(row["step"], row["kind"]) for row in one] == [(row["step"], row["kind"]) for row in both]
    trained = [(a, b) for a, b in zip(one, both, strict=True) if a["kind"] == "train"]
    assert len(trained) == STEPS
    for a, b in trained:
        assert a["groups/trained"] > 0
        for name in ("loss", "grad_norm", "reward/mean", "entropy", "tokens/trained", "logprob_gap"):
            assert b[name] == pytest.approx(a[name], abs=1e-5), f"step {a['step']}: {name}"
    assert one[-1]["reward"] == both[-1]["reward"]
    first, second = checkpoint.latest(tmp_path / "one"), checkpoint.latest(tmp_path / "two")
    assert first is not None and second is not None
    for name, tensor in first.policy_state.items():
        assert torch.allclose(tensor, second.policy_state[name], atol=1e-4), name
