"""Shared-prefix attention without a mask larger than a tile, on any device. (GPUs mostly have rl/prefix_flex.py.)

A group's attention is done in two parts: all its tokens attend to the prompt, the prompt's own causally
(rl/prompt_attention.py); the branches of its tree attend causally to themselves (rl/branch_attention.py). A tree
token's two parts are merged by their log-sum-exp.

On a GPU, one that FlexAttention does not serve, it was never measured.

Shapes: S packed tokens, H query heads, K key heads (H = K x Q), D head dimension; T tokens of a group, P of its prompt,
C of its tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from rl.branch_attention import Branches, attend_branches, backward_branches, branches_of
from rl.prefix_layout import GroupSpan, PrefixLayout
from rl.prompt_attention import Rules, attend_prompt, backward_prompt, wide_dtype
from rl.recompute import computed_once


def tiled_attention(
    query_SHD: Tensor, key_SKD: Tensor, value_SKD: Tensor, layout: PrefixLayout, rules: Rules
) -> Tensor:
    """Attention of every packed token to its prompt and its own past. Returns [S, H, D]; gradients flow."""
    return cast(Tensor, _TiledAttention.apply(query_SHD, key_SKD, value_SKD, layout, rules))  # type: ignore[no-untyped-call]


class _TiledAttention(torch.autograd.Function):
    """Backward computes the probabilities again. With the log-sum-exp of the whole row they are those of the whole
    softmax, so that the gradients of the parts simply add up (Liu et al. 2023, arXiv:2310.01889, has the same for keys
    spread over devices). With p the probability and o the output, the gradient of a score is
    p x (grad . value - grad . o).
    """

    @staticmethod
    def forward(
        ctx: Any, query_SHD: Tensor, key_SKD: Tensor, value_SKD: Tensor, layout: PrefixLayout, rules: Rules
    ) -> Tensor:
        tensors = query_SHD, key_SKD, value_SKD
        given = computed_once(lambda: _attend(*tensors, layout, rules))
        ctx.save_for_backward(*tensors, *given)
        ctx.layout, ctx.rules = layout, rules
        return given[0]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query_SHD, key_SKD, value_SKD, output_SHD, lse_SH, highest_SH = ctx.saved_tensors
        query_grad, key_grad, value_grad = map(torch.empty_like, (query_SHD, key_SKD, value_SKD))
        for span, branches in _groups(ctx.layout, query_SHD.shape[1], ctx.rules):
            tokens, prompt, tree = _places(span)
            query_THD, key_TKD, value_TKD, output_THD, lse_TH, grad_THD = (
                values[tokens] for values in (query_SHD, key_SKD, value_SKD, output_SHD, lse_SH, *grad_outputs)
            )
            query_grad[tokens], key_grad[prompt], value_grad[prompt] = backward_prompt(
                query_THD,
                key_SKD[prompt],
                value_SKD[prompt],
                output_THD,
                lse_TH,
                highest_SH[tokens],
                grad_THD,
                ctx.layout.position_S[tokens],
                ctx.rules,
            )
            own_query_grad_CHD, key_grad[tree], value_grad[tree] = backward_branches(
                query_THD, key_TKD, value_TKD, output_THD, lse_TH, grad_THD, span.tree, branches, ctx.rules
            )
            query_grad[tree] += own_query_grad_CHD
        return query_grad, key_grad, value_grad, None, None


def _attend(
    query_SHD: Tensor, key_SKD: Tensor, value_SKD: Tensor, layout: PrefixLayout, rules: Rules
) -> tuple[Tensor, Tensor, Tensor]:
    """Output [S, H, D], and [S, H], float32 or wider, the log-sum-exp of all scores of a row and the highest of those
    on the prompt."""
    output_SHD = torch.empty_like(query_SHD, memory_format=torch.contiguous_format)
    lse_SH, highest_SH = query_SHD.new_empty(2, *query_SHD.shape[:2], dtype=wide_dtype(query_SHD))
    with torch.autocast(query_SHD.device.type, enabled=False):  # which would narrow float32 products
        for span, branches in _groups(layout, query_SHD.shape[1], rules):
            tokens, prompt, _ = _places(span)
            query_THD, key_TKD, value_TKD = (values[tokens] for values in (query_SHD, key_SKD, value_SKD))
            own = attend_branches(query_THD, key_TKD, value_TKD, span.tree, branches, rules)
            output_SHD[tokens], lse_SH[tokens], highest_SH[tokens] = attend_prompt(
                query_THD, key_SKD[prompt], value_SKD[prompt], *own, layout.position_S[tokens], rules
            )
    return output_SHD, lse_SH, highest_SH


def _groups(layout: PrefixLayout, heads: int, rules: Rules) -> Iterator[tuple[GroupSpan, list[Branches]]]:
    row = 0
    for span in layout.spans:
        yield span, list(branches_of(layout, span, row, heads, rules.window))
        row += span.rows


def _places(span: GroupSpan) -> tuple[slice, slice, slice]:
    """Of all tokens, the prompt and the tree, in the packed sequence."""
    return slice(span.start, span.stop), slice(span.start, span.split), slice(span.split, span.stop)
