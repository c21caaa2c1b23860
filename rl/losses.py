"""Policy-gradient losses: pure functions of the log-probabilities of completion tokens.

Shapes: T completion tokens of a batch, all completions one after the other; N completions. Log-probabilities in nats.
Every loss returns `(loss, metrics)`. Denominators are arguments (`Totals`, counted over the whole step and every
process), so the losses and the metrics of micro-batches and processes add up to those of the step: sum them, do not
average.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rl.config import MethodConfig


@dataclass(frozen=True, slots=True)
class Totals:
    """What the losses of one step are divided by, counted over all its micro-batches and processes.

    Example:
        Totals(tokens=10240, sequences=128)
    """

    tokens: int
    """Completion tokens that are trained on."""
    sequences: int
    """Completions in the mean."""


@dataclass(frozen=True, slots=True)
class LossInputs:
    """The tensors a loss looks at.

    Example (two completions, of 3 and 1 tokens, the second masked out):
        LossInputs(
            logprobs_T=tensor([-0.1, -0.2, -0.3, -0.4], requires_grad=True),
            old_logprobs_T=tensor([-0.1, -0.2, -0.3, -0.4]),
            advantages_N=tensor([1.0, -1.0]),
            sequence_T=tensor([0, 0, 0, 1]),
            mask_T=tensor([1.0, 1.0, 1.0, 0.0]),
            sampler_logprobs_T=tensor([-0.1, -0.2, -0.3, -0.4]),
            ref_logprobs_T=None,
        )
    """

    logprobs_T: Tensor
    """Under the policy that is being trained; the only tensor a gradient flows to."""
    old_logprobs_T: Tensor
    """Under the policy at the start of the step; on policy that is `logprobs_T.detach()`."""
    advantages_N: Tensor
    sequence_T: Tensor
    """Completion that the token belongs to, 0..N-1."""
    mask_T: Tensor
    """1.0 where the token is trained on, 0.0 where not."""
    sampler_logprobs_T: Tensor
    """Under the sampler that drew the token; NaN where it gave none."""
    ref_logprobs_T: Tensor | None
    """Under the frozen reference policy; needed where `kl_coef` is above 0."""


LossFunction = Callable[[LossInputs, Totals, MethodConfig], tuple[Tensor, dict[str, float]]]


def grpo_loss(inputs: LossInputs, totals: Totals, config: MethodConfig) -> tuple[Tensor, dict[str, float]]:
    """Clipped surrogate, mean over the tokens of a completion, then over completions (GRPO, arXiv 2402.03300, eq. 3).

    The divergence from the reference is added to each token's term (eq. 4) with the weight `kl_coef`.
    """
    loss_T, metrics = _clipped_tokens(inputs, totals, config)
    return _sequence_mean(loss_T, inputs, totals), metrics


def dapo_loss(inputs: LossInputs, totals: Totals, config: MethodConfig) -> tuple[Tensor, dict[str, float]]:
    """Clipped surrogate with its own upper bound, mean over all tokens (DAPO, arXiv 2503.14476, eq. 8 and 12)."""
    loss_T, metrics = _clipped_tokens(inputs, totals, config)
    return (loss_T * inputs.mask_T).sum() / max(totals.tokens, 1), metrics


def dr_grpo_loss(inputs: LossInputs, totals: Totals, config: MethodConfig) -> tuple[Tensor, dict[str, float]]:
    """Clipped surrogate, tokens summed and divided by a constant length, so that length does not bias the gradient.

    Dr. GRPO, arXiv 2503.20783, section 3.2 and the listing in appendix A.
    """
    loss_T, metrics = _clipped_tokens(inputs, totals, config)
    return (loss_T * inputs.mask_T).sum() / max(totals.sequences * config.max_completion_length, 1), metrics


def cispo_loss(inputs: LossInputs, totals: Totals, config: MethodConfig) -> tuple[Tensor, dict[str, float]]:
    """REINFORCE weighted by a capped, detached ratio: no token loses its gradient (CISPO, arXiv 2506.13585, eq. 4).

    The cap is 1 + `clip_high`; TRL's `epsilon_high` is the cap itself.
    """
    ratio_T = (inputs.logprobs_T - inputs.old_logprobs_T).exp()
    cap = 1.0 + config.clip_high
    advantages_T = inputs.advantages_N[inputs.sequence_T]
    loss_T = -ratio_T.clamp(max=cap).detach() * advantages_T * inputs.logprobs_T
    clipped_T = (ratio_T > cap) & (advantages_T > 0)
    loss_T, metrics = _corrected(loss_T, ratio_T, clipped_T, inputs, totals, config)
    return (loss_T * inputs.mask_T).sum() / max(totals.tokens, 1), metrics


def gspo_loss(inputs: LossInputs, totals: Totals, config: MethodConfig) -> tuple[Tensor, dict[str, float]]:
    """Clipped surrogate on the geometric mean of a completion's token ratios (GSPO, arXiv 2507.18071, eq. 5 to 7)."""
    lengths_N = _sum_by_sequence(inputs.mask_T, inputs).clamp(min=1.0)
    log_ratio_N = _sum_by_sequence((inputs.logprobs_T - inputs.old_logprobs_T) * inputs.mask_T, inputs) / lengths_N
    loss_N, clipped_N = _clip(log_ratio_N.exp(), inputs.advantages_N, config)
    ratio_T, clipped_T = log_ratio_N.exp()[inputs.sequence_T], clipped_N[inputs.sequence_T]
    loss_T, metrics = _corrected(loss_N[inputs.sequence_T], ratio_T, clipped_T, inputs, totals, config)
    return _sequence_mean(loss_T, inputs, totals), metrics


