"""Shared-prefix attention in tiles of plain matrix products: no mask larger than a tile, on any device.

On a CPU its products, by oneDNN, beat torch's flash kernel; GPUs have rl/prefix_flex.py.

A group's attention is done some heads at a time, in two parts: all its tokens attend to the prompt, the prompt's own
causally, and the branches of its tree attend causally to themselves. A tree token's two parts are merged by their
log-sum-exp.

Scores stay float32 in the forward: their factors are bfloat16 numbers held in float32, which oneDNN may multiply as
bfloat16 without loss, where the processor has such a product. In the backward their products are bfloat16, which is
twice as fast: what must not be rounded before it is small (the log-sum-exp of a row, grad . o) goes into the product as
two columns more. A soft cap needs the bare scores there too. On a GPU, one that FlexAttention does not serve, it was
never measured.

Shapes: S packed tokens, H query heads, K key heads (H = K x Q), D head dimension, E = D + 2; of a group T tokens, of
which P are its prompt and C its tree; of its branches B rows of the table of paths and R places in one. N heads at a
time, or heads x branches; of a part L query rows and M keys.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from rl.prefix_layout import PrefixLayout
from rl.recompute import computed_once

TILE_ELEMENTS = {"cpu": 2**20, "cuda": 2**22}
"""Scores of a head worked on at a time: few enough for the cache, enough that a call costs little beside its work."""
MIN_ROWS, ROW_BLOCK = 32, 64
"""Query rows of a tile: at least so many, and whole blocks where there are more."""
MAX_CAUSAL_ROWS = {"cpu": 384, "cuda": 1024}
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
        tensors = query_SHD, key_SKD, value_SKD
        given = computed_once(lambda: _attend(*tensors, layout, rules))
        ctx.save_for_backward(*tensors, *given)
        ctx.layout, ctx.rules = layout, rules
        return given[0]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query_SHD, key_SKD, value_SKD, output_SHD, lse_HS, highest_HS = ctx.saved_tensors
        rules, (grad_SHD,) = ctx.rules, grad_outputs
        wide = _wide(query_SHD)
        query_grad, key_grad, value_grad = map(torch.empty_like, (query_SHD, key_SKD, value_SKD))
        # Powers of 2 go from the probabilities to the gradient, which is exact: logarithms are near 0 then, where the
        # large probabilities of a row are, and rounded least there.
        halvings_HS = ((lse_HS - highest_HS) * LOG2_E).round()
        lse_HS, doublings_HS = lse_HS - halvings_HS / LOG2_E, (-halvings_HS).exp2().to(grad_SHD.dtype)
        minus_dot_HS = (output_SHD.to(wide) * grad_SHD).sum(-1).neg_().T  # -grad . o
        at_once = _heads_at_once(key_SKD)
        with _exact_products(query_SHD):
            for group in _groups(ctx.layout, rules.window, query_SHD.dtype if rules.softcap is None else wide):
                prompt, tree = group.parts
                for key_heads, query_heads in _heads(query_SHD, key_SKD, at_once):
                    key_NTD = _of_heads(key_SKD, group, key_heads).contiguous()
                    value_NTE = _with_ones(_of_heads(value_SKD, group, key_heads))
                    totals = _Totals.zeros(key_NTD, group, wide)
                    for heads in query_heads:
                        doublings_NT = doublings_HS[heads, group.tokens]
                        grad_NTD = _of_heads(grad_SHD, group, heads) * doublings_NT[..., None]
                        _backward_heads(
                            _of_heads(query_SHD, group, heads).contiguous(),
                            key_NTD,
                            value_NTE,
                            _with_pieces(grad_NTD, minus_dot_HS[heads, group.tokens] * doublings_NT),
                            lse_HS[heads, group.tokens],
                            (_of_heads(query_grad, group, heads), totals),
                            group,
                            rules,
                        )
                    for grads, of_prompt_NDP, of_tree_NCD, scale in (
                        (key_grad, *totals.key, rules.scale),
                        (value_grad, *totals.value, 1.0),
                    ):
                        grads[prompt, key_heads] = of_prompt_NDP.mul_(scale).permute(2, 0, 1)
                        grads[tree, key_heads] = of_tree_NCD.mul_(scale).transpose(0, 1)
        return query_grad, key_grad, value_grad, None, None


def _attend(
    query_SHD: Tensor, key_SKD: Tensor, value_SKD: Tensor, layout: PrefixLayout, rules: Rules
) -> tuple[Tensor, Tensor, Tensor]:
    """Output [S, H, D], and of all scores of a row the log-sum-exp and the highest, [H, S], float32 or wider."""
    tokens, count, _ = query_SHD.shape
    output_SHD = torch.empty_like(query_SHD, memory_format=torch.contiguous_format)
    lse_HS = query_SHD.new_empty(count, tokens, dtype=_wide(query_SHD))
    highest_HS = torch.empty_like(lse_HS)
    at_once, wide = _heads_at_once(key_SKD), lse_HS.dtype
    with _exact_products(query_SHD):
        for group in _groups(layout, rules.window, wide):
            for key_heads, query_heads in _heads(query_SHD, key_SKD, at_once):
                key_NTD = _of_heads(key_SKD, group, key_heads).to(wide, memory_format=torch.contiguous_format)
                value_NTD = _of_heads(value_SKD, group, key_heads).contiguous()
                for heads in query_heads:
                    query_NTD = _of_heads(query_SHD, group, heads).to(wide, memory_format=torch.contiguous_format)
                    output_NTD, lse_NT, highest_NT = _forward_heads(query_NTD, key_NTD, value_NTD, group, rules)
                    output_SHD[group.tokens, heads] = output_NTD.transpose(0, 1)
                    lse_HS[heads, group.tokens], highest_HS[heads, group.tokens] = lse_NT, highest_NT
    return output_SHD, lse_HS, highest_HS


def _forward_heads(
    query_NTD: Tensor, key_NTD: Tensor, value_NTD: Tensor, group: _Group, rules: Rules
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_forward`, for both parts: [N, T, D], [N, T], [N, T]."""
    key_NPD, value_NPD = (tensor[:, : group.prompt] for tensor in (key_NTD, value_NTD))
    output_NTD, lse_NT, highest_NT = _forward(query_NTD, key_NPD, value_NPD, group.tiles, rules)
    for branches in group.branches:
        query_BRD, key_BRD, value_BRD = map(branches.rows, (query_NTD, key_NTD, value_NTD))
        own = _forward(query_BRD, key_BRD, value_BRD, branches.tiles, rules)
        own_output, own_lse, own_highest = map(branches.take, own)
        places_C = branches.place_C
        prompt_lse = lse_NT[:, places_C]
        merged_lse = torch.logaddexp(prompt_lse, own_lse)
        share = (prompt_lse - merged_lse).exp_()[..., None]
        output_NTD[:, places_C] = torch.lerp(own_output, output_NTD.index_select(1, places_C), share)
        lse_NT[:, places_C] = merged_lse
        highest_NT[:, places_C] = torch.maximum(highest_NT[:, places_C], own_highest)
    return output_NTD, lse_NT, highest_NT


