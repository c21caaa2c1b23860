"""Losses: worked examples by hand, and TRL's own `_compute_loss` as the oracle for values and gradients."""

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from rl.batching import Batch, batches, make_batch
from rl.config import MethodConfig
from rl.losses import LossInputs, Totals, cispo_loss, dapo_loss, dr_grpo_loss, grpo_loss, gspo_loss, rloo_loss
from rl.methods import METHODS
from rl.policy import Policy, load_policy
from rl.rollouts import Group, Rollout

MAX_COMPLETION = 16


def method_config(kind: str = "grpo", **changes: Any) -> MethodConfig:
    values: dict[str, Any] = {
        "kind": kind,
        "scale_rewards": "group",
        "clip_low": 0.2,
        "clip_high": 0.28,
        "kl_coef": 0.0,
        "tis_cap": None,
        "truncated": "score",
        "max_completion_length": MAX_COMPLETION,
    }
    return MethodConfig.model_validate(values | changes)


def hand_inputs(**changes: Any) -> LossInputs:
    """Completion 0: two tokens with the ratios e^0.5 and 1, advantage 2. Completion 1: one token, ratio e^-0.5,
    advantage -1."""
    values: dict[str, Any] = {
        "logprobs_T": torch.tensor([-1.0, -2.0, -1.5], requires_grad=True),
        "old_logprobs_T": torch.tensor([-1.5, -2.0, -1.0]),
        "advantages_N": torch.tensor([2.0, -1.0]),
        "sequence_T": torch.tensor([0, 0, 1]),
        "mask_T": torch.ones(3),
        "sampler_logprobs_T": torch.tensor([-1.5, -2.0, -1.0]),
        "ref_logprobs_T": None,
    }
    return LossInputs(**(values | changes))


# Clipped: min(e^0.5 x 2, 1.28 x 2) = 2.56; 2; min(-e^-0.5, -0.8) = -0.8.
@pytest.mark.parametrize(
    ("loss_function", "expected"),
    [
        (grpo_loss, -((2.56 + 2.0) / 2 - 0.8) / 2),
        (dapo_loss, -(2.56 + 2.0 - 0.8) / 3),
        (dr_grpo_loss, -(2.56 + 2.0 - 0.8) / (2 * MAX_COMPLETION)),
        # Ratio of completion 0 is e^0.25 = 1.284, clipped at 1.28; of completion 1 e^-0.5, clipped at 0.8.
        (gspo_loss, -(2.56 - 0.8) / 2),
        # Weights min(e^0.5, 1.28), 1, e^-0.5 times advantage times log-probability.
        (cispo_loss, -(1.28 * 2 * -1.0 + 2 * -2.0 + 0.60653066 * -1 * -1.5) / 3),
        (rloo_loss, -(2.56 - 0.8) / 2),
    ],
)
def test_worked_example(loss_function: Callable[..., tuple[Tensor, dict[str, float]]], expected: float) -> None:
    loss, _ = loss_function(hand_inputs(), Totals(tokens=3, sequences=2), method_config())
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_clipped_token_has_no_gradient_and_cispo_keeps_it() -> None:
    totals = Totals(tokens=3, sequences=2)
    inputs = hand_inputs()
    dapo_loss(inputs, totals, method_config())[0].backward()
    assert inputs.logprobs_T.grad is not None
    # Tokens 0 and 2 are clipped; token 1 has the gradient -advantage x ratio / tokens.
    assert inputs.logprobs_T.grad.tolist() == pytest.approx([0.0, -2.0 / 3, 0.0])

    inputs = hand_inputs()
    cispo_loss(inputs, totals, method_config())[0].backward()
    assert inputs.logprobs_T.grad is not None
    assert inputs.logprobs_T.grad.tolist() == pytest.approx([-1.28 * 2 / 3, -2.0 / 3, 0.60653066 / 3])


