import pytest
import torch

from rl.config import OptimConfig
from rl.optim import learning_rate, make_optimizer


def config(**changes: object) -> OptimConfig:
    values = {
        "lr": 1.0,
        "betas": (0.9, 0.95),
        "eps": 1e-8,
        "weight_decay": 0.1,
        "warmup_steps": 4,
        "decay": "constant",
        "max_grad_norm": 1.0,
    }
    return OptimConfig.model_validate({**values, **changes})


def test_warm_up_is_linear_and_its_first_update_moves() -> None:
    assert [learning_rate(i, 10, config()) for i in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_linear_decay_ends_above_zero() -> None:
    rates = [learning_rate(i, 8, config(decay="linear")) for i in range(4, 8)]
    assert rates == [1.0, 0.75, 0.5, 0.25]


def test_cosine_decay_is_halfway_in_the_middle() -> None:
    assert learning_rate(6, 8, config(decay="cosine")) == pytest.approx(0.5)


def test_no_warm_up_and_one_step() -> None:
    assert learning_rate(0, 1, config(warmup_steps=0, decay="cosine")) == 1.0


def test_weight_decay_is_on_matrices_only() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    matrices, vectors = make_optimizer(model.named_parameters(), config()).param_groups
    assert (len(matrices["params"]), matrices["weight_decay"]) == (1, 0.1)
    assert (len(vectors["params"]), vectors["weight_decay"]) == (3, 0.0)


def test_frozen_parameters_are_left_out() -> None:
    model = torch.nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    (group,) = make_optimizer(model.named_parameters(), config()).param_groups
    assert len(group["params"]) == 1
