"""Shared-prefix attention in tiles of plain matrix products: no mask larger than a tile, on any device.

On a CPU its products, by oneDNN, beat torch's flash kernel; GPUs have rl/prefix_flex.py.

A group's attention is done head by head, in two parts: all its tokens attend to the prompt, the prompt's own causally,
and the branches of its tree attend causally to themselves. A tree token's two parts are merged by their log-sum-exp.

Scores stay float32 in the forward: their factors are bfloat16 numbers held in float32, which oneDNN may multiply as
bfloat16 without loss. In the backward their products are bfloat16, which is twice as fast: what must not be rounded
before it is small (the log-sum-exp of a row, grad . o) goes into the product, as two columns more. A soft cap needs the
bare scores there too. On a GPU, one that FlexAttention does not serve, it was never measured.

Shapes: S packed tokens, H query heads, K key heads (H = K x Q), D head dimension, E = D + 2; of a group T tokens, of
which P are its prompt and C its tree; of its branches B rows of the table of paths and R places in one; of a part L
query rows and M keys, after B where there are branches.
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
from torch.nn.functional import pad

from rl.prefix_layout import GroupSpan, PrefixLayout

TILE_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}
"""Scores worked on at a time: few enough for the cache, enough that a call costs little beside its work."""
MIN_ROWS = 32
"""Query rows of a tile, at least."""
MAX_CAUSAL_ROWS = {"cpu": 256, "cuda": 1024}
"""More query rows of a causal part compute more that no one sees."""
HIDDEN = -1e30
"""Score of what a token does not see."""
LOWEST = -1e29
"""Taken for the highest score of a row that sees nothing of a part: its output there is 0, and no NaN."""
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
class _Tile:
    """Query rows, the keys that one of them sees, and which of these to hide from which row."""

    rows: slice
    keys: slice
    hidden: list[tuple[slice, Tensor]]
    """Columns, and what is added to their scores; every row sees the others."""


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
        given = operation(*tensors, *tables, numbers, rules.scale, rules.window, rules.softcap)
        ctx.save_for_backward(*tensors, *given)
        ctx.layout, ctx.rules = layout, rules
        return cast(Tensor, given[0])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query_SHD, key_SKD, value_SKD, output_SHD, lse_HS, highest_HS = ctx.saved_tensors
        rules, (grad_SHD,) = ctx.rules, grad_outputs
        wide = _wide(query_SHD)
        query_grad, key_grad, value_grad = map(torch.empty_like, (query_SHD, key_SKD, value_SKD))
        with _exact_products(query_SHD):
            for group in _groups(ctx.layout, rules.window):
                for key_head in range(key_SKD.shape[1]):
                    key_TD = key_SKD[group.tokens, key_head].contiguous()
                    value_TE = _with_ones(value_SKD[group.tokens, key_head])
                    totals_TD = torch.zeros_like(key_TD, dtype=wide), torch.zeros_like(key_TD, dtype=wide)
                    for head in _heads_of(key_head, query_SHD, key_SKD):
                        query_TD, grad_TD, output_TD = (
                            tensor[group.tokens, head].contiguous() for tensor in (query_SHD, grad_SHD, output_SHD)
                        )
                        lse_T = lse_HS[head, group.tokens]
                        # Powers of 2 go from the probabilities to the gradient, which is exact: logarithms are near 0
                        # then, where the large probabilities of a row are, and rounded least there.
                        halvings_T = ((lse_T - highest_HS[head, group.tokens]) * LOG2_E).round()
                        grad_TD = grad_TD * (-halvings_T).exp2()[:, None].to(grad_TD.dtype)
                        mean_T = (grad_TD.to(wide) * output_TD.to(wide)).sum(-1)
                        query_grad_TD = _backward_head(
                            query_TD,
                            key_TD,
                            value_TE,
                            _with_pieces(grad_TD, -mean_T),
                            lse_T - halvings_T / LOG2_E,
                            totals_TD,
                            group,
                            rules,
                        )
                        query_grad[group.tokens, head] = query_grad_TD.mul_(rules.scale)
                    key_grad[group.tokens, key_head] = totals_TD[0].mul_(rules.scale)
                    value_grad[group.tokens, key_head] = totals_TD[1]
        return query_grad, key_grad, value_grad, None, None


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
) -> tuple[Tensor, Tensor, Tensor]:
    """Output [S, H, D], and of all scores of a row the log-sum-exp and the highest, [H, S], float32 or wider."""
    groups = tuple(GroupSpan(*spans[i : i + 4]) for i in range(0, len(spans), 4))
    layout, rules = PrefixLayout(groups, path_NR, choice_C, place_C, position_S), Rules(scale, window, softcap)
    tokens, heads, _ = query_SHD.shape
    output_SHD = torch.empty_like(query_SHD, memory_format=torch.contiguous_format)
    lse_HS = query_SHD.new_empty(heads, tokens, dtype=_wide(query_SHD))
    highest_HS = torch.empty_like(lse_HS)
    with _exact_products(query_SHD):
        for group in _groups(layout, window):
            for key_head in range(key_SKD.shape[1]):
                key_TD, value_TD = (tensor[group.tokens, key_head].contiguous() for tensor in (key_SKD, value_SKD))
                for head in _heads_of(key_head, query_SHD, key_SKD):
                    query_TD = query_SHD[group.tokens, head].contiguous()
                    output_TD, lse_T, highest_T = _forward_head(query_TD, key_TD, value_TD, group, rules)
                    output_SHD[group.tokens, head] = output_TD
                    lse_HS[head, group.tokens], highest_HS[head, group.tokens] = lse_T, highest_T
    return output_SHD, lse_HS, highest_HS


operation = torch.library.custom_op(
    "offramp::prefix_attention",
    _attend,
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor value, Tensor path, Tensor choice, Tensor place, Tensor position, "
    "int[] spans, float scale, int? window, float? softcap) -> (Tensor, Tensor, Tensor)",
)
"""One operation for torch, so that gradient checkpointing can keep what it gave (rl/policy.py)."""


def _forward_head(
    query_TD: Tensor, key_TD: Tensor, value_TD: Tensor, group: _Group, rules: Rules
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_forward`, for both parts of one head: [T, D], [T], [T]."""
    prompt = slice(0, group.prompt)
    output_TD, lse_T, highest_T = _forward(query_TD, key_TD[prompt], value_TD[prompt], group.tiles, rules)
    for branches in group.branches:
        query_BRD, key_BRD, value_BRD = map(branches.rows, (query_TD, key_TD, value_TD))
        own = _forward(query_BRD, key_BRD, value_BRD, branches.tiles, rules)
        own_output, own_lse, own_highest = map(branches.take, own)
        places_C = branches.place_C
        prompt_lse = lse_T[places_C]
        merged_lse = torch.logaddexp(prompt_lse, own_lse)
        share = (prompt_lse - merged_lse).exp_()[:, None]
        output_TD[places_C] = torch.lerp(own_output, output_TD.index_select(0, places_C), share)
        lse_T[places_C] = merged_lse
        highest_T[places_C] = torch.maximum(highest_T[places_C], own_highest)
    return output_TD, lse_T, highest_T