def _backward_heads(
    query_NTD: Tensor,
    key_NTD: Tensor,
    value_NTE: Tensor,
    grad_NTE: Tensor,
    lse_NT: Tensor,
    grads: tuple[Tensor, _Totals],
    group: _Group,
    rules: Rules,
) -> None:
    """As `_backward`, for both parts; with the gradient of the query, [N, T, D], and the totals of key and value."""
    prompt, (query_grad_NTD, totals) = slice(0, group.prompt), grads
    _backward(
        query_NTD,
        key_NTD[:, prompt],
        value_NTE[:, prompt],
        grad_NTE,
        lse_NT,
        (query_grad_NTD, totals.key[0], totals.value[0]),
        group.tiles,
        rules,
    )
    for branches in group.branches:
        query_BRD, key_BRD, value_BRE, lse_BR = map(branches.rows, (query_NTD, key_NTD, value_NTE, lse_NT))
        own_key_BDR, own_value_BDR = (torch.zeros_like(key_BRD.mT, dtype=lse_NT.dtype) for _ in range(2))
        own_query_BRD = torch.empty_like(query_BRD)
        # A place gets its gradient in one row of the table; other rows and padding get 0: nothing flows back.
        grad_BRE = branches.put(grad_NTE)
        own = own_query_BRD, own_key_BDR, own_value_BDR
        _backward(query_BRD, key_BRD, value_BRE, grad_BRE, lse_BR, own, branches.tiles, rules)
        query_grad_NTD.index_add_(1, branches.place_C, branches.take(own_query_BRD))
        branches.add(totals.key[1], own_key_BDR)
        branches.add(totals.value[1], own_value_BDR)


