"""Advantages on hand numbers, and against TRL's own trainers."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from rl.advantages import group_advantages, has_spread, leave_one_out_advantages, nanstd

NAN = float("nan")


def test_group_advantages_on_hand_numbers() -> None:
    rewards_PG = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.2, 0.4, 0.6, 0.8]])
    assert group_advantages(rewards_PG, "none").tolist() == [
        pytest.approx([0.5, -0.5, -0.5, 0.5]),
        pytest.approx([-0.3, -0.1, 0.1, 0.3], abs=1e-6),
    ]
    # Unbiased deviations: sqrt(1 / 3) and sqrt(0.2 / 3).
    by_group = group_advantages(rewards_PG, "group")
    assert by_group[0, 0].item() == pytest.approx(0.5 / (math.sqrt(1 / 3) + 1e-4))
    assert by_group[1, 0].item() == pytest.approx(-0.3 / (math.sqrt(0.2 / 3) + 1e-4))
    # All eight have the mean 0.5 and the sum of squares 1.2.
    by_batch = group_advantages(rewards_PG, "batch")
    assert by_batch[0].tolist() == pytest.approx([0.5 / (math.sqrt(1.2 / 7) + 1e-4) * sign for sign in (1, -1, -1, 1)])


def test_leave_one_out_on_hand_numbers() -> None:
    # The others' means: 1.0, 0.5, 0.0 / 2 = 0.75 and so on.
    advantages = leave_one_out_advantages(torch.tensor([[1.0, 0.5, 0.0]]), "none")
    assert advantages.tolist() == [pytest.approx([1.0 - 0.25, 0.0, 0.0 - 0.75])]
    assert leave_one_out_advantages(torch.tensor([[1.0, 0.5, 0.0]]), "group")[0, 0].item() == pytest.approx(
        0.75 / 0.5001
    )


def test_a_missing_reward_leaves_the_baseline_and_gets_nothing() -> None:
    rewards_PG = torch.tensor([[1.0, 0.0, NAN], [NAN, NAN, 0.3], [NAN, NAN, NAN]])
    assert group_advantages(rewards_PG, "none").tolist() == [[0.5, -0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert leave_one_out_advantages(rewards_PG, "none").tolist() == [[1.0, -1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    for function in (group_advantages, leave_one_out_advantages):
        for scale in ("group", "batch"):
            advantages_PG = function(rewards_PG, scale)  # type: ignore[arg-type]
            assert advantages_PG.isfinite().all()
            assert advantages_PG[0, 2] == 0 and advantages_PG[2].tolist() == [0.0, 0.0, 0.0]


def test_groups_without_spread() -> None:
    rewards_PG = torch.tensor(
        [[0.1, 0.1, 0.1], [0.1, 0.1, 0.1 + 1e-8], [0.1, 0.2, NAN], [NAN, NAN, 0.4], [NAN, 0.4, 0.4]]
    )
    assert has_spread(rewards_PG).tolist() == [False, False, True, False, False]


def test_nanstd_is_unbiased() -> None:
    assert nanstd(torch.tensor([[1.0, NAN, 3.0]]), dim=1).item() == pytest.approx(math.sqrt(2.0))


REWARDS = [[0.9, 0.1, 0.4], [0.25, NAN, 0.75]]


@pytest.mark.parametrize(
    ("kind", "settings", "scale"),
    [
        ("grpo", {"scale_rewards": "group"}, "group"),
        ("grpo", {"scale_rewards": "batch"}, "batch"),
        ("grpo", {"scale_rewards": "none"}, "none"),
        ("rloo", {"normalize_advantages": False}, "none"),
        ("rloo", {"normalize_advantages": True}, "batch"),
    ],
)
def test_equal_to_trl(
    kind: str,
    settings: dict[str, Any],
    scale: Any,
    tiny_model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TRL samples a few tokens from the tiny model, is given our rewards, and computes its advantages."""
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    trainer_class, config_class = (RLOOTrainer, RLOOConfig) if kind == "rloo" else (GRPOTrainer, GRPOConfig)
    prompts = ["a"] * 3 + ["b"] * 3
    trainer = trainer_class(
        model=AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32),
        reward_funcs=lambda completions, **columns: [0.0] * len(completions),
        args=config_class(
            output_dir=str(tmp_path),
            per_device_train_batch_size=6,
            num_generations=3,
            max_completion_length=2,
            beta=0.0,
            use_cpu=True,
            report_to=[],
            bf16=False,
            **settings,
        ),
        train_dataset=datasets.Dataset.from_dict({"prompt": prompts}),
        processing_class=AutoTokenizer.from_pretrained(tiny_model_dir),
    )
    rewards_PG = torch.tensor(REWARDS)
    monkeypatch.setattr(trainer, "_calculate_rewards", lambda *args, **kwargs: rewards_PG.reshape(-1, 1))
    expected = trainer._generate_and_score_completions([{"prompt": prompt} for prompt in prompts])["advantages"]

    ours = (leave_one_out_advantages if kind == "rloo" else group_advantages)(rewards_PG, scale)
    torch.testing.assert_close(ours.flatten(), expected, atol=1e-6, rtol=1e-5)
    assert ours[1, 1] == 0 and ours.abs().max() > 0.2