def _backward_head(
    query_TD: Tensor,
    key_TD: Tensor,
    value_TE: Tensor,
    grad_TE: Tensor,
    lse_T: Tensor,
    totals_TD: tuple[Tensor, Tensor],
    group: _Group,
    rules: Rules,
) -> Tensor:
    """As `_backward`, for both parts of one head: [T, D]."""
    prompt = slice(0, group.prompt)
    of_prompt = totals_TD[0][prompt], totals_TD[1][prompt]
    query_grad_TD = _backward(query_TD, key_TD[prompt], value_TE[prompt], grad_TE, lse_T, of_prompt, group.tiles, rules)
    for branches in group.branches:
        query_BRD, key_BRD, value_BRE, lse_BR = map(branches.rows, (query_TD, key_TD, value_TE, lse_T))
        totals_BRD = torch.zeros_like(key_BRD, dtype=lse_T.dtype), torch.zeros_like(key_BRD, dtype=lse_T.dtype)
        # A place gets its gradient in one row of the table; other rows and padding get 0: nothing flows back.
        grad_BRE = branches.put(grad_TE)
        query_grad_BRD = _backward(query_BRD, key_BRD, value_BRE, grad_BRE, lse_BR, totals_BRD, branches.tiles, rules)
        query_grad_TD.index_add_(0, branches.place_C, branches.take(query_grad_BRD))
        for total_TD, total_BRD in zip(totals_TD, totals_BRD, strict=True):
            total_TD.index_add_(0, branches.path_BR.flatten(), total_BRD.flatten(0, 1))
    return query_grad_TD


