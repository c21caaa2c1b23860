"""Shared-prefix attention in tiles of plain matrix products: no mask larger than a tile, on any device.

On a CPU its products, by oneDNN, beat torch's flash kernel; GPUs have rl/prefix_flex.py.

Each group gives two kinds of work: the rows of the prompt attend to it causally and the rows of the tree attend to all
of it; the branches of the tree attend causally to themselves. A tree token's two parts are merged by their log-sum-exp.

Scores stay float32: their factors are bfloat16 numbers held in float32, which oneDNN may multiply as bfloat16 without
loss.

Shapes: S packed tokens, H query heads, K key heads (H = K x Q), D head dimension, C tokens of the trees; of a part B
sequences, L query rows and M keys.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from rl.prefix_layout import GroupSpan, PrefixLayout

TILE_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}
"""Scores worked on at a time: few enough for the cache, enough that a call costs little beside its work."""
MIN_ROWS, MAX_ROWS, MAX_CAUSAL_ROWS = 32, 512, 128
"""Query rows of a tile. More rows of a causal part compute more that no one sees."""
HIDDEN = -1e30
"""Score of what a token does not see; finite, so that a row that sees nothing of a part gives no NaN."""
LOG2_E = math.log2(math.e)
"""Powers of 2 are computed three times faster than powers of e."""


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
    causal: bool
    """Whether a query sees more keys than the one before it."""


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
        tables = layout.path_NR, layout.choice_C, layout.place_C, layout.position_S
        numbers = [number for span in layout.spans for number in (span.start, span.prompt, span.tree, span.rows)]
        tensors = query_SHD, key_SKD, value_SKD
        output_SHD, lse_KQS = operation(*tensors, *tables, numbers, rules.scale, rules.window, rules.softcap)
        ctx.save_for_backward(*tensors, output_SHD, lse_KQS)
        ctx.layout, ctx.rules = layout, rules
        return cast(Tensor, output_SHD)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query_SHD, key_SKD, value_SKD, output_SHD, lse = ctx.saved_tensors
        layout, rules, dtype = ctx.layout, ctx.rules, query_SHD.dtype
        query, key, value = _by_head(query_SHD, key_SKD, value_SKD)
        grad, output = (
            tensor.transpose(0, 1).to(query.dtype).reshape(query.shape) for tensor in (grad_outputs[0], output_SHD)
        )
        mean = (grad * output).sum(-1)
        query_grad, key_grad, value_grad = (torch.zeros_like(tensor) for tensor in (query, key, value))
        with _exact_products(query_SHD):
            for rows, keys in _prompt_parts(layout):
                part = _part(query, key, value, rows, keys, layout, dtype)
                grads = _backward(part, rules, *(tensor[None, :, :, rows].contiguous() for tensor in (grad, mean, lse)))
                query_grad[:, :, rows] = grads[0][0]
                key_grad[:, keys] += grads[1][0]
                value_grad[:, keys] += grads[2][0]
            for chunk in _branch_chunks(layout, query.shape[0] * query.shape[1], query.device):
                # A place gets its gradient in one row of the table; other rows and padding get 0: nothing flows back.
                place_C = chunk.place_C
                incoming = (chunk.put(grad[:, :, place_C]), chunk.put(mean[:, :, place_C]), chunk.rows(lse))
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


def _attend(
    query_SHD: Tensor,
    key_SKD: Tensor,
    value_SKD: Tensor,
    path_NR: Tensor,
    choice_C: Tensor,
    place_C: Tensor,
    position_S: Tensor,
    spans: list[int],
    scale: float,
    window: int | None,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """Output [S, H, D] and log-sum-exp [K, Q, S] of all scores of a row, float32 or wider."""
    groups = tuple(GroupSpan(*spans[i : i + 4]) for i in range(0, len(spans), 4))
    layout, rules = PrefixLayout(groups, path_NR, choice_C, place_C, position_S), Rules(scale, window, softcap)
    query, key, value = _by_head(query_SHD, key_SKD, value_SKD)
    output, lse = torch.empty_like(query), query.new_empty(query.shape[:-1])
    with _exact_products(query_SHD):
        for rows, keys in _prompt_parts(layout):
            part = _part(query, key, value, rows, keys, layout, query_SHD.dtype)
            output[:, :, rows], lse[:, :, rows] = (tensor[0] for tensor in _forward(part, rules))
        for chunk in _branch_chunks(layout, query.shape[0] * query.shape[1], query.device):
            own = _forward(chunk.part(query, key, value, query_SHD.dtype), rules)
            own_output, own_lse = (chunk.take(tensor) for tensor in own)
            prompt_lse = lse[:, :, chunk.place_C]
            merged_lse = torch.logaddexp(prompt_lse, own_lse)
            share = (prompt_lse - merged_lse).exp_()[..., None]
            output[:, :, chunk.place_C] = torch.lerp(own_output, output[:, :, chunk.place_C], share)
            lse[:, :, chunk.place_C] = merged_lse
    return output.flatten(0, 1).transpose(0, 1).to(query_SHD.dtype).contiguous(), lse


operation = torch.library.custom_op(
    "offramp::prefix_attention",
    _attend,
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor value, Tensor path, Tensor choice, Tensor place, Tensor position, "
    "int[] spans, float scale, int? window, float? softcap) -> (Tensor, Tensor)",
)
"""One operation for torch, so that gradient checkpointing can keep what it gave (rl/policy.py)."""


def _forward(part: _Part, rules: Rules) -> tuple[Tensor, Tensor]:
    """([B, K, Q, L, D], [B, K, Q, L] log-sum-exp), float32 or wider."""
    output, lse = torch.empty_like(part.query), part.query.new_empty(part.query.shape[:-1])
    value, memory = part.value.to(part.dtype).flatten(0, 1), _memory(part)
    output_NQLD, lse_NQL = output.flatten(0, 1), lse.flatten(0, 1)
    for heads, rows, keys, hidden in _tiles(part, rules.window):
        scores, factor = _scores(part, heads, rows, keys, hidden, rules, memory)
        highest = scores.amax(-1, keepdim=True)
        scores.sub_(highest).mul_(factor).exp2_()
        total = scores.sum(-1, keepdim=True)
        weighted = torch.bmm(memory.narrow(scores).copy_(scores), value[heads, keys])
        here = output_NQLD[heads, :, rows]
        here.copy_((weighted / total).view(here.shape))
        lse_NQL[heads, :, rows] = (highest * (factor / LOG2_E) + total.log()).view(here.shape[:-1])
    return output, lse


def _backward(part: _Part, rules: Rules, grad: Tensor, mean: Tensor, lse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, from those of the output, their mean over all keys, grad . output, and the
    log-sum-exp over all keys."""
    grads = tuple(torch.zeros_like(tensor) for tensor in (part.query, part.key, part.value))
    query_grad, key_grad, value_grad = (tensor.flatten(0, 1) for tensor in grads)
    query, grad, mean, lse = (tensor.flatten(0, 1) for tensor in (part.query, grad, mean, lse))
    key, value, memory = part.key.to(part.dtype).flatten(0, 1), part.value.flatten(0, 1), _memory(part)
    narrow_query, narrow_grad = query.to(part.dtype), grad.to(part.dtype)
    for heads, rows, keys, hidden in _tiles(part, rules.window):
        scores, factor = _scores(part, heads, rows, keys, hidden, rules, memory)
        row_lse, row_mean = (tensor[heads, :, rows].flatten(1)[..., None] for tensor in (lse, mean))
        slope = None if rules.softcap is None else 1 - (scores / rules.softcap).square_().clamp_(max=1)
        probabilities = torch.add(row_lse * -LOG2_E, scores, alpha=factor, out=scores).exp2_()
        small = memory.narrow(scores).copy_(probabilities)
        incoming = grad[heads, :, rows].flatten(1, 2)
        value_grad[heads, keys] += torch.bmm(small.mT, narrow_grad[heads, :, rows].flatten(1, 2))
        score_grad = memory.wide(1, *scores.shape)
        torch.bmm(incoming, value[heads, keys].mT, out=score_grad)
        score_grad.sub_(row_mean).mul_(probabilities)
        if slope is not None:
            score_grad.mul_(slope)
        small = memory.narrow(scores).copy_(score_grad)
        here = query_grad[heads, :, rows]
        here.copy_(torch.bmm(small, key[heads, keys]).view(here.shape))
        key_grad[heads, keys] += torch.bmm(small.mT, narrow_query[heads, :, rows].flatten(1, 2))
    return grads[0].mul_(rules.scale), grads[1].mul_(rules.scale), grads[2]


