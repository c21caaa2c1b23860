"""Shared-prefix attention in tiles of plain matrix products: no mask larger than a tile, on any device.

On a CPU its products, by oneDNN or MKL, beat torch's flash kernel; GPUs have rl/prefix_flex.py.

A group's attention is done some heads at a time, in two parts: all its tokens attend to the prompt, the prompt's own
causally, and the branches of its tree attend causally to themselves. A tree token's two parts are merged by their
log-sum-exp.

Where a processor multiplies bfloat16 faster than float32, scores still are float32 in the forward: their factors are
bfloat16 numbers held in float32, which oneDNN may multiply as bfloat16 without loss, where the processor has such a
product. In the backward their products are bfloat16: what must not be rounded before it is small (the log-sum-exp of a
row, grad . o) goes into the product as two columns more, which saves passes over the scores as well. Elsewhere all
products are float32. A soft cap needs the bare scores in the backward too. On a GPU, one that FlexAttention does not
serve, it was never measured.

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
        wide, narrow = _wide(query_SHD), _product_dtype(query_SHD)
        query_grad, key_grad, value_grad = map(torch.empty_like, (query_SHD, key_SKD, value_SKD))
        minus_dot_HS = (output_SHD.to(wide) * grad_SHD).sum(-1).neg_().T  # -grad . o
        if narrow != wide:
            # Powers of 2 go from the probabilities to the gradient, which is exact: logarithms are near 0 then, where
            # the large probabilities of a row are, and rounded least there.
            halvings_HS = ((lse_HS - highest_HS) * LOG2_E).round_()
            doublings_HS = (-halvings_HS).exp2_()
            lse_HS, minus_dot_HS = lse_HS - halvings_HS / LOG2_E, minus_dot_HS * doublings_HS
            grad_SHD = grad_SHD * doublings_HS.T.to(narrow)[..., None]
        # What the query carries of the factor that makes its products powers of 2: all, where that rounds nothing away.
        in_query = rules.scale * LOG2_E if narrow == wide and rules.softcap is None else 1.0
        at_once = _heads_at_once(key_SKD)
        with _exact_products(query_SHD):
            for group in _groups(ctx.layout, rules.window, narrow if rules.softcap is None else wide):
                prompt, tree = group.parts
                for key_heads, query_heads in _heads(query_SHD, key_SKD, at_once):
                    key_NTE, value_NTE = (
                        _widened(_of_heads(tensor, group, key_heads), narrow) for tensor in (key_SKD, value_SKD)
                    )
                    totals = _Totals.zeros(key_NTE, group, wide)
                    for heads in query_heads:
                        lse_NT = lse_HS[heads, group.tokens]
                        query_NTE = _widened(_of_heads(query_SHD, group, heads), narrow)
                        if in_query != 1:
                            query_NTE[..., :-2].mul_(in_query)
                        _put_pieces(query_NTE, lse_NT * (in_query / -rules.scale))
                        grad_NTE = _widened(_of_heads(grad_SHD, group, heads), narrow)
                        _put_pieces(grad_NTE, minus_dot_HS[heads, group.tokens])
                        query_grad_NTD = _backward_heads(
                            query_NTE, key_NTE, value_NTE, grad_NTE, lse_NT, totals, group, rules
                        )
                        query_grad[group.tokens, heads] = query_grad_NTD.transpose(0, 1)
                    for grads, of_prompt_NDP, of_tree_NCD, scale in (
                        (key_grad, *totals.key, rules.scale / in_query),
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
    at_once, wide, narrow = _heads_at_once(key_SKD), lse_HS.dtype, _product_dtype(query_SHD)
    autocast = torch.autocast(query_SHD.device.type, enabled=False)  # which would narrow float32 products
    with autocast, _exact_products(query_SHD):
        for group in _groups(layout, rules.window, wide):
            for key_heads, query_heads in _heads(query_SHD, key_SKD, at_once):
                key_NTD = _of_heads(key_SKD, group, key_heads).to(wide, memory_format=torch.contiguous_format)
                value_NTD = _of_heads(value_SKD, group, key_heads).to(narrow, memory_format=torch.contiguous_format)
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
    query_NTE: Tensor,
    key_NTE: Tensor,
    value_NTE: Tensor,
    grad_NTE: Tensor,
    lse_NT: Tensor,
    totals: _Totals,
    group: _Group,
    rules: Rules,
) -> Tensor:
    """As `_backward`, for both parts: the gradient of the query, [N, T, D]; those of key and value go to the totals."""
    prompt = slice(0, group.prompt)
    query_grad_NTD = query_NTE.new_empty(*query_NTE.shape[:-1], query_NTE.shape[-1] - 2)
    grads = query_grad_NTD, totals.key[0], totals.value[0]
    _backward(query_NTE, key_NTE[:, prompt], value_NTE[:, prompt], grad_NTE, lse_NT, grads, group.tiles, rules)
    for branches in group.branches:
        query_BRE, key_BRE, value_BRE, lse_BR = map(branches.rows, (query_NTE, key_NTE, value_NTE, lse_NT))
        own_query_BRD = query_grad_NTD.new_empty(*query_BRE.shape[:-1], query_grad_NTD.shape[-1])
        own_key_BDR, own_value_BDR = (lse_NT.new_zeros(own_query_BRD.mT.shape) for _ in range(2))
        # A place gets its gradient in one row of the table; other rows and padding get 0: nothing flows back.
        grad_BRE = branches.put(grad_NTE)
        own = own_query_BRD, own_key_BDR, own_value_BDR
        _backward(query_BRE, key_BRE, value_BRE, grad_BRE, lse_BR, own, branches.tiles, rules)
        for total_TD, grad_CD in zip(query_grad_NTD, branches.take(own_query_BRD), strict=True):
            total_TD.index_add_(0, branches.place_C, grad_CD)  # twice as fast as one along the second dimension
        branches.add(totals.key[1], own_key_BDR)
        branches.add(totals.value[1], own_value_BDR)
    return query_grad_NTD


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
        probabilities = scores if scores.dtype == value.dtype else memory.narrow(0, *scores.shape).copy_(scores)
        weighted = torch.bmm(probabilities, _part(value, keys))
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

    From query [N, L, E] with the log-sum-exp over all keys [N, L] in pieces, key and value [N, M, E] with ones, and the
    output's gradient [N, L, E] with -grad . o in pieces. Where products are as wide as the log-sum-exp, the query comes
    with the scale, in powers of 2 (without it under a soft cap).
    """
    query_grad, key_grad, value_grad = grads
    memory = _memory(query, key, tiles)
    factor = 1.0 if query.dtype == lse.dtype else rules.scale * LOG2_E
    if rules.softcap is not None:
        wide_query, wide_key = query[..., :-2].to(lse.dtype), key[..., :-2].to(lse.dtype)
    for tile in tiles:
        rows, keys = tile.rows, tile.keys
        query_tile, key_tile = _part(query, rows), _part(key, keys)
        if rules.softcap is None:
            probabilities = memory.narrow(0, len(query), rows.stop - rows.start, keys.stop - keys.start)
            torch.bmm(query_tile, key_tile.mT, out=probabilities)
            _hide(probabilities, tile)
            if factor != 1:
                probabilities.mul_(factor)
            probabilities.exp2_()
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
        _add_product(value_grad[..., keys], _bare(grad_tile).mT, probabilities)
        _add_product(key_grad[..., keys], _bare(query_tile).mT, score_grad)
        query_grad[:, rows] = torch.bmm(score_grad, _bare(key_tile)).mul_(rules.scale)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.baddbmm_(left, right)
    else:
        total.add_(torch.bmm(left, right))