def rloo_loss(inputs: LossInputs, totals: Totals, config: MethodConfig) -> tuple[Tensor, dict[str, float]]:
    """A completion is one action: clipped surrogate on its whole ratio (RLOO, arXiv 2402.14740, section 2.2 and eq. 6).

    On policy its gradient is the paper's, advantage times the gradient of the completion's log-probability. The
    importance weight against the sampler is of the whole completion too, capped at `tis_cap`. The divergence from the
    reference is summed over the completion, as in the paper's reward.
    """
    log_ratio_N = _sum_by_sequence((inputs.logprobs_T - inputs.old_logprobs_T) * inputs.mask_T, inputs)
    ratio_N = log_ratio_N.exp()
    loss_N, clipped_N = _clip(ratio_N, inputs.advantages_N, config)
    kept_N = _sum_by_sequence(inputs.mask_T, inputs) > 0
    if config.tis_cap is not None:
        gap_N = _sum_by_sequence(_sampler_log_ratio(inputs) * inputs.mask_T, inputs)
        loss_N = loss_N * gap_N.exp().clamp(max=config.tis_cap)
    metrics = _metrics(ratio_N[inputs.sequence_T], clipped_N[inputs.sequence_T], None, inputs, totals)
    loss = (loss_N * kept_N).sum() / max(totals.sequences, 1)
    if config.kl_coef > 0:
        ratio_T = (inputs.logprobs_T - inputs.old_logprobs_T).exp()
        loss_T = _divergence_term(ratio_T, metrics, inputs, totals, config)
        loss = loss + (loss_T * inputs.mask_T).sum() / max(totals.sequences, 1)
    return loss, metrics


def k3_divergence(inputs: LossInputs) -> Tensor:
    """Estimate of KL(policy || reference) at each token, never negative: r - log r - 1 with r = reference / policy.

    Schulman, "Approximating KL divergence" (2020), k3; DeepSeekMath, arXiv 2402.03300, eq. 4. Returns [T], nats.
    """
    if inputs.ref_logprobs_T is None:
        raise ValueError("kl_coef is above 0 but there are no log-probabilities of the reference policy")
    log_ratio_T = inputs.ref_logprobs_T - inputs.logprobs_T
    return log_ratio_T.exp() - log_ratio_T - 1


def truncated_importance_weights(inputs: LossInputs, cap: float) -> Tensor:
    """min(policy / sampler, cap) of each token, without gradient; 1 where the sampler gave nothing. Returns [T].

    Yao et al., "Your efficient RL framework secretly brings you off-policy RL training" (2025); TRL's `token_truncate`.
    """
    return _sampler_log_ratio(inputs).exp().clamp(max=cap)


