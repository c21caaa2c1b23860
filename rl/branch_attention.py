"""Attention of the branches of a group's tree to themselves: all heads at once, gathered into a table of rows.

The other part, what all tokens see of the prompt, is rl/prompt_attention.py's, which merges the two in its forward; in
the backward the gradients of the parts add up (rl/prefix_attention.py).

Shapes: T tokens of a group, C of them in its tree; H query heads, K key heads (H = K x Q), D head dimension; B rows of
the table of paths, R places in one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rl.prefix_layout import GroupSpan, PrefixLayout
from rl.prompt_attention import TILE_ELEMENTS, Rules, causal_mask, product_dtype, wide_dtype


@dataclass(frozen=True, slots=True)
class Branches:
    """Some rows of the table of paths, and the tokens whose place in the table is there."""

    path_BR: Tensor
    """Places among the group's tokens."""
    prompt: int
    """Tokens of the prompt, which lie before the tree's."""
    place_C: Tensor
    """Places among the tree's."""
    choice_C: Tensor
    """Of the flattened rows: one entry for each place."""
    window: int | None
    """None where it hides nothing of a branch."""

    def mask(self, dtype: torch.dtype) -> Tensor:
        """[R, R], what to add to scores."""
        length = self.path_BR.shape[1]
        return causal_mask(length, length, 0, self.window, self.path_BR.device, dtype)

    def rows(self, values_THD: Tensor, heads: int) -> Tensor:
        """[T, H or K, D] to [B, H, R, D], as it is multiplied."""
        rows = values_THD.index_select(0, self.path_BR.flatten()).to(product_dtype(values_THD))
        return self._table(rows.repeat_interleave(heads // rows.shape[1], 1) if rows.shape[1] < heads else rows)

    def put(self, values_CHD: Tensor) -> Tensor:
        """[C, H, D] to [B, H, R, D], each token in its one place, 0 elsewhere."""
        dtype = product_dtype(values_CHD)
        rows = values_CHD.new_zeros(self.path_BR.numel(), *values_CHD.shape[1:], dtype=dtype)
        return self._table(rows.index_copy_(0, self.choice_C, values_CHD.index_select(0, self.place_C).to(dtype)))

    def take(self, table_BHRD: Tensor) -> Tensor:
        """[B, H, R, D] to [C, H, D]"""
        return table_BHRD.transpose(1, 2).flatten(0, 1).index_select(0, self.choice_C)

    def add(self, totals_CKD: Tensor, table_BHRD: Tensor) -> None:
        """To totals of the tree's tokens what every place of the table gives."""
        rows = table_BHRD.transpose(1, 2).flatten(0, 1).to(totals_CKD.dtype)
        if rows.shape[1] > totals_CKD.shape[1]:
            rows = rows.view(len(rows), totals_CKD.shape[1], -1, rows.shape[2]).sum(2)
        totals_CKD.index_add_(0, self.path_BR.flatten() - self.prompt, rows)

    def _table(self, rows: Tensor) -> Tensor:
        return rows.view(*self.path_BR.shape, *rows.shape[1:]).transpose(1, 2)


def branches_of(
    layout: PrefixLayout, span: GroupSpan, first_row: int, heads: int, window: int | None
) -> Iterator[Branches]:
    """Of a group whose rows of the table of paths begin at `first_row`: as many at a time as make a tile."""
    longest = layout.path_NR.shape[1]
    size = max(TILE_ELEMENTS[layout.path_NR.device.type] // (max(longest, 1) ** 2 * heads), 1)
    for row in range(first_row, first_row + span.rows, size):
        path_BR = layout.path_NR[row : min(row + size, first_row + span.rows)] - span.start
        first, behind = row * longest, (row + len(path_BR)) * longest
        here = (layout.choice_C >= first) & (layout.choice_C < behind)
        yield Branches(
            path_BR=path_BR,
            prompt=span.prompt,
            place_C=layout.place_C[here] - span.split,
            choice_C=layout.choice_C[here] - first,
            window=window if window is not None and window < longest else None,
        )


def attend_branches(
    query_THD: Tensor, key_TKD: Tensor, value_TKD: Tensor, tree: int, branches: Iterable[Branches], rules: Rules
) -> tuple[Tensor, Tensor]:
    """Of `tree` tokens: output [C, H, D] and log-sum-exp [C, H], float32 or wider."""
    heads = query_THD.shape[1]
    output_CHD = query_THD.new_empty(tree, *query_THD.shape[1:], dtype=product_dtype(query_THD))
    lse_CH = query_THD.new_empty(tree, heads, dtype=wide_dtype(query_THD))
    for some in branches:
        query, key, value = (some.rows(values, heads) for values in (query_THD, key_TKD, value_TKD))
        if _has_kernel(query, rules):
            output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                query, key, value, **_hidden(some, query.dtype), scale=rules.scale
            )
        else:
            scores, _ = _scores(query, key, some, rules)
            output, lse = scores.softmax(-1) @ value.to(scores.dtype), scores.logsumexp(-1)
        output_CHD.index_copy_(0, some.place_C, some.take(output).to(output_CHD.dtype))
        lse_CH.index_copy_(0, some.place_C, some.take(lse[..., None])[..., 0].to(lse_CH.dtype))
    return output_CHD, lse_CH


def backward_branches(
    query_THD: Tensor,
    key_TKD: Tensor,
    value_TKD: Tensor,
    output_THD: Tensor,
    lse_TH: Tensor,
    grad_THD: Tensor,
    tree: int,
    branches: Iterable[Branches],
    rules: Rules,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the `tree` tokens' query [C, H, D], key and value [C, K, D], float32 or wider: what flows through
    the branches, of the output and log-sum-exp of both parts together."""
    heads, size = query_THD.shape[1:]
    query_grad_CHD = lse_TH.new_empty(tree, heads, size)
    key_grad_CKD, value_grad_CKD = lse_TH.new_zeros(2, tree, *key_TKD.shape[1:])
    for some in branches:
        query, key, value, output = (some.rows(values, heads) for values in (query_THD, key_TKD, value_TKD, output_THD))
        lse = some.rows(lse_TH[..., None], heads)[..., 0]
        # A token gets its gradient in one row of the table; other rows and padding get 0: nothing flows back.
        grad = some.put(grad_THD[some.prompt :])
        if _has_kernel(query, rules):
            grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                grad, query, key, value, output, lse, dropout_p=0.0, **_hidden(some, query.dtype), scale=rules.scale
            )
        else:
            scores, slope = _scores(query, key, some, rules)
            query, key, value, output, grad = (values.to(lse.dtype) for values in (query, key, value, output, grad))
            probabilities = (scores - lse[..., None]).exp_()
            score_grad = grad @ value.mT - (grad * output).sum(-1, keepdim=True)
            score_grad.mul_(probabilities).mul_(slope).mul_(rules.scale)
            grads = score_grad @ key, score_grad.mT @ query, probabilities.mT @ grad
        query_grad_CHD.index_copy_(0, some.place_C, some.take(grads[0]).to(query_grad_CHD.dtype))
        some.add(key_grad_CKD, grads[1])
        some.add(value_grad_CKD, grads[2])
    return query_grad_CHD, key_grad_CKD, value_grad_CKD


def _has_kernel(query: Tensor, rules: Rules) -> bool:
    """Whether torch's flash kernel does it, which gives the log-sum-exp, and takes another for the backward."""
    return query.device.type == "cpu" and rules.softcap is None


def _hidden(branches: Branches, dtype: torch.dtype) -> dict[str, bool | Tensor]:
    """The kernel's arguments; it skips what is hidden where it makes the mask itself."""
    return {"is_causal": True} if branches.window is None else {"is_causal": False, "attn_mask": branches.mask(dtype)}


def _scores(query: Tensor, key: Tensor, branches: Branches, rules: Rules) -> tuple[Tensor, Tensor | float]:
    """([B, H, R, R] scores, float32 or wider, and their slope under a soft cap)"""
    dtype = wide_dtype(query)
    scores = query.to(dtype) @ key.to(dtype).mT * rules.scale
    slope: Tensor | float = 1.0
    if rules.softcap is not None:
        bounded = (scores / rules.softcap).tanh_()
        scores, slope = bounded * rules.softcap, 1 - bounded.square()
    return scores + branches.mask(dtype), slope