def _part(values_NTD: Tensor, rows: slice) -> Tensor:
    """[N, rows, D] without gaps, by the strides of a single batch as well."""
    return values_NTD[0, rows][None] if len(values_NTD) == 1 else _without_gaps(values_NTD[:, rows])


def _bare(part_NLE: Tensor) -> Tensor:
    """[N, L, D]: without the two columns."""
    return _without_gaps(part_NLE[..., :-2])


def _without_gaps(factor: Tensor) -> Tensor:
    """In one piece where a product asks for it: bfloat16 ones are oneDNN's, float32 ones mostly MKL's, which reads
    rows wherever they lie."""
    return factor if factor.dtype == torch.float32 else factor.contiguous()


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


def _widened(values_NTD: Tensor, dtype: torch.dtype) -> Tensor:
    """[N, T, E]: two columns more, of ones."""
    wider_NTE = values_NTD.new_empty(*values_NTD.shape[:-1], values_NTD.shape[-1] + 2, dtype=dtype)
    wider_NTE[..., :-2] = values_NTD
    wider_NTE[..., -2:] = 1
    return wider_NTE


def _put_pieces(values_NTE: Tensor, number_NT: Tensor) -> None:
    """Into the two columns, whose sum is then a number of twice their digits. Times ones they add it to a product
    before that is rounded."""
    values_NTE[..., -2] = number_NT
    values_NTE[..., -1] = number_NT - values_NTE[..., -2]


class _Memory:
    """What tiles are worked on in, used again for each: fresh pages cost as much as the arithmetic."""

    def __init__(self, elements: int, wide: torch.dtype, narrow: torch.dtype, device: torch.device) -> None:
        self._narrow = torch.empty(2, elements, dtype=narrow, device=device)
        self._wide = self._narrow[0] if wide == narrow else torch.empty(elements, dtype=wide, device=device)

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
    def zeros(cls, key_NTE: Tensor, group: _Group, dtype: torch.dtype) -> _Totals:
        heads, tokens, wider = key_NTE.shape
        prompts = key_NTE.new_zeros(2, heads, wider - 2, group.prompt, dtype=dtype)
        trees = key_NTE.new_zeros(2, heads, tokens - group.prompt, wider - 2, dtype=dtype)
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


def _product_dtype(query: Tensor) -> torch.dtype:
    """In which the tiles' products are computed: the tensors' own, or float32 where that is faster and not wider."""
    slow = query.dtype == torch.bfloat16 and query.device.type == "cpu" and not _bfloat16_is_fast()
    return torch.float32 if slow else query.dtype


@functools.cache
def _bfloat16_is_fast() -> bool:
    """Whether the processor multiplies bfloat16 matrices faster than float32 ones.

    AMD's do from AVX512-BF16 on (200 against 105 GFLOP/s on two cores), Intel's only with AMX (without it 160 against
    260); without either they are emulated. A rule, not a measurement: the same machine always computes the same.
    """
    has = torch.cpu.get_capabilities()
    if has.get("architecture") != "x86_64":
        return True  # not measured
    return bool(has["amx_bf16"] or (has["avx512_bf16"] and not has["cpu_name"].startswith("Intel")))


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


@contextmanager
def _exact_products(query: Tensor) -> Iterator[None]:
    """Let oneDNN multiply float32 matrices that hold bfloat16 numbers as bfloat16; sums stay float32."""
    if query.device.type != "cpu" or _product_dtype(query) != torch.bfloat16:
        yield
        return
    matmul = cast(Any, torch.backends).mkldnn.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