def _forward(
    query: Tensor, key: Tensor, value: Tensor, tiles: list[_Tile], rules: Rules
) -> tuple[Tensor, Tensor, Tensor]:
    """Of query [N, L, D] and key [N, M, D], float32 or wider, and value [N, M, D]: output [N, L, D], and of the scores
    of a row the log-sum-exp and the highest, [N, L]; all as wide as the query."""
    output, lse = torch.empty_like(query), query.new_empty(query.shape[:-1])
    peak = torch.empty_like(lse)
    memory = _memory(value, key, tiles)
    for tile in tiles:
        rows, keys = tile.rows, tile.keys
        scores, factor = _scores(query, key, tile, rules, memory)
        highest = scores.amax(-1, keepdim=True).clamp_(min=LOWEST)
        torch.add(highest * -factor, scores, alpha=factor, out=scores).exp2_()
        total = scores.sum(-1, keepdim=True).clamp_(min=1e-30)
        weighted = torch.bmm(memory.narrow(0, *scores.shape).copy_(scores), _part(value, keys))
        torch.div(weighted, total, out=output[:, rows])
        peak[:, rows, None] = highest.mul_(factor / LOG2_E)
        torch.add(total.log_(), highest, out=lse[:, rows, None])
    return output, lse, peak


def _backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grad: Tensor,
    lse: Tensor,
    grads: tuple[Tensor, Tensor, Tensor],
    tiles: list[_Tile],
    rules: Rules,
) -> None:
    """Into `grads`: the gradient of the query, [N, L, D]; added there those of key (but for the scale) and value,
    [N, D, M], float32 or wider.

    From query [N, L, D] and key [N, M, D], the value `_with_ones`, [N, M, E], the output's gradient with -grad . o in
    pieces, [N, L, E], and the log-sum-exp over all keys, [N, L].
    """
    query_grad, key_grad, value_grad = grads
    memory = _memory(query, key, tiles)
    factor = rules.scale * LOG2_E
    if rules.softcap is None:
        query_E, key_E = _with_pieces(query, lse / -rules.scale), _with_ones(key)
    else:
        wide_query, wide_key = query.to(lse.dtype), key.to(lse.dtype)
    for tile in tiles:
        rows, keys = tile.rows, tile.keys
        if rules.softcap is None:
            probabilities = memory.narrow(0, len(query), rows.stop - rows.start, keys.stop - keys.start)
            torch.bmm(_part(query_E, rows), _part(key_E, keys).mT, out=probabilities)
            _hide(probabilities, tile)
            probabilities.mul_(factor).exp2_()
        else:
            scores, factor = _scores(wide_query, wide_key, tile, rules, memory)
            slope = 1 - (scores / rules.softcap).square_().clamp_(max=1)
            torch.add(lse[:, rows, None] * -LOG2_E, scores, alpha=factor, out=scores).exp2_()
            probabilities = memory.narrow(0, *scores.shape).copy_(scores)
        grad_tile = _part(grad, rows)
        score_grad = memory.narrow(1, *probabilities.shape)
        torch.bmm(grad_tile, _part(value, keys).mT, out=score_grad)
        score_grad.mul_(probabilities)
        if rules.softcap is not None:
            score_grad.mul_(slope)
        # Keys last, so that the products read the large factor as it lies.
        value_grad[..., keys].add_(torch.bmm(grad_tile[..., :-2].contiguous().mT, probabilities))
        key_grad[..., keys].add_(torch.bmm(_part(query, rows).mT, score_grad))
        query_grad[:, rows] = torch.bmm(score_grad, _part(key, keys)).mul_(rules.scale)


def _part(values_NTD: Tensor, rows: slice) -> Tensor:
    """[N, rows, D] in one piece by its strides too, of which a product of batches asks that of one batch as well."""
    return values_NTD[0, rows][None] if len(values_NTD) == 1 else values_NTD[:, rows].contiguous()


def _scores(wide_query: Tensor, wide_key: Tensor, tile: _Tile, rules: Rules, memory: _Memory) -> tuple[Tensor, float]:
    """([N, rows, keys] scores, the factor that is still to be applied, in powers of 2)"""
    query, key = _part(wide_query, tile.rows), _part(wide_key, tile.keys)
    scores = memory.wide(*query.shape[:-1], key.shape[-2])
    torch.bmm(query, key.mT, out=scores)
    factor = rules.scale
    if rules.softcap is not None:
        scores.mul_(rules.scale / rules.softcap).tanh_().mul_(rules.softcap)
        factor = 1.0
    _hide(scores, tile)
    return scores, factor * LOG2_E


def _hide(scores: Tensor, tile: _Tile) -> None:
    for columns, mask in tile.hidden:
        scores[..., columns].add_(mask)


