"""Shared-prefix attention on the CPU by torch's own flash kernels: a few calls a group, no scores in memory.

The kernel hands out the log-sum-exp of its scores, so that the two parts of a tree token, its prompt and its own
branch, can be merged. Its backward takes that log-sum-exp back: given the merged one and the merged output, the
probabilities that it computes again are those of the whole softmax, and each part's gradients simply add up (Liu et
al. 2023, "Ring Attention", has the same for keys spread over devices).

Shapes: S packed tokens, H query heads, K key heads, D head dimension, C tokens of the trees,
N branches of R tokens; of a part N sequences, L query rows and M keys.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from rl.prefix_attention import Rules, prompt_parts
from rl.prefix_layout import PrefixLayout

SHORT_ROWS = 512
"""Tokens; causal parts up to here go to the kernel in float32, where its backward is faster than in bfloat16."""


def flash_attention_is_there(query_SHD: Tensor, value_SKD: Tensor, rules: Rules) -> bool:
    """Whether the kernels do what is asked for: no cap, no window."""
    return (
        query_SHD.device.type == "cpu"
        and query_SHD.shape[2] == value_SKD.shape[2]
        and rules.softcap is None
        and rules.window is None
    )


def flash_attention(
    query_SHD: Tensor, key_SKD: Tensor, value_SKD: Tensor, layout: PrefixLayout, rules: Rules
) -> Tensor:
    """As rl.prefix_attention.tiled_attention, without cap and window. Returns [S, H, D]; gradients flow."""
    repeats = query_SHD.shape[1] // key_SKD.shape[1]
    if repeats > 1:
        key_SKD, value_SKD = (tensor.repeat_interleave(repeats, 1) for tensor in (key_SKD, value_SKD))
    return cast(Tensor, _FlashAttention.apply(query_SHD, key_SKD, value_SKD, layout, rules.scale))  # type: ignore[no-untyped-call]


class _FlashAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query_SHD: Tensor, key_SHD: Tensor, value_SHD: Tensor, layout: PrefixLayout, scale: float
    ) -> Tensor:
        tensors = query_SHD, key_SHD, value_SHD
        output_SHD = torch.empty_like(query_SHD, memory_format=torch.contiguous_format)
        lse_SH = torch.empty(query_SHD.shape[:2], dtype=torch.promote_types(query_SHD.dtype, torch.float32))
        for rows, keys in prompt_parts(layout):
            output, lse = _forward(
                query_SHD[None, rows], key_SHD[None, keys], value_SHD[None, keys], rows == keys, scale
            )
            output_SHD[rows], lse_SH[rows] = output[0], lse[0]
        if len(layout.path_NR):
            place_C, choice_C = layout.place_C, layout.choice_C
            query, key, value = (tensor[layout.path_NR] for tensor in tensors)
            output, lse = _forward(query, key, value, True, scale)
            prompt_lse_CH, own_lse_CH = lse_SH[place_C], lse.flatten(0, 1)[choice_C]
            lse_CH = torch.logaddexp(prompt_lse_CH, own_lse_CH)
            share_CH1 = (prompt_lse_CH - lse_CH).exp_()[..., None]
            own_CHD, prompt_CHD = (part.to(lse.dtype) for part in (output.flatten(0, 1)[choice_C], output_SHD[place_C]))
            output_SHD[place_C] = torch.lerp(own_CHD, prompt_CHD, share_CH1).to(output_SHD.dtype)
            lse_SH[place_C] = lse_CH
        ctx.save_for_backward(*tensors, output_SHD, lse_SH)
        ctx.layout, ctx.scale = layout, scale
        return output_SHD

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        saved = ctx.saved_tensors
        query_SHD, key_SHD, value_SHD, output_SHD, lse_SH = saved
        grad_SHD, layout = grad_outputs[0], ctx.layout
        # In float32, because keys collect gradients of several calls.
        query_total, key_total, value_total = (
            torch.zeros(tensor.shape, dtype=lse_SH.dtype) for tensor in (query_SHD, key_SHD, value_SHD)
        )
        for rows, keys in prompt_parts(layout):
            grads = _backward(
                *(grad_SHD[None, rows], query_SHD[None, rows], key_SHD[None, keys], value_SHD[None, keys]),
                *(output_SHD[None, rows], lse_SH[None, rows], rows == keys, ctx.scale),
            )
            query_total[rows] = grads[0][0]
            key_total[keys] += grads[1][0]
            value_total[keys] += grads[2][0]
        if len(layout.path_NR):
            path_NR, place_C, choice_C = layout.path_NR, layout.place_C, layout.choice_C
            # A place gets its gradient in one row of the table; other rows and padding get 0: nothing flows back.
            incoming = grad_SHD.new_zeros(path_NR.numel(), *grad_SHD.shape[1:])
            incoming[choice_C] = grad_SHD[place_C]
            query, key, value, output, lse = (tensor[path_NR] for tensor in saved)
            incoming = incoming.view(*path_NR.shape, *grad_SHD.shape[1:])
            grads = _backward(incoming, query, key, value, output, lse, True, ctx.scale)
            for total, part in zip((query_total, key_total, value_total), grads, strict=True):
                total.index_add_(0, path_NR.flatten(), part.flatten(0, 1).to(total.dtype))
        dtype = query_SHD.dtype
        return query_total.to(dtype), key_total.to(dtype), value_total.to(dtype), None, None


def _forward(
    query_NLHD: Tensor, key_NMHD: Tensor, value_NMHD: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Output [N, L, H, D] and log-sum-exp [N, L, H], float32 or wider."""
    tensors = (tensor.transpose(1, 2) for tensor in _kernel_dtype(causal, query_NLHD, key_NMHD, value_NMHD))
    output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*tensors, 0.0, causal, scale=scale)
    return output.transpose(1, 2), lse.transpose(1, 2)


def _backward(
    grad_NLHD: Tensor,
    query_NLHD: Tensor,
    key_NMHD: Tensor,
    value_NMHD: Tensor,
    output_NLHD: Tensor,
    lse_NLH: Tensor,
    causal: bool,
    scale: float,
) -> list[Tensor]:
    """This part's gradients of query, key and value, from the output and log-sum-exp of the whole softmax."""
    wide = _kernel_dtype(causal, grad_NLHD, query_NLHD, key_NMHD, value_NMHD, output_NLHD)
    tensors = (tensor.transpose(1, 2) for tensor in wide)
    grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        *tensors, lse_NLH.transpose(1, 2).contiguous(), 0.0, causal, scale=scale
    )
    return [grad.transpose(1, 2) for grad in grads]


def _kernel_dtype(causal: bool, *tensors_NLHD: Tensor) -> list[Tensor]:
    short = causal and tensors_NLHD[0].shape[1] <= SHORT_ROWS and tensors_NLHD[0].dtype == torch.bfloat16
    return [tensor.float() if short else tensor for tensor in tensors_NLHD]
