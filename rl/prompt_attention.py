"""Attention of all tokens of a group to its prompt, the prompt's own causally, in tiles of matrix products.

On a CPU the products, by oneDNN or MKL, beat torch's flash kernel. Some heads at a time.

Where a processor multiplies bfloat16 faster than float32, scores still are float32 in the forward: their factors are
bfloat16 numbers held in float32, which oneDNN may multiply as bfloat16 without loss, where the processor has such a
product. In the backward their products are bfloat16: what must not be rounded before it is small (the log-sum-exp of a
row, grad . o) goes into the product as two columns more, which saves passes over the scores as well. Elsewhere all
products are float32. A soft cap needs the bare scores in the backward too.

Shapes: T tokens of a group, of which P are its prompt and C its tree; H query heads, K key heads (H = K x Q), D head
dimension, E = D + 2; N heads at a time; of a tile L query rows and M keys.
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

from rl import processor

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


@dataclass(frozen=True, slots=True)
class _Tile:
    """Query rows, the keys that one of them sees, and which of these to hide from which row."""

    rows: slice
    keys: slice
    hidden: list[tuple[slice, Tensor]]
    """Columns, and what is added to their scores; every row sees the others."""


def attend_prompt(
    query_THD: Tensor,
    key_PKD: Tensor,
    value_PKD: Tensor,
    own_output_CHD: Tensor,
    own_lse_CH: Tensor,
    position_T: Tensor,
    rules: Rules,
) -> tuple[Tensor, Tensor, Tensor]:
    """Of all tokens on the prompt, merged with `own_...`, what the tree's tokens saw of the tree: output [T, H, D], and
    [T, H], float32 or wider, the log-sum-exp of all scores of a row and the highest of those on the prompt."""
    prompt, wide, narrow = len(key_PKD), wide_dtype(query_THD), product_dtype(query_THD)
    output_THD = torch.empty_like(query_THD, memory_format=torch.contiguous_format)
    lse_HT, highest_HT = query_THD.new_empty(2, query_THD.shape[1], len(query_THD), dtype=wide)
    tiles = _tiles(position_T, prompt, rules.window, wide)
    with _exact_products(query_THD):
        for key_heads, query_heads in _heads(query_THD, key_PKD):
            key_NPD, value_NPD = _of_heads(key_PKD, key_heads, wide), _of_heads(value_PKD, key_heads, narrow)
            for heads in query_heads:
                output_NTD, lse_NT, highest_HT[heads] = _forward(
                    _of_heads(query_THD, heads, wide), key_NPD, value_NPD, tiles, rules
                )
                own_NCD, own_lse_NC = _of_heads(own_output_CHD, heads, wide), own_lse_CH[:, heads].T
                merged_NC = torch.logaddexp(lse_NT[:, prompt:], own_lse_NC)
                output_NTD[:, prompt:].lerp_(own_NCD, (own_lse_NC - merged_NC).exp_()[..., None])
                lse_NT[:, prompt:] = merged_NC
                output_THD[:, heads], lse_HT[heads] = output_NTD.transpose(0, 1), lse_NT
    return output_THD, lse_HT.T, highest_HT.T


def backward_prompt(
    query_THD: Tensor,
    key_PKD: Tensor,
    value_PKD: Tensor,
    output_THD: Tensor,
    lse_TH: Tensor,
    highest_TH: Tensor,
    grad_THD: Tensor,
    position_T: Tensor,
    rules: Rules,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query [T, H, D], key and value [P, K, D]: what flows through the prompt, of the output and
    log-sum-exp of both parts together."""
    wide, narrow = wide_dtype(query_THD), product_dtype(query_THD)
    lse_HT, minus_dot_HT = lse_TH.T, (output_THD.to(wide) * grad_THD).sum(-1).neg_().T  # -grad . o
    if narrow != wide:
        # Powers of 2 go from the probabilities to the gradient, which is exact: logarithms are near 0 then, where the
        # large probabilities of a row are, and rounded least there.
        halvings_HT = ((lse_HT - highest_TH.T) * LOG2_E).round_()
        doublings_HT = (-halvings_HT).exp2_()
        lse_HT, minus_dot_HT = lse_HT - halvings_HT / LOG2_E, minus_dot_HT * doublings_HT
        grad_THD = grad_THD * doublings_HT.T.to(narrow)[..., None]
    # What the query carries of the factor that makes its products powers of 2: all, where it has digits left for that.
    in_query = rules.scale * LOG2_E if narrow != query_THD.dtype and rules.softcap is None else 1.0
    tiles = _tiles(position_T, len(key_PKD), rules.window, narrow if rules.softcap is None else wide)
    query_grad_THD, key_grad_PKD, value_grad_PKD = map(torch.empty_like, (query_THD, key_PKD, value_PKD))
    with _exact_products(query_THD):
        for key_heads, query_heads in _heads(query_THD, key_PKD):
            key_NPE, value_NPE = (_widened(values, key_heads, narrow) for values in (key_PKD, value_PKD))
            key_total_NDP, value_total_NDP = lse_HT.new_zeros(2, *key_NPE[..., :-2].mT.shape)
            for heads in query_heads:
                query_NTE, grad_NTE = (_widened(values, heads, narrow) for values in (query_THD, grad_THD))
                if in_query != 1:
                    query_NTE[..., :-2].mul_(in_query)
                _put_pieces(query_NTE, lse_HT[heads] * (in_query / -rules.scale))
                _put_pieces(grad_NTE, minus_dot_HT[heads])
                query_grad_NTD = query_NTE.new_empty(query_NTE[..., :-2].shape)
                grads = query_grad_NTD, key_total_NDP, value_total_NDP
                factor = rules.scale * LOG2_E / in_query
                _backward(query_NTE, key_NPE, value_NPE, grad_NTE, lse_HT[heads], factor, grads, tiles, rules)
                query_grad_THD[:, heads] = query_grad_NTD.transpose(0, 1)
            key_grad_PKD[:, key_heads] = key_total_NDP.mul_(rules.scale / in_query).permute(2, 0, 1)
            value_grad_PKD[:, key_heads] = value_total_NDP.permute(2, 0, 1)
    return query_grad_THD, key_grad_PKD, value_grad_PKD


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
    factor: float,
    grads: tuple[Tensor, Tensor, Tensor],
    tiles: list[_Tile],
    rules: Rules,
) -> None:
    """Into `grads`: the gradient of the query, [N, L, D]; added there those of key (but for the scale) and value,
    [N, D, M], float32 or wider.

    From query [N, L, E] with the log-sum-exp over all keys [N, L] in pieces, key and value [N, M, E] with ones, and the
    output's gradient [N, L, E] with -grad . o in pieces. `factor` makes a product of query and key a power of 2.
    """
    query_grad, key_grad, value_grad = grads
    memory = _memory(query, key, tiles)
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


