"""The optimizer and its learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from rl.config import OptimConfig


def make_optimizer(named_parameters: Iterable[tuple[str, nn.Parameter]], config: OptimConfig) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only, as is usual (norms and biases are scales, not features)."""
    trained = [p for _, p in named_parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=config.betas, eps=config.eps)


def learning_rate(update: int, steps: int, config: OptimConfig) -> float:
    """Learning rate of update number `update` (0-based) of `steps`: linear warm-up, then the decay down to 0.

    The first update already has lr / warmup_steps, and the last one is still above 0: no update is wasted.
    """
    if update < config.warmup_steps:
        return config.lr * (update + 1) / config.warmup_steps
    if config.decay == "constant":
        return config.lr
    progress = (update - config.warmup_steps) / max(1, steps - config.warmup_steps)
    factor = 1.0 - progress if config.decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.lr * factor
