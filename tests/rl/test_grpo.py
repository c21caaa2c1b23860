"""The loop with a sampler and a reward that cost nothing (tests/rl/fakes.py); test_smoke.py runs it with vLLM."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import rl.grpo
import rl.run
from rewards.document import Document
from rewards.errors import ConfigError, DataError, InfraError
from rewards.rubric import RubricScore
from rl import replay
from rl.grpo import reward_table, train
from rl.methods import METHODS, Method
from rl.policy import load_policy
from rl.rollouts import Group, Rollout
from tests.rl.fakes import TorchSampler, ToyPool, failed, make_config, scored, share_of_digits, write_receipts


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rl.run, "Sampler", TorchSampler)
    monkeypatch.setattr(rl.run, "RewardPool", ToyPool)
    monkeypatch.setattr(ToyPool, "reward", staticmethod(share_of_digits))


def lines(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict())


def test_training_raises_the_reward(tiny_model_dir: Path, tmp_path: Path) -> None:
    config = make_config(tiny_model_dir, tmp_path, run__steps=12, optim__lr=5e-3, eval__every_steps=0)
    train(config)
    rewards = [row["reward/mean"] for row in lines(tmp_path, "train")]
    assert len(rewards) == 12
    assert sum(rewards[-3:]) / 3 > 3 * sum(rewards[:3]) / 3
    before, after = (row["reward"]["value"] for row in lines(tmp_path, "eval"))
    assert after > before


def test_every_line_says_what_a_step_was(tiny_model_dir: Path, tmp_path: Path) -> None:
    train(make_config(tiny_model_dir, tmp_path, run__steps=1, eval__every_steps=0))
    (row,) = lines(tmp_path, "train")
    wanted = (
        "loss entropy clip_fraction logprob_gap grad_norm lr tokens/trained groups/trained reward/mean reward/std "
        "reward/part/toy rollout/parse_failed rollout/truncated rollout/score_errors rollout/zero_spread tokens/prompt "
        "tokens/completion seconds/sample seconds/score seconds/update seconds/load seconds/rest seconds/total"
    )
    assert set(wanted.split()) <= row.keys()
    assert row["step"] == 1
    parts = [row[f"seconds/{name}"] for name in ("sample", "score", "update", "load", "rest")]
    assert math.fsum(parts) == pytest.approx(row["seconds/total"])
    assert 0 <= row["logprob_gap"] < 1e-4
    assert 0 < row["entropy"] <= math.log(320)


def test_the_result_names_the_best_step_and_its_policy_is_kept(tiny_model_dir: Path, tmp_path: Path) -> None:
    result = train(make_config(tiny_model_dir, tmp_path, run__steps=4, optim__lr=5e-3))
    values = {row["step"]: row["reward"]["value"] for row in lines(tmp_path, "eval")}
    assert values.keys() == {0, 2, 4}
    best = max(values, key=lambda step: values[step])
    assert result["best"] == {"step": best, "reward": values[best]}
    assert result["steps"] == 4
    assert weights(tmp_path / "best").keys() == weights(tiny_model_dir).keys()


def test_adapters_alone_train_and_a_resume_goes_on_with_them(tiny_model_dir: Path, tmp_path: Path) -> None:
    """The sampler has the sum of weights and adapters: its log-probabilities are the trainer's at every step."""
    lora = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": ["all-linear"]}

    def run(name: str, steps: int) -> Path:
        train(make_config(tiny_model_dir, tmp_path / name, lora=lora, run__steps=steps, optim__lr=1e-2))
        return tmp_path / name

    whole = run("whole", 4)
    rows = lines(whole, "train")
    assert all(row["logprob_gap"] < 1e-4 for row in rows) and all(row["grad_norm"] > 0 for row in rows)
    saved = load_file(whole / "checkpoints" / "step_000004" / "policy.safetensors")
    assert saved and all(".lora_" in name for name in saved)
    before, after = weights(tiny_model_dir), weights(whole / "best")
    assert before.keys() == after.keys()
    run("cut", 2)
    again = lines(run("cut", 4), "train")
    for row in (*rows, *again):
        for key in [key for key in row if key.startswith("seconds/")]:
            del row[key]
    assert again == rows


def test_groups_without_spread_move_nothing(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyPool, "reward", staticmethod(lambda document, text: scored(0.5)))
    train(make_config(tiny_model_dir, tmp_path, run__steps=2, eval__every_steps=0))
    for row in lines(tmp_path, "train"):
        assert (row["rollout/zero_spread"], row["groups/trained"], row["grad_norm"]) == (1.0, 0, 0.0)
    before, after = weights(tiny_model_dir), weights(tmp_path / "best")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_resampling_draws_other_documents_up_to_the_bound(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyPool, "reward", staticmethod(lambda document, text: scored(0.5)))
    config = make_config(tiny_model_dir, tmp_path, run__steps=1, batch__resample_rounds=2, eval__every_steps=0)
    train(config)
    (row,) = lines(tmp_path, "train")
    assert row["groups/sampled"] == 9  # three documents and two more rounds of three


