"""Advantages: rewards of groups in, one number a completion out. Pure functions.

Shapes: P documents, G completions of each. A reward that could not be computed is NaN: it leaves the baseline and its
completion gets the advantage 0.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

EPSILON = 1e-4
"""Added to the spread before dividing, as in TRL."""
MIN_SPREAD = 1e-6
"""Rewards of a group closer together than this teach nothing: the difference is rounding."""

ScaleRewards = Literal["group", "batch", "none"]
AdvantageFunction = Callable[[Tensor, ScaleRewards], Tensor]


def group_advantages(rewards_PG: Tensor, scale: ScaleRewards) -> Tensor:
    """GRPO: distance from the mean of the group, divided by a spread (DeepSeekMath, arXiv 2402.03300, section 4.1.2).

    `scale` "group" divides by the standard deviation of the group (GRPO), "batch" by that of all rewards (REINFORCE++,
    arXiv 2501.03262), "none" by nothing (Dr. GRPO, arXiv 2503.20783, section 3.1). Standard deviations are the
    unbiased ones.

    Returns [P, G], 0 where the reward is NaN.
    """
    centred_PG = rewards_PG - rewards_PG.nanmean(dim=1, keepdim=True)
    if scale == "group":
        centred_PG = centred_PG / (nanstd(rewards_PG, dim=1) + EPSILON)
    elif scale == "batch":
        centred_PG = centred_PG / (nanstd(rewards_PG.reshape(1, -1), dim=1) + EPSILON)
    return centred_PG.nan_to_num(nan=0.0)


def leave_one_out_advantages(rewards_PG: Tensor, scale: ScaleRewards) -> Tensor:
    """RLOO: the baseline of a completion is the mean of the others (Ahmadian et al., arXiv 2402.14740, equation 6).

    `scale` "batch" standardises the advantages over the batch as TRL's `normalize_advantages`; "group" divides by the
    standard deviation of the group's rewards; "none" is the paper's.

    Returns [P, G], 0 where the reward is NaN or has no other to compare with.
    """
    counts_P1 = (~rewards_PG.isnan()).sum(dim=1, keepdim=True)
    baselines_PG = (rewards_PG.nansum(dim=1, keepdim=True) - rewards_PG) / (counts_P1 - 1)
    advantages_PG = rewards_PG - baselines_PG
    if scale == "group":
        advantages_PG = advantages_PG / (nanstd(rewards_PG, dim=1) + EPSILON)
    elif scale == "batch":
        spread = nanstd(advantages_PG.reshape(1, -1), dim=1)
        advantages_PG = (advantages_PG - advantages_PG.nanmean()) / (spread + EPSILON)
    return advantages_PG.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def has_spread(rewards_PG: Tensor) -> Tensor:
    """Which groups can teach something: [P] bool, true where two scored completions differ."""
    missing_PG = rewards_PG.isnan()
    highest_P = rewards_PG.masked_fill(missing_PG, -torch.inf).amax(dim=1)
    lowest_P = rewards_PG.masked_fill(missing_PG, torch.inf).amin(dim=1)
    return (highest_P - lowest_P) > MIN_SPREAD


def nanstd(values: Tensor, dim: int) -> Tensor:
    """Unbiased standard deviation along `dim` (kept, of size 1), NaN left out; NaN where fewer than two remain."""
    counts = (~values.isnan()).sum(dim=dim, keepdim=True)
    squares = (values - values.nanmean(dim=dim, keepdim=True)).square().nansum(dim=dim, keepdim=True)
    return (squares / (counts - 1)).sqrt()
