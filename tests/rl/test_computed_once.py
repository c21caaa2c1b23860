"""What an update computes, counted by the forwards of the policy and of the reference."""

from pathlib import Path
from typing import Any

import pytest
import torch

import rl.run
from rl import policy as policy_module
from rl.grpo import train
from rl.policy import PolicyModel
from rl.record import read_metrics
from tests.rl.fakes import TorchSampler, ToyPool, make_config, scored, share_of_digits


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """(groups of the batch, with gradients?) of every forward; the checks at first use are left out."""
    monkeypatch.setattr(rl.run, "Sampler", TorchSampler)
    monkeypatch.setattr(rl.run, "RewardPool", ToyPool)
    monkeypatch.setattr(ToyPool, "reward", staticmethod(share_of_digits))
    for check in ("shared_prefix_fault", "check_plain"):
        monkeypatch.setattr(policy_module, check, lambda model, batch: None)
    seen: list[tuple[int, bool]] = []
    forward = PolicyModel.forward

    def counted(self: PolicyModel, batch: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append((len(batch.groups), torch.is_grad_enabled()))
        return forward(self, batch, *args, **kwargs)

    monkeypatch.setattr(PolicyModel, "forward", counted)
    return seen


def test_a_step_is_one_forward_and_no_reference(
    forwards: list[tuple[int, bool]], tiny_model_dir: Path, tmp_path: Path
) -> None:
    train(make_config(tiny_model_dir, tmp_path, run__steps=1, eval__at_start=False, eval__every_steps=0))
    assert forwards and all(gradients for _, gradients in forwards)
    assert sum(groups for groups, _ in forwards) <= 3  # each document at most once: no pass for old log-probabilities


def test_the_reference_is_asked_once_a_batch_and_only_with_kl(
    forwards: list[tuple[int, bool]], tiny_model_dir: Path, tmp_path: Path
) -> None:
    train(make_config(tiny_model_dir, tmp_path, run__steps=1, method__kl_coef=0.1, eval__every_steps=0))
    with_gradient = [groups for groups, gradients in forwards if gradients]
    without = [groups for groups, gradients in forwards if not gradients]
    assert with_gradient == without and with_gradient


def test_a_group_without_spread_keeps_its_divergence(
    forwards: list[tuple[int, bool]], tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyPool, "reward", staticmethod(lambda document, text: scored(0.5)))
    train(make_config(tiny_model_dir, tmp_path, run__steps=1, method__kl_coef=0.1, eval__every_steps=0))
    assert sum(groups for groups, gradients in forwards if gradients) == 3
    (line,) = (x for x in read_metrics(tmp_path) if x["kind"] == "train")
    assert line["rollout/zero_spread"] == 1.0
    assert line["grad_norm"] == 0.0  # policy and reference are still one, and equal rewards have no advantage


def test_a_forward_that_does_not_run_is_packed_again(
    forwards: list[tuple[int, bool]], tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shared prefix packs several groups; rows that repeat their prompts would not fit with them."""
    settings: dict[str, Any] = {"run__steps": 1, "eval__at_start": False, "eval__every_steps": 0}
    settings["batch__tokens_per_batch"] = 400
    train(make_config(tiny_model_dir, tmp_path / "shared", **settings))
    assert max(groups for groups, _ in forwards) > 1
    forwards.clear()
    monkeypatch.setattr(policy_module, "shared_prefix_fault", lambda model, batch: "it does not run")
    train(make_config(tiny_model_dir, tmp_path / "plain", **settings))
    assert {groups for groups, _ in forwards} == {1}


def test_groups_without_spread_never_reach_the_model(
    forwards: list[tuple[int, bool]], tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyPool, "reward", staticmethod(lambda document, text: scored(0.5)))
    train(make_config(tiny_model_dir, tmp_path, run__steps=1, eval__at_start=False, eval__every_steps=0))
    assert forwards == []
