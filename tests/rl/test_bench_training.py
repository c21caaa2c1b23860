"""The two benches of whole runs: their arithmetic, and a real run of each."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from launch.bench_steps import ahead
from rewards.errors import ConfigError
from rl.bench_training import changed, compared, gradient_difference

ROOT = Path(__file__).resolve().parents[2]
STARTER = ROOT / "results" / "starter"


def test_curves_are_compared_with_the_spread_of_their_seeds() -> None:
    ours, plain = [[0.1, 0.4], [0.3, 0.8]], [[0.2, 0.5], [0.4, 0.9]]
    result = compared(ours, plain)
    assert result["reward_mean"] == {"shared_prefix": pytest.approx([0.2, 0.6]), "plain": pytest.approx([0.3, 0.7])}
    assert result["difference"] == pytest.approx(0.1)
    assert result["spread"] == pytest.approx((2 * 0.02**0.5 + 2 * 0.08**0.5) / 4)
    assert result["within_spread"]
    assert not compared([[0.1, 0.1], [0.1, 0.1]], [[0.2, 0.2], [0.2, 0.2]])["within_spread"]


def test_gradients_are_compared_tensor_by_tensor(tmp_path: Path) -> None:
    plain = {"large": torch.full((4,), 100.0), "small": torch.tensor([3.0, 4.0])}
    ours = {"large": plain["large"].clone(), "small": torch.tensor([3.0, 4.5])}
    save_file(plain, tmp_path / "plain.safetensors")
    save_file(ours, tmp_path / "ours.safetensors")
    found = gradient_difference(tmp_path / "ours.safetensors", tmp_path / "plain.safetensors")
    assert found["worst_tensor"] == pytest.approx(0.1)
    assert found["whole"] == pytest.approx(0.5 / (40000 + 25) ** 0.5)
    with pytest.raises(ConfigError, match="no group had spread"):
        gradient_difference(tmp_path / "none.safetensors", tmp_path / "plain.safetensors")


def test_a_side_differs_in_what_it_is_named_for() -> None:
    settings = {"run": json.dumps({"run": {"driver": "on_policy", "seed": 3}}), "steps": 4}
    other = changed(settings, "run", driver="ahead")
    assert json.loads(other["run"]) == {"run": {"driver": "ahead", "seed": 3}} and other["steps"] == 4
    assert json.loads(settings["run"])["run"]["driver"] == "on_policy"


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(ConfigError, match="--steps 2: must be at least 3"):
        ahead(["steps=2"])


@pytest.mark.slow
@pytest.mark.skipif(not STARTER.is_dir(), reason="no results/starter: run offramp pretrain")
def test_real_runs() -> None:
    words = "documents=2 group=4 completion=200 threads=1 dtype=float32 --json".split()
    started = [  # both at once: most of it is the start of four trainings, one thread each
        subprocess.Popen([sys.executable, "-m", "launch.cli", "bench", *more, *words], cwd=ROOT, stdout=subprocess.PIPE)
        for more in (["ahead", "steps=3"], ["learning", "steps=2", "seeds=1"])
    ]
    found, learned = (json.loads(process.communicate(timeout=900)[0].splitlines()[-1]) for process in started)
    assert found["policy_age"] == {"on_policy": [0, 0, 0], "ahead": [0, 1, 1]}
    # Not equal: ahead has half of the threads for each side, and another thread count gives other bits.
    assert all(len(found["reward"][name]) == 3 for name in ("ahead", "on_policy"))
    assert found["tis_weight"]["ahead"][0] == pytest.approx(1.0, abs=0.05)
    assert found["on_policy_over_ahead"] > 0

    assert 0 < learned["gradient_difference"] < 1e-4
    ours, plain = (learned["reward"][name]["seed 0"] for name in ("shared_prefix", "plain"))
    assert ours[0] == plain[0] and len(ours) == 2