def test_metrics_on_hand_numbers() -> None:
    inputs = hand_inputs(
        sampler_logprobs_T=torch.tensor([-1.4, -2.0, float("nan")]), ref_logprobs_T=torch.tensor([-1.0, -1.0, -1.5])
    )
    _, metrics = grpo_loss(inputs, Totals(tokens=3, sequences=2), method_config(kl_coef=0.1, tis_cap=2.0))
    assert metrics["clip_fraction"] == pytest.approx(2 / 3)
    assert metrics["ratio"] == pytest.approx((1.64872127 + 1.0 + 0.60653066) / 3)
    assert metrics["logprob_gap"] == pytest.approx(0.1 / 3, abs=1e-6)
    # k3 with log(reference / policy) of 0, 1, 0: e - 1 - 1 at one of three tokens.
    assert metrics["kl"] == pytest.approx((2.71828183 - 2.0) / 3)
    assert metrics["tis_weight"] == pytest.approx((0.90483742 + 1.0 + 1.0) / 3)


def test_importance_weight_is_capped_and_carries_no_gradient() -> None:
    inputs = hand_inputs(
        sampler_logprobs_T=torch.tensor([-4.0, -2.0, -1.0]), old_logprobs_T=torch.tensor([-1.0, -2.0, -1.5])
    )
    loss, metrics = dapo_loss(inputs, Totals(tokens=3, sequences=2), method_config(tis_cap=3.0))
    loss.backward()
    # e^(-1 + 4) is far above the cap; the third weight is e^-0.5. On policy the gradient is -weight x advantage /
    # tokens.
    assert inputs.logprobs_T.grad is not None
    assert inputs.logprobs_T.grad.tolist() == pytest.approx([-3.0 * 2 / 3, -2.0 / 3, 0.60653066 / 3])
    assert metrics["tis_weight"] == pytest.approx((3.0 + 1.0 + 0.60653066) / 3)


def test_kl_without_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="reference"):
        grpo_loss(hand_inputs(), Totals(3, 2), method_config(kl_coef=0.1))


# --- The oracle ------------------------------------------------------------------------------------------------------


def crafted_groups() -> list[Group]:
    """Two documents, three completions each, of lengths 1 to 7; one is cut by the limit."""
    rng = random.Random(7)
    groups = []
    for document, prompt_length in (("a", 9), ("b", 14)):
        rollouts = []
        for place in range(3):
            ids = tuple(rng.randrange(3, 320) for _ in range(2 * place + (document == "b") + 1))
            rollouts.append(
                Rollout(
                    document,
                    ids,
                    tuple(rng.uniform(-6.5, -5.0) for _ in ids),
                    "",
                    "length" if place == 2 else "stop",
                    0,
                    place,
                )
            )
        groups.append(Group(document, tuple(rng.randrange(3, 320) for _ in range(prompt_length)), tuple(rollouts)))
    return groups


def crafted_batch(truncated: str) -> tuple[Batch, dict[str, Tensor]]:
    """The same batch for us and for TRL: prompts padded on the left, completions on the right."""
    groups = crafted_groups()
    advantages_PG = torch.tensor([[1.2, -0.7, 0.4], [-1.1, 0.9, 0.2]])
    batch = make_batch(groups, advantages_PG, truncated)  # type: ignore[arg-type]
    rows = [(group.prompt_ids, rollout) for group in groups for rollout in group.rollouts]
    longest_prompt = max(len(prompt) for prompt, _ in rows)
    longest = max(len(rollout.completion_ids) for _, rollout in rows)
    inputs = {
        "prompt_ids": torch.zeros(len(rows), longest_prompt, dtype=torch.long),
        "prompt_mask": torch.zeros(len(rows), longest_prompt, dtype=torch.long),
        "completion_ids": torch.zeros(len(rows), longest, dtype=torch.long),
        "completion_mask": torch.zeros(len(rows), longest, dtype=torch.long),
        "advantages": advantages_PG.flatten(),
    }
    for row, (prompt, rollout) in enumerate(rows):
        inputs["prompt_ids"][row, longest_prompt - len(prompt) :] = torch.tensor(prompt)
        inputs["prompt_mask"][row, longest_prompt - len(prompt) :] = 1
        length = len(rollout.completion_ids)
        inputs["completion_ids"][row, :length] = torch.tensor(rollout.completion_ids)
        inputs["completion_mask"][row, :length] = 0 if truncated == "mask" and rollout.truncated else 1
    inputs["num_items_in_batch"] = inputs["completion_mask"].sum()
    return batch, inputs