def _forward(
    query: Tensor, key: Tensor, value: Tensor, tiles: list[_Tile], rules: Rules
) -> tuple[Tensor, Tensor, Tensor]:
    """Of query [..., L, D], key and value [..., M, D]: output [..., L, D], and of the scores of a row the log-sum-exp
    and the highest, [..., L]; float32 or wider."""
    wide_query, wide_key = query.to(_wide(query)), key.to(_wide(query))
    output, lse = torch.empty_like(wide_query), wide_query.new_empty(query.shape[:-1])
    peak = torch.empty_like(lse)
    memory = _memory(query, key, tiles)
    for tile in tiles:
        rows, keys = tile.rows, tile.keys
        scores, factor = _scores(wide_query, wide_key, tile, rules, memory)
        highest = scores.amax(-1, keepdim=True).clamp_(min=LOWEST)
        torch.add(highest * -factor, scores, alpha=factor, out=scores).exp2_()
        total = scores.sum(-1, keepdim=True).clamp_(min=1e-30)
        weighted = memory.narrow(0, *scores.shape).copy_(scores) @ value[..., keys, :]
        torch.div(weighted, total, out=output[..., rows, :])
        peak[..., rows, None] = highest.mul_(factor / LOG2_E)
        torch.add(total.log_(), highest, out=lse[..., rows, None])
    return output, lse, peak


def _backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grad: Tensor,
    lse: Tensor,
    totals: tuple[Tensor, Tensor],
    tiles: list[_Tile],
    rules: Rules,
) -> Tensor:
    """Gradient of the query, [..., L, D]; those of key and value, [..., M, D], are added to `totals`. All float32 or
    wider, those of query and key but for the scale.

    From query [..., L, D] and key [..., M, D], the value `_with_ones`, [..., M, E], the output's gradient with
    -grad . o in pieces, [..., L, E], and the log-sum-exp over all keys, [..., L].
    """
    key_grad, value_grad = totals
    query_grad, memory = torch.empty_like(query, dtype=lse.dtype), _memory(query, key, tiles)
    factor = rules.scale * LOG2_E
    if rules.softcap is None:
        query_E, key_E = _with_pieces(query, lse / -rules.scale), _with_ones(key)
    else:
        wide_query, wide_key = query.to(lse.dtype), key.to(lse.dtype)
    for tile in tiles:
        rows, keys = tile.rows, tile.keys
        if rules.softcap is None:
            probabilities = memory.narrow(0, *query.shape[:-2], rows.stop - rows.start, keys.stop - keys.start)
            torch.matmul(query_E[..., rows, :], key_E[..., keys, :].mT, out=probabilities)
            _hide(probabilities, tile)
            probabilities.mul_(factor).exp2_()
        else:
            scores, factor = _scores(wide_query, wide_key, tile, rules, memory)
            slope = 1 - (scores / rules.softcap).square_().clamp_(max=1)
            torch.add(lse[..., rows, None] * -LOG2_E, scores, alpha=factor, out=scores).exp2_()
            probabilities = memory.narrow(0, *scores.shape).copy_(scores)
        value_grad[..., keys, :] += probabilities.mT @ grad[..., rows, :-2]
        score_grad = memory.narrow(1, *probabilities.shape)
        torch.matmul(grad[..., rows, :], value[..., keys, :].mT, out=score_grad)
        score_grad.mul_(probabilities)
        if rules.softcap is not None:
            score_grad.mul_(slope)
        query_grad[..., rows, :] = score_grad @ key[..., keys, :]
        key_grad[..., keys, :] += score_grad.mT @ query[..., rows, :]
    return query_grad


