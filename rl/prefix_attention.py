"""Shared-prefix attention in tiles of plain matrix products: no mask larger than a tile, on any device.

For what the kernels of rl/prefix_flash.py and rl/prefix_flex.py do not do.

Each group gives two kinds of work: the rows of the prompt attend to it causally and the rows of the tree attend to all
of it; the branches of the tree attend causally to themselves. A tree token's two parts are merged by their log-sum-exp.

Scores stay float32: their factors are bfloat16 numbers held in float32, which oneDNN may multiply as bfloat16 without
loss.

Shapes: S packed tokens, H query heads, K key heads (H = K x Q), D head dimension, C tokens of the trees; of a part B
sequences, L query rows and M keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from rl.prefix_layout import PrefixLayout

TILE_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}
"""Scores worked on at a time: few enough for the cache, enough that a call costs little beside its work."""
MIN_ROWS, MAX_ROWS = 32, 256
"""Query rows of a tile. More rows of a causal part compute more that no one sees."""
HIDDEN = -1e30
"""Score of what a token does not see; finite, so that a row that sees nothing of a part gives no NaN."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the model wants of its attention.

    Example: Rules(scale=0.125, window=4096, softcap=None)
    """

    scale: float
    window: int | None = None
    """A token sees so many tokens, itself among them; None: all before it."""
    softcap: float | None = None
    """A score becomes softcap x tanh(score / softcap)."""


def tiled_attention(
    query_SHD: Tensor, key_SKD: Tensor, value_SKD: Tensor, layout: PrefixLayout, rules: Rules
) -> Tensor:
    """Attention of every packed token to its prompt and its own past. Returns [S, H, D]; gradients flow."""
    return cast(Tensor, _TiledAttention.apply(query_SHD, key_SKD, value_SKD, layout, rules))  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class _Part:
    """Queries, the keys that they may see, and where the queries are when key 0 is at position 0."""

    query: Tensor
    """[B, K, Q, L, D], float32 or wider, like key and value."""
    key: Tensor
    """[B, K, M, D]"""
    value: Tensor
    position_L: Tensor
    dtype: torch.dtype
    """Of the products that are no scores."""


class _TiledAttention(torch.autograd.Function):
    """Backward computes the probabilities of each part again; the part's share scales the gradient that comes in.

    With p the softmax over the part, share = exp(lse of the part - lse of all) and o the merged output, the gradient of
    a score is p x (share x grad . value - share x grad . o).
    """

    @staticmethod
    def forward(
        ctx: Any, query_SHD: Tensor, key_SKD: Tensor, value_SKD: Tensor, layout: PrefixLayout, rules: Rules
    ) -> Tensor:
        query, key, value = _by_head(query_SHD, key_SKD, value_SKD)
        output = torch.empty(query.shape, dtype=query_SHD.dtype, device=query.device)
        lse = query.new_empty(query.shape[:-1])
        with _exact_products(query_SHD):
            for rows, keys in prompt_parts(layout):
                part = _part(query, key, value, rows, keys, layout, query_SHD.dtype)
                output[:, :, rows], lse[:, :, rows] = (tensor[0] for tensor in _forward(part, rules))
            prompt_share = torch.ones_like(lse)
            for chunk in _branch_chunks(layout, query.shape[0] * query.shape[1], query.device):
                place_C, own = chunk.place_C, _forward(chunk.part(query, key, value, query_SHD.dtype), rules)
                own_output, own_lse = (chunk.take(tensor) for tensor in own)
                prompt_lse = lse[:, :, place_C]
                share = (prompt_lse - torch.logaddexp(prompt_lse, own_lse)).exp_()
                prompt_share[:, :, place_C] = share
                merged = torch.lerp(own_output.to(share.dtype), output[:, :, place_C].to(share.dtype), share[..., None])
                output[:, :, place_C] = merged.to(output.dtype)
        output_SHD = output.flatten(0, 1).transpose(0, 1).contiguous()
        ctx.save_for_backward(query_SHD, key_SKD, value_SKD, output_SHD, prompt_share)
        ctx.layout, ctx.rules = layout, rules
        return output_SHD

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query_SHD, key_SKD, value_SKD, output_SHD, prompt_share = ctx.saved_tensors
        layout, rules, dtype = ctx.layout, ctx.rules, query_SHD.dtype
        query, key, value = _by_head(query_SHD, key_SKD, value_SKD)
        grad, output = (
            tensor.transpose(0, 1).to(query.dtype).reshape(query.shape) for tensor in (grad_outputs[0], output_SHD)
        )
        mean = (grad * output).sum(-1)
        query_grad, key_grad, value_grad = (torch.zeros_like(tensor) for tensor in (query, key, value))
        with _exact_products(query_SHD):
            for rows, keys in prompt_parts(layout):
                share = prompt_share[:, :, rows]
                part = _part(query, key, value, rows, keys, layout, dtype)
                incoming = (grad[:, :, rows] * share[..., None])[None], (mean[:, :, rows] * share)[None]
                grads = _backward(part, rules, *incoming)
                query_grad[:, :, rows] = grads[0][0]
                key_grad[:, keys] += grads[1][0]
                value_grad[:, keys] += grads[2][0]
            for chunk in _branch_chunks(layout, query.shape[0] * query.shape[1], query.device):
                place_C = chunk.place_C
                share = 1 - prompt_share[:, :, place_C]
                # A place gets its gradient in one row of the table; other rows and padding get 0: nothing flows back.
                incoming = (
                    chunk.put(grad[:, :, place_C] * share[..., None]),
                    chunk.put(mean[:, :, place_C] * share),
                )
                grads = _backward(chunk.part(query, key, value, dtype), rules, *incoming)
                query_grad[:, :, place_C] += chunk.take(grads[0])
                for total, rows_BKMD in ((key_grad, grads[1]), (value_grad, grads[2])):
                    total.index_add_(1, chunk.path_BR.flatten(), rows_BKMD.transpose(0, 1).flatten(1, 2))
        return (
            query_grad.flatten(0, 1).transpose(0, 1).to(dtype),
            key_grad.transpose(0, 1).to(dtype),
            value_grad.transpose(0, 1).to(dtype),
            None,
            None,
        )


def _forward(part: _Part, rules: Rules) -> tuple[Tensor, Tensor]:
    """([B, K, Q, L, D] in the part's dtype, [B, K, Q, L] log-sum-exp)."""
    output = torch.empty(part.query.shape, dtype=part.dtype, device=part.query.device)
    lse = part.query.new_empty(part.query.shape[:-1])
    value, memory = part.value.to(part.dtype), _Memory(part, wide=2)
    for rows, keys, hidden in _tiles(part, rules.window):
        scores, probabilities = _softmax(part, rows, keys, hidden, rules, memory)
        # The largest probability is exp(largest score - lse).
        lse[..., rows] = (scores.amax(-1) - probabilities.amax(-1).log_()).view(lse[..., rows].shape)
        weighted = torch.bmm(memory.narrow(scores).copy_(probabilities), value[:, :, keys].flatten(0, 1))
        output[..., rows, :] = weighted.view(output[..., rows, :].shape)
    return output, lse


def _backward(part: _Part, rules: Rules, grad: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, from those of the output and from their mean over the keys, grad . output."""
    grads = tuple(torch.zeros_like(tensor) for tensor in (part.query, part.key, part.value))
    key, value, memory = part.key.to(part.dtype), part.value, _Memory(part, wide=3)
    for rows, keys, hidden in _tiles(part, rules.window):
        query, incoming = (tensor[..., rows, :].flatten(0, 1).flatten(1, 2) for tensor in (part.query, grad))
        scores, probabilities = _softmax(part, rows, keys, hidden, rules, memory)
        value_part = torch.bmm(memory.narrow(scores).copy_(probabilities).mT, incoming.to(part.dtype))
        score_grad = memory.wide(2, *scores.shape)
        torch.bmm(incoming, value[:, :, keys].flatten(0, 1).contiguous().mT, out=score_grad)
        score_grad.sub_(mean[..., rows].reshape(*score_grad.shape[:2], 1)).mul_(probabilities)
        if rules.softcap is not None:
            score_grad.mul_(1 - (scores / rules.softcap).square_().clamp_(max=1))  # hidden ones are far below
        small = memory.narrow(scores).copy_(score_grad.mul_(rules.scale))
        grads[0][..., rows, :] = torch.bmm(small, key[:, :, keys].flatten(0, 1)).view(grads[0][..., rows, :].shape)
        key_part = torch.bmm(small.mT, query.to(part.dtype))
        for total, add in ((grads[1], key_part), (grads[2], value_part)):
            total[:, :, keys] += add.view(total[:, :, keys].shape)
    return grads[0], grads[1], grads[2]


def _softmax(
    part: _Part, rows: slice, keys: slice, hidden: tuple[slice, Tensor] | None, rules: Rules, memory: _Memory
) -> tuple[Tensor, Tensor]:
    """(scores, their softmax), [B x K, Q x rows, keys] each."""
    query = part.query[..., rows, :].flatten(0, 1).flatten(1, 2)
    key = part.key[:, :, keys].flatten(0, 1).contiguous()  # a strided factor costs a product half its speed
    scores = memory.wide(0, query.shape[0], query.shape[1], key.shape[1])
    torch.bmm(query, key.mT, out=scores).mul_(rules.scale)
    if rules.softcap is not None:
        scores.div_(rules.softcap).tanh_().mul_(rules.softcap)
    if hidden is not None:
        columns, mask = hidden
        seen = scores.view(scores.shape[0], part.query.shape[2], -1, scores.shape[2])
        seen[..., columns].masked_fill_(mask, HIDDEN)
    return scores, torch.softmax(scores, -1, out=memory.wide(1, *scores.shape))


class _Memory:
    """What the tiles of a part are worked on in, used again for each: fresh pages cost as much as the arithmetic."""

    def __init__(self, part: _Part, wide: int) -> None:
        batch, key_heads, repeats, length, _ = part.query.shape
        elements = batch * key_heads * repeats * min(_tile_rows(part), length) * part.key.shape[2]
        self._wide = part.query.new_empty(wide, elements)
        self._narrow = torch.empty(elements, dtype=part.dtype, device=part.query.device)

    def wide(self, which: int, *shape: int) -> Tensor:
        return self._wide[which, : math.prod(shape)].view(shape)

    def narrow(self, like: Tensor) -> Tensor:
        return self._narrow[: like.numel()].view(like.shape)


def _tile_rows(part: _Part) -> int:
    row = part.query.shape[:3].numel() * part.key.shape[2]
    return min(max(TILE_ELEMENTS[part.query.device.type] // row, MIN_ROWS), MAX_ROWS)


def _tiles(part: _Part, window: int | None) -> Iterator[tuple[slice, slice, tuple[slice, Tensor] | None]]:
    """(query rows, the keys that one of them sees, columns of these with a mask of what a row does not see)."""
    number, size = part.key.shape[2], _tile_rows(part)
    for start in range(0, part.query.shape[3], size):
        position = part.position_L[start : start + size]
        lowest, highest = (int(place) for place in position.aminmax())
        first = 0 if window is None else max(lowest - window + 1, 0)
        last = min(highest + 1, number)
        if last <= first:  # a window that has moved past all keys: one key, hidden, keeps the shapes
            first, last = number - 1, number
        outside = window is not None and highest - first >= window
        begin = first if outside else lowest + 1
        hidden = None
        if begin < last:
            distance = position[:, None] - torch.arange(begin, last, device=position.device)
            mask = distance < 0 if window is None else (distance < 0) | (distance >= window)
            hidden = slice(begin - first, last - first), mask
        yield slice(start, start + len(position)), slice(first, last), hidden


def _by_head(query_SHD: Tensor, key_SKD: Tensor, value_SKD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[K, Q, S, D], [K, S, D], [K, S, D], in float32 or wider."""
    wide = torch.promote_types(query_SHD.dtype, torch.float32)
    query, key, value = (tensor.transpose(0, 1).to(wide).contiguous() for tensor in (query_SHD, key_SKD, value_SKD))
    return query.view(key.shape[0], -1, *query.shape[1:]), key, value


def prompt_parts(layout: PrefixLayout) -> Iterator[tuple[slice, slice]]:
    """(query rows, keys) in the packed sequence: each prompt on itself, each tree on its prompt."""
    for span in layout.spans:
        prompt = slice(span.start, span.split)
        yield prompt, prompt
        if span.tree:
            yield slice(span.split, span.stop), prompt


def _part(
    query: Tensor, key: Tensor, value: Tensor, rows: slice, keys: slice, layout: PrefixLayout, dtype: torch.dtype
) -> _Part:
    query, key, value = (
        tensor.contiguous() for tensor in (query[None, :, :, rows], key[None, :, keys], value[None, :, keys])
    )
    return _Part(query, key, value, layout.position_S[rows], dtype)


@dataclass(frozen=True, slots=True)
class _Branches:
    """Some rows of the layout's table of paths, and the tokens whose place in the table is there."""

    path_BR: Tensor
    place_C: Tensor
    choice_C: Tensor

    def part(self, query: Tensor, key: Tensor, value: Tensor, dtype: torch.dtype) -> _Part:
        return _Part(
            query[:, :, self.path_BR].permute(2, 0, 1, 3, 4),
            key[:, self.path_BR].transpose(0, 1),
            value[:, self.path_BR].transpose(0, 1),
            torch.arange(self.path_BR.shape[1], device=query.device),
            dtype,
        )

    def take(self, table: Tensor) -> Tensor:
        """[B, K, Q, R, ...] to [K, Q, C, ...]"""
        return table.movedim(0, 2).flatten(2, 3)[:, :, self.choice_C]

    def put(self, values: Tensor) -> Tensor:
        """[K, Q, C, ...] to [B, K, Q, R, ...], 0 elsewhere."""
        rows, longest = self.path_BR.shape
        table = values.new_zeros(*values.shape[:2], rows * longest, *values.shape[3:])
        table[:, :, self.choice_C] = values
        return table.view(*table.shape[:2], rows, longest, *table.shape[3:]).movedim(2, 0)


def _branch_chunks(layout: PrefixLayout, heads: int, device: torch.device) -> Iterator[_Branches]:
    """So many branches at a time that their scores fit a tile."""
    rows, longest = layout.path_NR.shape
    if not rows:
        return
    budget = TILE_ELEMENTS[device.type]
    size = max(budget // (heads * longest * min(longest, MAX_ROWS)), 1)
    for start in range(0, rows, size):
        table = slice(start * longest, (start + size) * longest)
        here = (layout.choice_C >= table.start) & (layout.choice_C < table.stop)
        yield _Branches(layout.path_NR[start : start + size], layout.place_C[here], layout.choice_C[here] - table.start)


@contextmanager
def _exact_products(query: Tensor) -> Iterator[None]:
    """Let oneDNN multiply float32 matrices that hold bfloat16 numbers as bfloat16; sums stay float32."""
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        yield
        return
    matmul = cast(Any, torch.backends).mkldnn.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
