"""Sampling one step ahead: whose attempts are trained on, what their weights are, and what a resume brings back."""

import copy
import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

import rl.run
from rl import grpo
from rl.grpo import policy_age, train
from rl.policy import load_policy
from rl.record import Record
from rl.rollouts import Group
from rl.sampler import Sampler
from tests.rl.fakes import TorchSampler, ToyPool, make_config, share_of_digits
from tests.rl.test_resume import Killed, kill_after, outcome

AHEAD = {"run__driver": "ahead", "method__tis_cap": 5.0, "sampler__logprob_gap_max": 1.0}


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rl.run, "Sampler", TorchSampler)
    monkeypatch.setattr(rl.run, "RewardPool", ToyPool)
    monkeypatch.setattr(ToyPool, "reward", staticmethod(share_of_digits))


def rows(run_dir: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "train"]


@pytest.mark.usefixtures("stand_ins")
def test_every_step_but_the_first_trains_on_the_policy_of_a_step_before(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions: list[set[int]] = []
    record = Record.step

    def recorded(self: Record, step: int, metrics: Any, groups: list[Group], scores: Any) -> None:
        versions.append({rollout.policy_version for group in groups for rollout in group.rollouts})
        record(self, step, metrics, groups, scores)

    monkeypatch.setattr(Record, "step", recorded)
    train(make_config(tiny_model_dir, tmp_path / "ahead", run__steps=4, **AHEAD))
    assert versions == [{0}, {0}, {1}, {2}]
    assert [row["policy_age"] for row in rows(tmp_path / "ahead")] == [0, 1, 1, 1]
    assert all("seconds_ahead/sample" in row for row in rows(tmp_path / "ahead")[1:])
    versions.clear()
    train(make_config(tiny_model_dir, tmp_path / "on_policy", run__steps=4, **{**AHEAD, "run__driver": "on_policy"}))
    assert versions == [{0}, {1}, {2}, {3}]
    assert [row["policy_age"] for row in rows(tmp_path / "on_policy")] == [0, 0, 0, 0]


@pytest.mark.usefixtures("stand_ins")
def test_weights_are_those_of_the_older_policy(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tis_weight of step 3 = mean of min(policy 2 / policy 1, cap) over its tokens, computed here from both."""
    cap, states, batches = 1.02, [], []
    apply, batched = grpo.apply_gradients, grpo.batches
    policy = load_policy(tiny_model_dir, "float32", "plain")

    def applied(run: Any, lr: float, skip: bool) -> None:
        states.append(copy.deepcopy(run.policy.causal_lm.state_dict()))
        apply(run, lr, skip)

    def remembered(*args: Any, **kwargs: Any) -> Any:
        batches.append(batched(*args, **kwargs))
        return batches[-1]

    monkeypatch.setattr(grpo, "apply_gradients", applied)
    monkeypatch.setattr(grpo, "batches", remembered)
    changes = AHEAD | {"method__tis_cap": cap, "method__kind": "dapo", "optim__lr": 1e-2}
    train(make_config(tiny_model_dir, tmp_path, run__steps=3, **changes))

    def logprobs(version: int) -> torch.Tensor:
        policy.causal_lm.load_state_dict(states[version])
        with torch.no_grad():
            return torch.cat([policy.logprobs(batch) for batch in batches[2]])

    newer_T, older_T = logprobs(2), logprobs(1)
    ratio_T = (newer_T - older_T).exp()
    assert (ratio_T > cap).any() and (ratio_T < 1).any(), "the update moved the policy, so this test can fail"
    row = rows(tmp_path)[2]
    assert row["tis_weight"] == pytest.approx(ratio_T.clamp(max=cap).mean().item(), abs=1e-5)
    assert row["logprob_gap"] == pytest.approx((newer_T - older_T).abs().mean().item(), abs=1e-5)
    assert row["ratio"] == pytest.approx(1.0)
    sampled_T = torch.cat([batch.sampler_logprobs_T for batch in batches[2]])
    assert torch.allclose(sampled_T, older_T, atol=1e-5)


@pytest.mark.usefixtures("stand_ins")
def test_sampling_overlaps_the_update_and_a_load_waits_for_it(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    updating, sampling = threading.Event(), threading.Event()
    rollout, load, batched = TorchSampler.rollout, TorchSampler.load, grpo.batches
    overlapped = []

    def sampled(self: TorchSampler, *args: Any, **kwargs: Any) -> Any:
        sampling.set()
        if threading.current_thread() is not threading.main_thread():
            overlapped.append(updating.wait(30))
        groups = rollout(self, *args, **kwargs)
        sampling.clear()
        return groups

    def updated(*args: Any, **kwargs: Any) -> Any:
        updating.set()
        return batched(*args, **kwargs)

    def loaded(self: TorchSampler, *args: Any, **kwargs: Any) -> None:
        assert not sampling.is_set(), "weights went in while the sampler drew"
        updating.clear()
        load(self, *args, **kwargs)

    monkeypatch.setattr(TorchSampler, "rollout", sampled)
    monkeypatch.setattr(TorchSampler, "load", loaded)
    monkeypatch.setattr(grpo, "batches", updated)
    train(make_config(tiny_model_dir, tmp_path, run__steps=4, **AHEAD))
    assert overlapped == [True, True, True]


@pytest.mark.usefixtures("stand_ins")
def test_killed_again_and_again(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"run__steps": 4, "checkpoint__every_steps": 2, "batch__resample_rounds": 1, **AHEAD}
    train(make_config(tiny_model_dir, tmp_path / "whole", **changes))
    config = make_config(tiny_model_dir, tmp_path / "killed", **changes)
    for events in (1, 5, 9, 13, 17, 21, 8, 14, 16):
        with monkeypatch.context() as patch:
            kill_after(events, patch)
            with pytest.raises(Killed):
                train(config)
    train(config)
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


@pytest.mark.usefixtures("stand_ins")
def test_more_steps_go_on_where_the_run_ended(tiny_model_dir: Path, tmp_path: Path) -> None:
    train(make_config(tiny_model_dir, tmp_path / "whole", run__steps=4, **AHEAD))
    train(make_config(tiny_model_dir, tmp_path / "longer", run__steps=2, **AHEAD))
    train(make_config(tiny_model_dir, tmp_path / "longer", run__steps=4, **AHEAD))
    assert outcome(tmp_path / "longer") == outcome(tmp_path / "whole")


def test_what_cannot_be_ahead(tiny_model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"run\.driver=ahead: .* set method\.tis_cap"):
        make_config(tiny_model_dir, tmp_path, **{**AHEAD, "method__tis_cap": None})
    launch = {"kind": "torchrun", "processes": 2, "backend": "gloo", "timeout_s": 60.0}
    with pytest.raises(ValidationError, match=r"run\.driver=ahead: works in one process only"):
        make_config(tiny_model_dir, tmp_path, **AHEAD, launch=launch, run__world_size=2)
    assert policy_age([], 3) == 0


@pytest.mark.slow
def test_with_vllm(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real engine in a thread beside the update; killed after a step and resumed, the run ends the same."""
    monkeypatch.setattr(rl.run, "RewardPool", ToyPool)
    monkeypatch.setattr(rl.run, "Sampler", Sampler)
    changes = {"run__steps": 4, "sampler__engine": {"kv_cache_memory_bytes": 2**27}, "run__threads": 2, **AHEAD}
    train(make_config(tiny_model_dir, tmp_path / "whole", **changes))
    found = rows(tmp_path / "whole")
    assert [row["policy_age"] for row in found] == [0, 1, 1, 1]
    assert found[0]["logprob_gap"] < 1e-4 < found[1]["logprob_gap"], "a version of age shows in the gap"
    assert all(math.isfinite(row["loss"]) and row["tis_weight"] > 0.5 for row in found)

    record = Record.step

    def killed(self: Record, step: int, *rest: Any) -> None:
        record(self, step, *rest)
        if step == 3:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Record, "step", killed)
        train(make_config(tiny_model_dir, tmp_path / "killed", **changes))
    train(make_config(tiny_model_dir, tmp_path / "killed", **changes))
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
