from pathlib import Path

import pytest

import rl.run
from rewards.errors import ConfigError
from rl import demo
from tests.rl.fakes import TorchSampler, ToyPool, make_config, share_of_digits


def test_the_demo_sets_the_starter_beside_the_trained_policy(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rl.run, "Sampler", TorchSampler)
    monkeypatch.setattr(rl.run, "RewardPool", ToyPool)
    monkeypatch.setattr(ToyPool, "reward", staticmethod(share_of_digits))
    config = make_config(
        tiny_model_dir, tmp_path / "demo", run__steps=6, optim__lr=5e-3, eval__metric="documents_exact"
    )
    result = demo.main(config)
    assert result.keys() == {"starter", "grpo", "delta_documents_exact", "ci95", "seconds"}
    assert result["grpo"]["reward"]["value"] > result["starter"]["reward"]["value"]
    assert result["delta_documents_exact"] == 0.0  # a random model never gets a receipt right
    assert result["ci95"] == [0.0, 0.0]
    assert "documents_exact" in capsys.readouterr().out
    assert (tmp_path / "demo" / "plots" / "curves.png").stat().st_size > 10_000


def test_the_demo_needs_both_ends(tiny_model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"eval\.at_start=true"):
        demo.main(make_config(tiny_model_dir, tmp_path, eval__at_start=False))