def _scores(
    part: _Part,
    heads: slice,
    rows: slice,
    keys: slice,
    hidden: tuple[slice, Tensor] | None,
    rules: Rules,
    memory: _Memory,
) -> tuple[Tensor, float]:
    """([heads, Q x rows, keys] scores, the factor that is still to be applied, in powers of 2)"""
    query = part.query.flatten(0, 1)[heads, :, rows].flatten(1, 2)
    key = part.key.flatten(0, 1)[heads, keys]
    scores = memory.wide(0, query.shape[0], query.shape[1], key.shape[1])
    torch.bmm(query, key.mT, out=scores)
    factor = rules.scale
    if rules.softcap is not None:
        scores.mul_(rules.scale / rules.softcap).tanh_().mul_(rules.softcap)
        factor = 1.0
    if hidden is not None:
        columns, mask = hidden
        seen = scores.view(scores.shape[0], part.query.shape[2], -1, scores.shape[2])
        seen[..., columns].masked_fill_(mask, HIDDEN)
    return scores, factor * LOG2_E


class _Memory:
    """What the tiles of a part are worked on in, used again for each: fresh pages cost as much as the arithmetic."""

    def __init__(self, elements: int, wide: torch.dtype, narrow: torch.dtype, device: torch.device) -> None:
        self._wide = torch.empty(2, elements, dtype=wide, device=device)
        self._narrow = torch.empty(elements, dtype=narrow, device=device)

    def wide(self, which: int, *shape: int) -> Tensor:
        return self._wide[which, : math.prod(shape)].view(shape)

    def narrow(self, like: Tensor) -> Tensor:
        return self._narrow[: like.numel()].view(like.shape)