def _with_pieces(values_NTD: Tensor, number_NT: Tensor) -> Tensor:
    """[N, T, E]: two columns more, whose sum is a number of twice their digits. Times a column of ones (`_with_ones`)
    they add it to a product before that is rounded."""
    wider_NTE = _with_ones(values_NTD)
    wider_NTE[..., -2] = number_NT
    wider_NTE[..., -1] = number_NT - wider_NTE[..., -2]
    return wider_NTE


def _with_ones(values_NTD: Tensor) -> Tensor:
    """[N, T, E]"""
    wider_NTE = values_NTD.new_empty(*values_NTD.shape[:-1], values_NTD.shape[-1] + 2)
    wider_NTE[..., :-2] = values_NTD
    wider_NTE[..., -2:] = 1
    return wider_NTE


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


def _memory(narrow: Tensor, key: Tensor, tiles: list[_Tile]) -> _Memory:
    """Memory for the tiles; on the CPU that of the tiles before, where it is large enough."""
    device = narrow.device
    elements = len(key) * key.shape[-2] * max(tile.rows.stop - tile.rows.start for tile in tiles)
    dtypes = _wide(narrow), narrow.dtype
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
    prompt: int
    place_C: Tensor
    choice_C: Tensor
    tiles: list[_Tile]

    def rows(self, values_NT: Tensor) -> Tensor:
        """[N, T, ...] to [N x B, R, ...]"""
        rows = values_NT.index_select(1, self.path_BR.flatten())
        return rows.view(-1, self.path_BR.shape[1], *values_NT.shape[2:])

    def take(self, table_BR: Tensor) -> Tensor:
        """[N x B, R, ...] to [N, C, ...]"""
        return self._flat(table_BR).index_select(1, self.choice_C)

    def put(self, values_NT: Tensor) -> Tensor:
        """[N, T, ...] to [N x B, R, ...], each token in its one place, 0 elsewhere."""
        table = values_NT.new_zeros(len(values_NT), self.path_BR.numel(), *values_NT.shape[2:])
        table[:, self.choice_C] = values_NT.index_select(1, self.place_C)
        return table.view(-1, self.path_BR.shape[1], *values_NT.shape[2:])

    def add(self, totals_NCD: Tensor, table_BDR: Tensor) -> None:
        """To totals of the tree's tokens what every place of the table gives, [N x B, D, R]."""
        places = self.path_BR.flatten() - self.prompt
        for total_CD, table in zip(totals_NCD, self._flat(table_BDR.mT), strict=True):
            total_CD.index_add_(0, places, table)  # twice as fast as one along the second dimension

    def _flat(self, table_BR: Tensor) -> Tensor:
        return table_BR.reshape(-1, self.path_BR.numel(), *table_BR.shape[2:])


@dataclass(frozen=True, slots=True)
class _Group:
    """Where a group's tokens are in the packed sequence, and the tiles of its two parts."""

    tokens: slice
    prompt: int
    tiles: list[_Tile]
    """Of all tokens on the prompt."""
    branches: list[_Branches]

    @property
    def parts(self) -> tuple[slice, slice]:
        """The places of prompt and tree in the packed sequence."""
        split = self.tokens.start + self.prompt
        return slice(self.tokens.start, split), slice(split, self.tokens.stop)


@dataclass(frozen=True, slots=True)
class _Totals:
    """Gradients of a group's keys and values, each [N, D, P] of the prompt and [N, C, D] of the tree."""

    key: tuple[Tensor, Tensor]
    value: tuple[Tensor, Tensor]

    @classmethod
    def zeros(cls, key_NTD: Tensor, group: _Group, dtype: torch.dtype) -> _Totals:
        heads, tokens, size = key_NTD.shape
        prompts = key_NTD.new_zeros(2, heads, size, group.prompt, dtype=dtype)
        trees = key_NTD.new_zeros(2, heads, tokens - group.prompt, size, dtype=dtype)
        return cls((prompts[0], trees[0]), (prompts[1], trees[1]))


