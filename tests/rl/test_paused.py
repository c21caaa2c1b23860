"""A judge that is out of order: the run is saved before it stops, and goes on as if nothing had been."""

from __future__ import annotations

from pathlib import Path

import pytest

import rl.run
from rewards.errors import Paused
from rl.grpo import train
from rl.record import canonical_metrics
from tests.rl.fakes import TorchSampler, ToyPool, make_config, share_of_digits


def test_a_paused_run_is_saved_and_goes_on(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rl.run, "Sampler", TorchSampler)
    monkeypatch.setattr(rl.run, "RewardPool", ToyPool)
    monkeypatch.setattr(ToyPool, "reward", staticmethod(share_of_digits))
    settings = {"run__steps": 3, "checkpoint__every_steps": 100, "eval__every_steps": 0, "monitor__enabled": False}
    whole = make_config(tiny_model_dir, tmp_path / "whole", **settings)
    train(whole)

    cut = make_config(tiny_model_dir, tmp_path / "cut", **settings)
    score, calls = ToyPool.score, []

    def score_until(self: ToyPool, pairs: object) -> object:
        calls.append(pairs)
        if len(calls) == 4:  # the evaluation at the start and two steps went well
            raise Paused("judge: 12 of its last 12 answers are trouble")
        return score(self, pairs)  # type: ignore[arg-type]

    monkeypatch.setattr(ToyPool, "score", score_until)
    with pytest.raises(Paused):
        train(cut)
    assert [path.name for path in (tmp_path / "cut" / "checkpoints").iterdir() if "2" in path.name]
    monkeypatch.setattr(ToyPool, "score", score)
    train(cut)
    assert canonical_metrics(tmp_path / "cut") == canonical_metrics(tmp_path / "whole")