def _scores(wide_query: Tensor, wide_key: Tensor, tile: _Tile, rules: Rules, memory: _Memory) -> tuple[Tensor, float]:
    """([..., rows, keys] scores, the factor that is still to be applied, in powers of 2)"""
    query, key = wide_query[..., tile.rows, :], wide_key[..., tile.keys, :]
    scores = memory.wide(*query.shape[:-1], key.shape[-2])
    torch.matmul(query, key.mT, out=scores)
    factor = rules.scale
    if rules.softcap is not None:
        scores.mul_(rules.scale / rules.softcap).tanh_().mul_(rules.softcap)
        factor = 1.0
    _hide(scores, tile)
    return scores, factor * LOG2_E


def _hide(scores: Tensor, tile: _Tile) -> None:
    for columns, mask in tile.hidden:
        scores[..., columns].add_(mask)


def _with_pieces(values_TD: Tensor, number_T: Tensor) -> Tensor:
    """[..., T, E]: two columns more, whose sum is a number of twice their digits. Times a column of ones (`_with_ones`)
    they add it to a product before that is rounded."""
    high = number_T[..., None].to(values_TD.dtype)
    low = (number_T[..., None] - high).to(values_TD.dtype)
    return torch.cat((values_TD, high, low), -1)


def _with_ones(values_TD: Tensor) -> Tensor:
    """[..., T, E]"""
    return pad(values_TD, (0, 2), value=1.0)


class _Memory:
    """What tiles are worked on in, used again for each: fresh pages cost as much as the arithmetic."""

    def __init__(self, elements: int, wide: torch.dtype, narrow: torch.dtype, device: torch.device) -> None:
        self._wide = torch.empty(elements, dtype=wide, device=device)
        self._narrow = torch.empty(2, elements, dtype=narrow, device=device)

    def wide(self, *shape: int) -> Tensor:
        return self._wide[: math.prod(shape)].view(shape)

    def narrow(self, which: int, *shape: int) -> Tensor:
        return self._narrow[which, : math.prod(shape)].view(shape)


_kept = threading.local()


def _memory(query: Tensor, key: Tensor, tiles: list[_Tile]) -> _Memory:
    """Memory for the tiles; on the CPU that of the tiles before, where it is large enough."""
    branches, device = math.prod(query.shape[:-2]), query.device
    elements = branches * key.shape[-2] * max(tile.rows.stop - tile.rows.start for tile in tiles)
    dtypes = _wide(query), query.dtype
    if device.type != "cpu":
        return _Memory(elements, *dtypes, device)
    if getattr(_kept, "elements", 0) < elements or _kept.dtypes != dtypes:
        _kept.elements, _kept.dtypes, _kept.memory = elements, dtypes, _Memory(elements, *dtypes, device)
    return cast(_Memory, _kept.memory)