_kept = threading.local()


def _memory(part: _Part) -> _Memory:
    """Memory for the tiles of `part`; on the CPU that of the part before, where it is large enough."""
    heads, rows = _tile_shape(part)
    key = part.query.shape[2] * rows * heads * part.key.shape[2], part.query.dtype, part.dtype
    device = part.query.device
    if device.type != "cpu":
        return _Memory(*key, device)
    elements, *dtypes = getattr(_kept, "key", (0,))
    if elements < key[0] or dtypes != [*key[1:]]:
        _kept.key, _kept.memory = key, _Memory(*key, device)
    return cast(_Memory, _kept.memory)


def _tile_shape(part: _Part) -> tuple[int, int]:
    """(heads, query rows) of a tile."""
    batch, key_heads, repeats, length, _ = part.query.shape
    row = repeats * part.key.shape[2]
    budget = TILE_ELEMENTS[part.query.device.type]
    most = MAX_CAUSAL_ROWS if part.causal else MAX_ROWS
    rows = min(max(budget // row, MIN_ROWS), most, length)
    return min(max(budget // (row * rows), 1), batch * key_heads), rows


def _tiles(part: _Part, window: int | None) -> Iterator[tuple[slice, slice, slice, tuple[slice, Tensor] | None]]:
    """(heads, query rows, the keys that one of them sees, columns of these with a mask of what a row does not see)."""
    number = part.key.shape[2]
    heads, size = _tile_shape(part)
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
        for head in range(0, part.query.shape[0] * part.query.shape[1], heads):
            yield slice(head, head + heads), slice(start, start + len(position)), slice(first, last), hidden


def _by_head(query_SHD: Tensor, key_SKD: Tensor, value_SKD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[K, Q, S, D], [K, S, D], [K, S, D], in float32 or wider."""
    wide = torch.promote_types(query_SHD.dtype, torch.float32)
    query, key, value = (tensor.transpose(0, 1).to(wide).contiguous() for tensor in (query_SHD, key_SKD, value_SKD))
    return query.view(key.shape[0], -1, *query.shape[1:]), key, value


def _prompt_parts(layout: PrefixLayout) -> Iterator[tuple[slice, slice]]:
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
    return _Part(query, key, value, layout.position_S[rows], dtype, rows == keys)


@dataclass(frozen=True, slots=True)
class _Branches:
    """Some rows of the layout's table of paths, and the tokens whose place in the table is there."""

    path_BR: Tensor
    place_C: Tensor
    choice_C: Tensor

    def part(self, query: Tensor, key: Tensor, value: Tensor, dtype: torch.dtype) -> _Part:
        return _Part(
            self.rows(query),
            key[:, self.path_BR].transpose(0, 1).contiguous(),
            value[:, self.path_BR].transpose(0, 1).contiguous(),
            torch.arange(self.path_BR.shape[1], device=query.device),
            dtype,
            causal=True,
        )

    def rows(self, values: Tensor) -> Tensor:
        """[K, Q, S, ...] to [B, K, Q, R, ...]"""
        return values[:, :, self.path_BR].movedim(2, 0).contiguous()

    def take(self, table: Tensor) -> Tensor:
        """[B, K, Q, R, ...] to [K, Q, C, ...]"""
        return table.movedim(0, 2).flatten(2, 3)[:, :, self.choice_C]

    def put(self, values: Tensor) -> Tensor:
        """[K, Q, C, ...] to [B, K, Q, R, ...], 0 elsewhere."""
        rows, longest = self.path_BR.shape
        table = values.new_zeros(*values.shape[:2], rows * longest, *values.shape[3:])
        table[:, :, self.choice_C] = values
        return table.view(*table.shape[:2], rows, longest, *table.shape[3:]).movedim(2, 0).contiguous()


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