def _groups(layout: PrefixLayout, window: int | None, dtype: torch.dtype) -> Iterator[_Group]:
    """With masks of this type."""
    longest = layout.path_NR.shape[1]
    first_row = 0
    for span in layout.spans:
        position_T = layout.position_S[span.start : span.stop]
        tiles = _causal_tiles(span.prompt, 1, window, position_T.device, dtype)
        tiles += _tree_tiles(position_T, span.prompt, window, dtype)
        size = max(TILE_ELEMENTS[position_T.device.type] // max(longest, 1) ** 2, 1)
        branches = []
        for row in range(first_row, first_row + span.rows, size):
            path_BR = layout.path_NR[row : min(row + size, first_row + span.rows)] - span.start
            here = (layout.choice_C >= row * longest) & (layout.choice_C < (row + len(path_BR)) * longest)
            place_C, choice_C = layout.place_C[here] - span.start, layout.choice_C[here] - row * longest
            own_tiles = _causal_tiles(longest, len(path_BR), window, position_T.device, dtype)
            branches.append(_Branches(path_BR, span.prompt, place_C, choice_C, own_tiles))
        yield _Group(slice(span.start, span.stop), span.prompt, tiles, branches)
        first_row += span.rows


def _causal_tiles(
    length: int, branches: int, window: int | None, device: torch.device, dtype: torch.dtype
) -> list[_Tile]:
    """Of so many tokens on themselves, in so many branches at a time."""
    tiles = []
    size = min(_rows_of_a_tile(branches * length, device), MAX_CAUSAL_ROWS[device.type])
    for start in range(0, length, size):
        stop = min(start + size, length)
        first = 0 if window is None else max(start - window + 1, 0)
        behind = first if window is None else max(stop - window, first)
        hidden = [
            (
                slice(begin - first, end - first),
                _causal_mask(stop - start, end - begin, start - begin, window, device, dtype),
            )
            for begin, end in ((first, behind), (max(start + 1, behind), stop))
            if begin < end
        ]
        tiles.append(_Tile(slice(start, stop), slice(first, stop), hidden))
    return tiles


def _tree_tiles(position_T: Tensor, prompt: int, window: int | None, dtype: torch.dtype) -> list[_Tile]:
    """Of the tokens behind the prompt on the prompt."""
    tiles = []
    size, length = _rows_of_a_tile(prompt, position_T.device), len(position_T)
    for start in range(prompt, length, size):
        rows = slice(start, min(start + size, length))
        if window is None:
            tiles.append(_Tile(rows, slice(0, prompt), []))
            continue
        position_L = position_T[rows]
        lowest, highest = (int(place) for place in position_L.aminmax())
        # A window that has moved past all keys: one key, hidden, keeps the shapes.
        first = min(max(lowest - window + 1, 0), prompt - 1)
        behind = min(max(highest - window + 1, first), prompt)
        distance = position_L[:, None] - torch.arange(first, behind, device=position_L.device)
        tiles.append(_Tile(rows, slice(first, prompt), [(slice(0, behind - first), _mask(distance, window, dtype))]))
    return tiles


def _rows_of_a_tile(scores: int, device: torch.device) -> int:
    """Of so many scores a row; whole blocks of the products' kernels."""
    rows = max(TILE_ELEMENTS[device.type] // max(scores, 1), 1)
    return rows // ROW_BLOCK * ROW_BLOCK or max(rows, MIN_ROWS)


@functools.lru_cache(maxsize=16)
def _causal_mask(
    rows: int, keys: int, offset: int, window: int | None, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Of a first row that stands `offset` places behind the first key."""
    places = torch.arange(max(rows, keys), device=device)
    return _mask(offset + places[:rows, None] - places[:keys], window, dtype)


def _mask(distance: Tensor, window: int | None, dtype: torch.dtype) -> Tensor:
    """What to add to scores of a query so far behind a key."""
    hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
    return (hidden * HIDDEN).to(dtype)


def _heads_at_once(key_SKD: Tensor) -> int:
    """Key heads worked on at a time: on a CPU one a thread, which keeps it in its cache."""
    heads = key_SKD.shape[1]
    return min(torch.get_num_threads(), heads) if key_SKD.device.type == "cpu" else heads


def _heads(query_SHD: Tensor, key_SKD: Tensor, at_once: int) -> Iterator[tuple[slice, list[slice]]]:
    """Key heads, and the query heads that see them: one for each of the key heads, as often as there are."""
    heads = key_SKD.shape[1]
    repeats = query_SHD.shape[1] // heads
    for first in range(0, heads, at_once):
        last = min(first + at_once, heads) - 1
        yield (
            slice(first, last + 1),
            [slice(first * repeats + each, last * repeats + each + 1, repeats) for each in range(repeats)],
        )


def _of_heads(values_SHD: Tensor, group: _Group, heads: slice) -> Tensor:
    """[N, T, D], not in one piece."""
    return values_SHD[group.tokens, heads].transpose(0, 1)


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