def to_rows(values_T: Tensor, batch: Batch) -> Tensor:
    """Our flat tokens as TRL's [B, longest] table."""
    lengths = torch.bincount(batch.sequence_T).tolist()
    return torch.nn.utils.rnn.pad_sequence(list(values_T.split(lengths)), batch_first=True)


def sharpen(model: torch.nn.Module) -> None:
    """A fresh model says almost the same everywhere; larger weights make mistakes in attention visible."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(3.0)


@pytest.fixture(scope="module")
def policy(tiny_model_dir: Path) -> Policy:
    policy = load_policy(tiny_model_dir, "float32", "shared_prefix")
    sharpen(policy.model)
    return policy


@pytest.fixture(scope="module")
def trl_trainer(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Real trainers of TRL on the tiny model, by trainer and settings."""
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    def make(kind: str, **settings: Any) -> Any:
        trainer_class, config_class = (RLOOTrainer, RLOOConfig) if kind == "rloo" else (GRPOTrainer, GRPOConfig)
        model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
        trainer = trainer_class(
            model=model,
            reward_funcs=lambda completions, **columns: [0.0] * len(completions),
            args=config_class(
                output_dir=str(tmp_path_factory.mktemp("trl")),
                per_device_train_batch_size=6,
                num_generations=3,
                max_completion_length=MAX_COMPLETION,
                use_cpu=True,
                report_to=[],
                bf16=False,
                gradient_checkpointing=False,
                temperature=settings.pop("temperature", 1.0),
                **settings,
            ),
            train_dataset=datasets.Dataset.from_dict({"prompt": ["a", "b"]}),
            processing_class=AutoTokenizer.from_pretrained(tiny_model_dir),
        )
        sharpen(trainer.model)
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        return trainer

    return make


TRL_SETTINGS: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "dapo": {"loss_type": "dapo"},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    "cispo": {"loss_type": "cispo"},
    "rloo": {},
}


