"""Log-probabilities of chosen tokens from hidden states, without ever holding all logits in float32.

Shapes: M hidden states, E hidden size, V vocabulary, T tokens, U distinct pairs of a hidden state and a token.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}
"""Logits worked on at a time, by device: few enough for a CPU's cache, many enough to fill a GPU."""
CHUNK_ROWS = 64
"""But so many rows at least: the weight's gradient is added up once a chunk."""
KEEP_BYTES = 2**26
"""Logits are kept for the backward up to this size, and computed again beyond it."""


def token_logprobs(
    hidden_ME: Tensor,
    predictor_T: Tensor,
    target_T: Tensor,
    head: nn.Module,
    config: Any,
    temperature: float = 1.0,
    entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """[T] log-probability of `target_T` under softmax(head(hidden[predictor]) / temperature), and the entropy if asked.

    `config` is the model's: its logit scale and soft cap are applied. Float32, nats; the entropy carries no gradient.
    Computes in the dtype of autocast where that is on. A pair that comes several times is computed once.
    """
    vocabulary = int(cast(Tensor, head.weight).shape[0])
    pair_U, inverse_T = torch.unique(predictor_T * vocabulary + target_T, return_inverse=True)
    hidden_UE, target_U = hidden_ME.index_select(0, pair_U // vocabulary), pair_U % vocabulary
    scale = _logit_scale(config) / temperature
    softcap = getattr(config, "final_logit_softcapping", None)
    if type(head) is nn.Linear and getattr(head, "bias", None) is None and softcap is None:
        device = hidden_ME.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_ME.dtype
        score = cast(Callable[..., tuple[Tensor, Tensor]], _LinearLogprobs.apply)
        logprobs_U, entropy_U = score(hidden_UE, head.weight, target_U, scale, dtype, entropy)
    else:
        logprobs_U, entropy_U = _any_head_logprobs(hidden_UE, target_U, head, vocabulary, scale, softcap, entropy)
    return logprobs_U.index_select(0, inverse_T), entropy_U.index_select(0, inverse_T) if entropy else None


class _LinearLogprobs(torch.autograd.Function):
    """log_softmax(hidden @ weight^T x scale)[target], a chunk of rows at a time.

    The gradient of row u with respect to its logits is grad_u x scale x (onehot(target_u) - softmax_u).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_UE: Tensor,
        weight_VE: Tensor,
        target_U: Tensor,
        scale: float,
        dtype: torch.dtype,
        entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        hidden, weight = hidden_UE.to(dtype), weight_VE.to(dtype)
        rows, vocabulary = hidden.shape[0], weight.shape[0]
        logprobs_U = torch.empty(rows, dtype=torch.float32, device=hidden.device)
        lse_U, entropy_U = torch.empty_like(logprobs_U), torch.empty_like(logprobs_U)
        keep = any(ctx.needs_input_grad) and rows * vocabulary * hidden.element_size() <= KEEP_BYTES
        logits_UV = hidden.new_empty(rows, vocabulary) if keep else None
        for part in _chunks(hidden, vocabulary):
            chunk = linear(hidden[part], weight)
            if logits_UV is not None:
                logits_UV[part] = chunk
            scaled = chunk.float().mul_(scale)
            lse_U[part] = scaled.logsumexp(-1)
            logprobs_U[part] = scaled.gather(1, target_U[part, None])[:, 0] - lse_U[part]
            if entropy:
                probabilities = (scaled - lse_U[part, None]).exp_()
                entropy_U[part] = lse_U[part] - probabilities.mul_(scaled).sum(-1)
        ctx.save_for_backward(hidden, weight, target_U, lse_U, logits_UV)
        ctx.scale, ctx.dtypes = scale, (hidden_UE.dtype, weight_VE.dtype)
        ctx.mark_non_differentiable(entropy_U)
        return logprobs_U, entropy_U

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None, None, None, None]:
        hidden, weight, target_U, lse_U, logits_UV = ctx.saved_tensors
        vocabulary = weight.shape[0]
        grad_U = grad_outputs[0] * ctx.scale
        grad_hidden_UE = torch.empty_like(hidden)
        grad_weight_VE = None
        if ctx.needs_input_grad[1]:  # not with adapters
            grad_weight_VE = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
        for part in _chunks(hidden, vocabulary):
            logits = linear(hidden[part], weight) if logits_UV is None else logits_UV[part]
            grad = logits.float().mul_(ctx.scale).sub_(lse_U[part, None]).exp_().mul_(-grad_U[part, None])
            grad.scatter_add_(1, target_U[part, None], grad_U[part, None])
            grad_logits = grad.to(hidden.dtype)
            grad_hidden_UE[part] = grad_logits @ weight
            if grad_weight_VE is not None:
                grad_weight_VE += grad_logits.mT @ hidden[part]
        hidden_dtype, weight_dtype = ctx.dtypes
        grad_weight = None if grad_weight_VE is None else grad_weight_VE.to(weight_dtype)
        return grad_hidden_UE.to(hidden_dtype), grad_weight, None, None, None, None


def _any_head_logprobs(
    hidden_UE: Tensor,
    target_U: Tensor,
    head: nn.Module,
    vocabulary: int,
    scale: float,
    softcap: float | None,
    entropy: bool,
) -> tuple[Tensor, Tensor]:
    """The same for heads with a bias, an adapter or a soft cap: by autograd, chunks computed again in the backward."""

    def of_chunk(hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        logits = head(hidden).float() * scale_before
        if softcap is not None:
            logits = softcap * (logits / softcap).tanh()
        log_softmax = (logits * scale_after).log_softmax(-1)
        detached = log_softmax.detach()
        entropy_U = -(detached.exp() * detached).sum(-1) if entropy else detached.new_zeros(len(target))
        return log_softmax.gather(1, target[:, None])[:, 0], entropy_U

    # A cap acts on the model's logits, so the temperature comes after it; no model has both a cap and a scale.
    scale_before, scale_after = (1.0, scale) if softcap is not None else (scale, 1.0)
    parts = [
        checkpoint(of_chunk, hidden_UE[part], target_U[part], use_reentrant=False)
        for part in _chunks(hidden_UE, vocabulary)
    ]
    if not parts:
        return hidden_UE.new_zeros(0), hidden_UE.new_zeros(0)
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _logit_scale(config: Any) -> float:
    """Cohere and Falcon H1 multiply their logits, Granite divides them."""
    times, also, by = (
        float(getattr(config, name, None) or 1.0) for name in ("logit_scale", "lm_head_multiplier", "logits_scaling")
    )
    return times * also / by


def _chunks(hidden_UE: Tensor, vocabulary: int) -> list[slice]:
    rows = hidden_UE.shape[0]
    size = max(CHUNK_ELEMENTS.get(hidden_UE.device.type, CHUNK_ELEMENTS["cpu"]) // vocabulary, CHUNK_ROWS)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