def _widened(values_LHD: Tensor, heads: slice, dtype: torch.dtype) -> Tensor:
    """[N, L, E], the heads' values and two columns more, of ones."""
    values_NLD = values_LHD[:, heads].transpose(0, 1)
    wider_NLE = values_LHD.new_empty(*values_NLD.shape[:-1], values_NLD.shape[-1] + 2, dtype=dtype)
    wider_NLE[..., :-2], wider_NLE[..., -2:] = values_NLD, 1
    return wider_NLE


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


def forget_memory() -> None:
    """Give the memory of this thread's tiles back, which otherwise stays for the next ones."""
    vars(_kept).clear()


def _memory(narrow: Tensor, key: Tensor, tiles: list[_Tile]) -> _Memory:
    """Memory for the tiles; on the CPU that of the tiles before, where it is large enough."""
    device = narrow.device
    elements = len(key) * key.shape[-2] * max(tile.rows.stop - tile.rows.start for tile in tiles)
    dtypes = wide_dtype(narrow), narrow.dtype
    if device.type != "cpu":
        return _Memory(elements, *dtypes, device)
    if getattr(_kept, "elements", 0) < elements or _kept.dtypes != dtypes:
        _kept.elements, _kept.dtypes, _kept.memory = elements, dtypes, _Memory(elements, *dtypes, device)
    return cast(_Memory, _kept.memory)


def _tiles(position_T: Tensor, prompt: int, window: int | None, dtype: torch.dtype) -> list[_Tile]:
    """Of a group's tokens on its prompt, with masks of this type."""
    causal = _causal_tiles(prompt, window, position_T.device, dtype)
    return causal + _tree_tiles(position_T, prompt, window, dtype)


def _causal_tiles(length: int, window: int | None, device: torch.device, dtype: torch.dtype) -> list[_Tile]:
    """Of so many tokens on themselves."""
    tiles = []
    size = min(_rows_of_a_tile(length, device), MAX_CAUSAL_ROWS[device.type])
    for start in range(0, length, size):
        stop = min(start + size, length)
        first = 0 if window is None else max(start - window + 1, 0)
        behind = first if window is None else max(stop - window, first)
        hidden = [
            (
                slice(begin - first, end - first),
                causal_mask(stop - start, end - begin, start - begin, window, device, dtype),
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
def causal_mask(
    rows: int, keys: int, offset: int, window: int | None, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Of a first row that stands `offset` places behind the first key."""
    places = torch.arange(max(rows, keys), device=device)
    return _mask(offset + places[:rows, None] - places[:keys], window, dtype)


def _mask(distance: Tensor, window: int | None, dtype: torch.dtype) -> Tensor:
    """What to add to scores of a query so far behind a key."""
    hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
    return (hidden * HIDDEN).to(dtype)


def _heads(query_THD: Tensor, key_PKD: Tensor) -> Iterator[tuple[slice, list[slice]]]:
    """Key heads, and the query heads that see them: one for each of the key heads, as often as there are."""
    heads, at_once = key_PKD.shape[1], _heads_at_once(key_PKD)
    repeats = query_THD.shape[1] // heads
    for first in range(0, heads, at_once):
        last = min(first + at_once, heads) - 1
        yield (
            slice(first, last + 1),
            [slice(first * repeats + each, last * repeats + each + 1, repeats) for each in range(repeats)],
        )


def _heads_at_once(key_PKD: Tensor) -> int:
    """Key heads worked on at a time: on a CPU one a thread, which keeps it in its cache."""
    heads = key_PKD.shape[1]
    return min(torch.get_num_threads(), heads) if key_PKD.device.type == "cpu" else heads


def _of_heads(values_LHD: Tensor, heads: slice, dtype: torch.dtype) -> Tensor:
    """[N, L, D], in one piece."""
    return values_LHD[:, heads].transpose(0, 1).to(dtype, memory_format=torch.contiguous_format)


def product_dtype(query: Tensor) -> torch.dtype:
    """In which attention multiplies: the tensors' own dtype, or float32 where that is faster than their bfloat16."""
    slow = query.dtype == torch.bfloat16 and query.device.type == "cpu" and not processor.multiplies_bfloat16_faster()
    return torch.float32 if slow else query.dtype


def wide_dtype(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


@contextmanager
def _exact_products(query: Tensor) -> Iterator[None]:
    """Let oneDNN multiply float32 matrices that hold bfloat16 numbers as bfloat16; sums stay float32."""
    if query.device.type != "cpu" or product_dtype(query) != torch.bfloat16:
        yield
        return
    matmul = cast(Any, torch.backends).mkldnn.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