@pytest.mark.parametrize("kind", list(TRL_SETTINGS))
@pytest.mark.parametrize(
    "case",
    [
        SimpleNamespace(id="on policy", noise=0.0),
        SimpleNamespace(id="off policy", noise=0.6),
        SimpleNamespace(id="truncated masked, T 0.7", noise=0.6, truncated="mask", temperature=0.7),
        SimpleNamespace(id="importance weights", noise=0.0, tis_cap=2.0),
        SimpleNamespace(id="kl and importance weights", noise=0.2, tis_cap=1.1, kl_coef=0.05),
    ],
    ids=lambda case: case.id,
)
def test_loss_and_gradient_equal_trl(
    kind: str, case: SimpleNamespace, policy: Policy, trl_trainer: Callable[..., Any]
) -> None:
    tis_cap, kl_coef = getattr(case, "tis_cap", None), getattr(case, "kl_coef", 0.0)
    truncated, temperature = getattr(case, "truncated", "score"), getattr(case, "temperature", 1.0)
    if kind == "rloo" and (tis_cap or kl_coef):
        pytest.skip("TRL's RLOO has no importance weights, and its KL is part of the reward")
    config = method_config(kind, tis_cap=tis_cap, kl_coef=kl_coef, truncated=truncated)
    batch, inputs = crafted_batch(truncated)
    generator = torch.Generator().manual_seed(3)

    with torch.no_grad():
        start_T = policy.logprobs(batch, temperature)
    old_T = start_T + case.noise * torch.randn(start_T.shape, generator=generator) if case.noise else None
    ref_T = start_T + 0.5 * torch.randn(start_T.shape, generator=generator) if kl_coef else None
    totals = Totals(tokens=int(inputs["num_items_in_batch"]), sequences=len(inputs["prompt_ids"]))
    policy.model.zero_grad()
    loss, metrics = METHODS[kind].loss(
        policy.logprobs(batch, temperature), batch, totals, config, old_logprobs_T=old_T, ref_logprobs_T=ref_T
    )
    loss.backward()

    # TRL's epsilon_high of CISPO is the cap itself.
    high = 1 + config.clip_high if kind == "cispo" else config.clip_high
    trainer = trl_trainer(
        kind, epsilon=config.clip_low, epsilon_high=high, beta=kl_coef, temperature=temperature, **TRL_SETTINGS[kind]
    )
    if old_T is not None:
        inputs["old_per_token_logps"] = to_rows(old_T, batch)
    if ref_T is not None:
        inputs["ref_per_token_logps"] = to_rows(ref_T, batch)
    old_rows = to_rows(start_T if old_T is None else old_T, batch)
    inputs["old_logps"] = (old_rows * inputs["completion_mask"]).sum(1)
    if tis_cap is not None:
        trainer.use_vllm, trainer.vllm_importance_sampling_correction = True, True
        # As TRL makes it in `token_truncate` mode.
        gap = (old_rows - to_rows(batch.sampler_logprobs_T, batch)) * inputs["completion_mask"]
        inputs["importance_sampling_ratio"] = gap.exp().clamp(max=tis_cap)
    expected = trainer._compute_loss(trainer.model, inputs)
    expected.backward()

    expected_value = expected.item()
    if kind == "rloo":
        # A masked completion has the ratio 1 there, whose constant -advantage stays in the value; ours leaves it out.
        masked_N = inputs["completion_mask"].sum(1) == 0
        expected_value += inputs["advantages"][masked_N].sum().item() / len(masked_N)
    assert loss.item() == pytest.approx(expected_value, abs=1e-5)
    gradients = dict(policy.causal_lm.named_parameters())
    for name, parameter in trainer.model.named_parameters():
        ours = gradients[name].grad
        assert ours is not None
        assert parameter.grad is not None and parameter.grad.abs().max() > 0
        torch.testing.assert_close(ours, parameter.grad, atol=1e-5, rtol=1e-5)
    if case.noise > 0.5 and kind in ("grpo", "dapo", "dr_grpo"):
        assert 0.05 < metrics["clip_fraction"] < 0.9
        assert metrics["clip_fraction"] == pytest.approx(
            trainer._metrics["train"]["clip_ratio/region_mean"][0], abs=1e-6
        )


@pytest.mark.parametrize("kind", list(METHODS))
def test_micro_batches_add_up_to_the_whole(kind: str, policy: Policy) -> None:
    """The denominators are the step's, so cutting a step into micro-batches changes neither loss, metrics nor
    gradient."""
    groups = crafted_groups()
    advantages_PG = torch.tensor([[1.2, -0.7, 0.4], [-1.1, 0.9, 0.2]])
    totals = Totals(tokens=21, sequences=6)
    config = method_config(kind, tis_cap=2.0)

    def step(tokens_per_batch: int) -> tuple[int, float, dict[str, float], list[Tensor]]:
        policy.model.zero_grad()
        made = batches(groups, advantages_PG, tokens_per_batch)
        total, sums = 0.0, dict[str, float]()
        for batch in made:
            loss, metrics = METHODS[kind].loss(policy.logprobs(batch), batch, totals, config)
            loss.backward()
            total += loss.item()
            sums = {name: sums.get(name, 0.0) + value for name, value in metrics.items()}
        gradients = [parameter.grad.clone() for parameter in policy.model.parameters() if parameter.grad is not None]
        return len(made), total, sums, gradients

    num_whole, whole, whole_metrics, whole_gradients = step(10_000)
    num_parts, parts, parts_metrics, parts_gradients = step(30)
    assert (num_whole, num_parts) == (1, 2)
    assert parts == pytest.approx(whole, abs=1e-6)
    assert parts_metrics == pytest.approx(whole_metrics, abs=1e-6)
    assert len(whole_gradients) == len(list(policy.model.parameters()))
    for ours, theirs in zip(parts_gradients, whole_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
