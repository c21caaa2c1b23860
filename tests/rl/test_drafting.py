"""Prompt-lookup drafting: what the guard sees, what it does, and what vLLM really gives."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

import rl.run
from rewards.errors import ConfigError
from rl import drafting
from rl.engine_arguments import check_sampling
from rl.grpo import train
from rl.policy import Policy, load_policy
from rl.rollouts import Group
from tests.rl.fakes import TorchSampler, ToyPool, make_config, share_of_digits
from tests.rl.test_sampler import PROMPTS, sampler_config

ROOT = Path(__file__).resolve().parents[2]
STARTER = ROOT / "results" / "starter"
DRAFTING = {"tokens": 3, "shortest": 2, "longest": 4}


def with_logprobs_of(policy: Policy, group: Group) -> Group:
    """The group as a sampler would hand it over that reads the right log-probabilities of the tokens it took."""
    from rl.batching import make_batch

    with torch.no_grad():
        logprobs_T = policy.logprobs(make_batch([group], torch.zeros(1, len(group.rollouts))))
    parts = logprobs_T.split([len(rollout.completion_ids) for rollout in group.rollouts])
    rollouts = [replace(r, sampler_logprobs=tuple(p.tolist())) for r, p in zip(group.rollouts, parts, strict=True)]
    return replace(group, rollouts=tuple(rollouts))


def other_tokens(group: Group, seed: int) -> Group:
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(3, 320, (len(r.completion_ids),), generator=generator).tolist() for r in group.rollouts]
    rollouts = [replace(r, completion_ids=tuple(i)) for r, i in zip(group.rollouts, ids, strict=True)]
    return replace(group, rollouts=tuple(rollouts))


def test_the_guard_sees_wrong_numbers_and_wrong_tokens(tiny_model_dir: Path) -> None:
    policy = load_policy(tiny_model_dir, "float32", "plain")
    with torch.no_grad():  # sharper than random weights, so that uniform tokens are surprising
        policy.causal_lm.get_decoder().norm.weight.mul_(8)  # type: ignore[union-attr, operator]
    sampler = TorchSampler(tiny_model_dir, sampler_config())
    sampler.load(policy.named_tensors_for_sampler(), version=0)
    honest = sampler.rollout(PROMPTS, 8, run_seed=0, step=0)
    assert drafting.fault(policy, honest, gap_max=0.01) is None

    shifted = [
        replace(
            g,
            rollouts=tuple(replace(r, sampler_logprobs=tuple(x - 0.1 for x in r.sampler_logprobs)) for r in g.rollouts),
        )
        for g in honest
    ]
    assert "differ from the trainer's by 0.1000 nats" in str(drafting.fault(policy, shifted, gap_max=0.01))
    first = honest[0].rollouts[0]
    nan = replace(first, sampler_logprobs=(float("nan"), *first.sampler_logprobs[1:]))
    broken = [replace(honest[0], rollouts=(nan, *honest[0].rollouts[1:])), *honest[1:]]
    assert "differ from the trainer's by nan" in str(drafting.fault(policy, broken, gap_max=0.01))
    # The log-probabilities are right and the tokens are not: the gap says nothing.
    uniform = [with_logprobs_of(policy, other_tokens(group, i)) for i, group in enumerate(honest)]
    assert "not drawn from the policy" in str(drafting.fault(policy, uniform, gap_max=0.01))


class BadDrafts(TorchSampler):
    """Wrong log-probabilities from its 4th step on, as long as it drafts."""

    drafting = True

    def rollout(self, *args: Any, **kwargs: Any) -> list[Group]:
        groups = super().rollout(*args, **kwargs)
        if not self.drafting or kwargs["step"] < 3:
            return groups
        return [
            replace(g, rollouts=tuple(replace(r, sampler_logprobs=(-9.0,) * len(r.completion_ids)) for r in g.rollouts))
            for g in groups
        ]

    def stop_drafting(self) -> None:
        type(self).drafting = False
        self.version = -1


def test_drafting_ends_with_one_warning_and_the_step_is_sampled_again(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rl.run, "RewardPool", ToyPool)
    monkeypatch.setattr(ToyPool, "reward", staticmethod(share_of_digits))
    monkeypatch.setattr(rl.run, "refuse_on_cpu", lambda what: None)
    monkeypatch.setattr(drafting, "EVERY_STEPS", 2)
    monkeypatch.setattr(BadDrafts, "drafting", True)
    monkeypatch.setattr(rl.run, "Sampler", TorchSampler)
    train(make_config(tiny_model_dir, tmp_path / "plain", run__steps=4))
    monkeypatch.setattr(rl.run, "Sampler", BadDrafts)
    with caplog.at_level(logging.WARNING):
        train(make_config(tiny_model_dir, tmp_path / "drafted", run__steps=4, sampler__drafting=DRAFTING))
    said = [record.getMessage() for record in caplog.records if "sampler.drafting" in record.getMessage()]
    assert len(said) == 1 and said[0].startswith("sampler.drafting is off from step 3 on: log-probabilities differ")

    def rewards(name: str) -> list[float]:
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        return [row["reward/mean"] for row in rows if row["kind"] == "train"]

    assert rewards("drafted") == rewards("plain")


def test_what_drafting_refuses(tiny_model_dir: Path, tmp_path: Path) -> None:
    changes: dict[str, object] = {"sampler__drafting": DRAFTING}
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"sampler\.drafting: training samples, and vLLM on the CPU draws wrong"):
            train(make_config(tiny_model_dir, tmp_path, **changes))
    with pytest.raises(ValidationError, match=r"sampler\.drafting: works with run\.driver=on_policy"):
        make_config(tiny_model_dir, tmp_path, **changes, run__driver="ahead", method__tis_cap=2.0)
    with pytest.raises(ValidationError, match="shortest=5 is more than longest=4"):
        make_config(tiny_model_dir, tmp_path, sampler__drafting=DRAFTING | {"shortest": 5})
    for config, fault in (
        (sampler_config(drafting=DRAFTING, temperature=0.7), r"set sampler\.temperature=1\.0 or set sampler\.drafting"),
        (sampler_config(drafting=DRAFTING, structured="schema"), r"not tried together with sampler\.structured"),
        (sampler_config(drafting=DRAFTING, engine={"speculative_config": {}}), r"speculative_config: set by"),
    ):
        with pytest.raises(ConfigError, match=fault):
            check_sampling(config)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="says what vLLM does on the CPU")
@pytest.mark.skipif(not STARTER.is_dir(), reason="no results/starter: run offramp pretrain")
def test_what_vllm_drafts_on_the_cpu() -> None:
    """Greedy answers are the same with drafts; samples are refused, and the guard says why."""
    plain, drafted = drafted_runs("plain", "drafts")
    assert drafted["greedy"] == plain["greedy"]
    assert plain["fault"] is None and plain["refused"] is None
    assert drafted["refused"].startswith("sampler.drafting: this samples, and vLLM on the CPU draws wrong tokens")
    assert "not drawn from the policy" in drafted["fault"], "if vLLM draws right now, lift the refusal"


def drafted_runs(*kinds: str) -> list[dict[str, Any]]:
    """Each in a process of its own: the compiler of vLLM's drafts, once loaded, breaks the start of a second engine."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "tests.rl.drafted_run", str(STARTER)]
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen([*command, kind], cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)
        for kind in kinds
    ]
    results = []
    for process in started:
        out, error = process.communicate(timeout=900)
        assert process.returncode == 0, error[-3000:]
        results.append(json.loads(out.splitlines()[-1]))
    return results