@dataclass(frozen=True, slots=True)
class _Branches:
    """Some rows of the table of paths, and the tokens whose place in the table is there."""

    path_BR: Tensor
    """Places among the group's tokens, like place_C."""
    place_C: Tensor
    choice_C: Tensor
    tiles: list[_Tile]

    def rows(self, values_T: Tensor) -> Tensor:
        """[T, ...] to [B, R, ...]"""
        return values_T.index_select(0, self.path_BR.flatten()).view(*self.path_BR.shape, *values_T.shape[1:])

    def take(self, table_BR: Tensor) -> Tensor:
        """[B, R, ...] to [C, ...]"""
        return table_BR.flatten(0, 1).index_select(0, self.choice_C)

    def put(self, values_T: Tensor) -> Tensor:
        """[T, ...] to [B, R, ...], each token in its one place, 0 elsewhere."""
        table = values_T.new_zeros(self.path_BR.numel(), *values_T.shape[1:])
        table[self.choice_C] = values_T.index_select(0, self.place_C)
        return table.view(*self.path_BR.shape, *values_T.shape[1:])


@dataclass(frozen=True, slots=True)
class _Group:
    """Where a group's tokens are in the packed sequence, and the tiles of its two parts."""

    tokens: slice
    prompt: int
    tiles: list[_Tile]
    """Of all tokens on the prompt."""
    branches: list[_Branches]


def _groups(layout: PrefixLayout, window: int | None) -> Iterator[_Group]:
    longest = layout.path_NR.shape[1]
    first_row = 0
    for span in layout.spans:
        position_T = layout.position_S[span.start : span.stop]
        tiles = _tiles(position_T[: span.prompt], span.prompt, 1, window, causal=True)
        tiles += _tiles(position_T[span.prompt :], span.prompt, 1, window, causal=False, first_row=span.prompt)
        size = max(TILE_ELEMENTS[position_T.device.type] // max(longest, 1) ** 2, 1)
        branches = []
        for row in range(first_row, first_row + span.rows, size):
            path_BR = layout.path_NR[row : min(row + size, first_row + span.rows)] - span.start
            here = (layout.choice_C >= row * longest) & (layout.choice_C < (row + len(path_BR)) * longest)
            place_C, choice_C = layout.place_C[here] - span.start, layout.choice_C[here] - row * longest
            depth_R = torch.arange(longest, device=position_T.device)
            own_tiles = _tiles(depth_R, longest, len(path_BR), window, causal=True)
            branches.append(_Branches(path_BR, place_C, choice_C, own_tiles))
        yield _Group(slice(span.start, span.stop), span.prompt, tiles, branches)
        first_row += span.rows


def _tiles(
    position_L: Tensor, keys: int, branches: int, window: int | None, causal: bool, first_row: int = 0
) -> list[_Tile]:
    """Of queries at these positions, key 0 being at position 0, in so many branches at a time; in fewer rows where a
    query sees more keys than the one before it (`causal`)."""
    device, length = position_L.device, len(position_L)
    most = MAX_CAUSAL_ROWS[device.type] if causal else max(length, 1)
    size = min(max(TILE_ELEMENTS[device.type] // (branches * keys), MIN_ROWS), most)
    tiles = []
    for start in range(0, length, size):
        position = position_L[start : start + size]
        lowest, highest = (int(place) for place in position.aminmax())
        first = 0 if window is None else max(lowest - window + 1, 0)
        last = min(highest + 1, keys)
        if last <= first:  # a window that has moved past all keys: one key, hidden, keeps the shapes
            first, last = keys - 1, keys
        behind = first if window is None else min(max(highest - window + 1, first), last)
        hidden = []
        for begin, end in ((first, behind), (max(lowest + 1, behind), last)):
            if begin < end:
                distance = position[:, None] - torch.arange(begin, end, device=device)
                mask = distance < 0 if window is None else (distance < 0) | (distance >= window)
                hidden.append((slice(begin - first, end - first), mask * HIDDEN))
        rows = slice(first_row + start, first_row + start + len(position))
        tiles.append(_Tile(rows, slice(first, last), hidden))
    return tiles


def _heads_of(key_head: int, query_SHD: Tensor, key_SKD: Tensor) -> range:
    """The query heads that see a key head."""
    repeats = query_SHD.shape[1] // key_SKD.shape[1]
    return range(key_head * repeats, (key_head + 1) * repeats)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


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