def test_a_failed_scoring_is_no_zero(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"n": 0}

    def reward(document: Document, text: str) -> RubricScore:
        calls["n"] += 1
        return failed() if calls["n"] % 4 == 0 else scored(0.25 + 0.5 * (calls["n"] % 2))

    monkeypatch.setattr(ToyPool, "reward", staticmethod(reward))
    train(make_config(tiny_model_dir, tmp_path, run__steps=1, eval__at_start=False, eval__every_steps=0))
    (row,) = lines(tmp_path, "train")
    assert row["rollout/score_errors"] == 3
    assert row["reward/mean"] == pytest.approx((0.75 + 0.25 + 0.75) / 3)
    assert row["tokens/trained"] < row["tokens/completion"]


def test_the_reward_table_is_packed_to_the_left() -> None:
    def rollout(token: int) -> Rollout:
        return Rollout("a", (token,), (-1.0,), "", "stop", 0, 0)

    groups = [Group("a", (1,), tuple(rollout(t) for t in (5, 6, 7))), Group("b", (1,), (rollout(8),) * 3)]
    kept, rewards_PG = reward_table(groups, [[failed(), scored(0.5), scored(1.0)], [failed()] * 3])
    assert [[r.completion_ids for r in group.rollouts] for group in kept] == [[(6,), (7,)]]
    assert rewards_PG[0, :2].tolist() == [0.5, 1.0]
    assert rewards_PG[0, 2].isnan()
    assert rewards_PG.shape == (1, 3)


def test_a_non_finite_loss_stops_before_the_update_and_leaves_a_replay_file(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grpo = METHODS["grpo"]

    def poisoned(inputs: Any, totals: Any, config: Any) -> Any:
        loss, metrics = grpo.loss_function(inputs, totals, config)
        return loss / (inputs.advantages_N.sum() * 0), metrics

    config = make_config(tiny_model_dir, tmp_path, run__steps=3)
    monkeypatch.setitem(METHODS, "grpo", Method(grpo.advantage_function, poisoned))
    with pytest.raises(InfraError, match=r"step 1: loss .*replay\.json") as error:
        train(config)
    assert "\n" not in str(error.value)
    assert lines(tmp_path, "train") == []

    (path,) = (tmp_path / "replay").glob("*/replay.json")
    tensors, batches, totals, facts = replay.read(path)
    assert facts["step"] == 1
    before = weights(tiny_model_dir)
    assert all(torch.equal(before[name], tensor) for name, tensor in tensors.items())
    # The batch alone was healthy: with the honest loss it gives a finite one.
    policy = load_policy(tiny_model_dir, "float32", "shared_prefix")
    policy.causal_lm.load_state_dict(tensors, strict=False)
    for batch in batches:
        logprobs_T = policy.logprobs(batch)
        assert torch.allclose(logprobs_T, batch.sampler_logprobs_T, atol=1e-4)
        loss, _ = grpo.loss(logprobs_T, batch, totals, config.method)
        assert loss.isfinite()


def test_a_sampler_that_disagrees_stops_the_run(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TorchSampler, "load", lambda self, tensors, version: None)  # it keeps its first weights
    config = make_config(tiny_model_dir, tmp_path, run__steps=4, optim__lr=2e-2, eval__every_steps=0)
    with pytest.raises(InfraError, match=r"sampler\.logprob_gap_max=0\.01"):
        train(config)
    assert 1 <= len(lines(tmp_path, "train")) < 4


def test_a_reference_policy_adds_a_divergence(tiny_model_dir: Path, tmp_path: Path) -> None:
    train(make_config(tiny_model_dir, tmp_path, run__steps=3, method__kl_coef=0.1, eval__every_steps=0))
    kl = [row["kl"] for row in lines(tmp_path, "train")]
    assert kl[0] == pytest.approx(0.0, abs=1e-6)
    assert kl[-1] > 1e-6


@pytest.mark.parametrize("kind", ["dr_grpo", "dapo", "gspo", "cispo", "rloo"])
def test_every_method_runs(kind: str, tiny_model_dir: Path, tmp_path: Path) -> None:
    train(make_config(tiny_model_dir, tmp_path, run__steps=2, method__kind=kind, eval__every_steps=0))
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in lines(tmp_path, "train"))


def test_a_document_that_is_too_long_is_left_out_and_named(
    tiny_model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "documents.jsonl"
    write_receipts(path)
    rows = path.read_text().splitlines()
    rows[2] = rows[2].replace("TOTAL", "TOTAL 1.00 " * 400)
    path.write_text("\n".join(rows) + "\n")
    config = make_config(tiny_model_dir, tmp_path / "run", docs__path=str(path), run__steps=1)
    train(config)
    assert "left out 1 of" in caplog.text and "d2 (" in caplog.text
    logs = "".join(path.read_text() for path in (tmp_path / "run" / "logs").glob("left_out_*.jsonl"))
    assert json.loads(logs)["id"] == "d2"

    tight = make_config(tiny_model_dir, tmp_path / "tight", docs__path=str(path), model__max_positions=32)
    with pytest.raises(DataError, match=r"none of .* fits in 24 prompt tokens"):
        train(tight)


def test_too_few_documents_for_a_step_is_one_line(tiny_model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch\.documents_per_step: 13 different documents"):
        train(make_config(tiny_model_dir, tmp_path, batch__documents_per_step=13, eval__at_start=False))