def _clipped_tokens(inputs: LossInputs, totals: Totals, config: MethodConfig) -> tuple[Tensor, dict[str, float]]:
    ratio_T = (inputs.logprobs_T - inputs.old_logprobs_T).exp()
    loss_T, clipped_T = _clip(ratio_T, inputs.advantages_N[inputs.sequence_T], config)
    return _corrected(loss_T, ratio_T, clipped_T, inputs, totals, config)


def _clip(ratio: Tensor, advantages: Tensor, config: MethodConfig) -> tuple[Tensor, Tensor]:
    """PPO's pessimistic surrogate (arXiv 1707.06347, eq. 7), and where its bound holds the gradient back."""
    low, high = 1.0 - config.clip_low, 1.0 + config.clip_high
    loss = -torch.min(ratio * advantages, ratio.clamp(low, high) * advantages)
    clipped = ((ratio < low) & (advantages < 0)) | ((ratio > high) & (advantages > 0))
    return loss, clipped


def _corrected(
    loss_T: Tensor, ratio_T: Tensor, clipped_T: Tensor, inputs: LossInputs, totals: Totals, config: MethodConfig
) -> tuple[Tensor, dict[str, float]]:
    """Weight by the sampler's mismatch; the divergence from the reference comes after, without that weight."""
    weights_T: Tensor | None = None
    if config.tis_cap is not None:
        weights_T = truncated_importance_weights(inputs, config.tis_cap)
        loss_T = loss_T * weights_T
    metrics = _metrics(ratio_T, clipped_T, weights_T, inputs, totals)
    if config.kl_coef > 0:
        loss_T = loss_T + _divergence_term(ratio_T, metrics, inputs, totals, config)
    return loss_T, metrics


def _divergence_term(
    ratio_T: Tensor, metrics: dict[str, float], inputs: LossInputs, totals: Totals, config: MethodConfig
) -> Tensor:
    """Each token's term of the divergence from the reference, and its mean into `metrics`.

    The ratio stays differentiable: on policy it is 1, and its gradient turns that of k3, which is biased, into the
    gradient of the reverse KL (DeepSeek-V3.2, arXiv 2512.02556; TRL's `use_bias_correction_kl`, its default).
    """
    kl_T = k3_divergence(inputs)
    metrics["kl"] = ((kl_T.detach() * inputs.mask_T).sum() / max(totals.tokens, 1)).item()
    return config.kl_coef * ratio_T * kl_T


def _metrics(
    ratio_T: Tensor, clipped_T: Tensor, weights_T: Tensor | None, inputs: LossInputs, totals: Totals
) -> dict[str, float]:
    gap_T = _sampler_log_ratio(inputs)
    parts = {
        "ratio": ratio_T.detach(),
        "clip_fraction": clipped_T.to(inputs.mask_T.dtype),
        "logprob_gap": gap_T.abs(),
        # k3 again, of the sampler from the policy: what the gap costs, in nats.
        "sampler_kl": gap_T.exp() - gap_T - 1,
    }
    if weights_T is not None:
        parts["tis_weight"] = weights_T
    sums = torch.stack([(part_T * inputs.mask_T).sum() for part_T in parts.values()]) / max(totals.tokens, 1)
    return dict(zip(parts, sums.tolist(), strict=True))


def _sampler_log_ratio(inputs: LossInputs) -> Tensor:
    return (inputs.old_logprobs_T.detach() - inputs.sampler_logprobs_T).nan_to_num(nan=0.0)


def _sum_by_sequence(values_T: Tensor, inputs: LossInputs) -> Tensor:
    sums_N = torch.zeros_like(inputs.advantages_N, dtype=values_T.dtype)
    return sums_N.index_add(0, inputs.sequence_T, values_T)


def _sequence_mean(loss_T: Tensor, inputs: LossInputs, totals: Totals) -> Tensor:
    lengths_N = _sum_by_sequence(inputs.mask_T, inputs).clamp(min=1.0)
    return (_sum_by_sequence(loss_T * inputs.mask_T, inputs) / lengths_N).sum() / max(totals.sequences, 1)
