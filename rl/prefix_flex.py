"""Shared-prefix attention on GPUs of compute capability 8 and up: FlexAttention with a block mask of the tree.

Its mask and its numbers are tested on the CPU, where FlexAttention runs uncompiled; it was never run on a GPU. The
check at first use (rl/policy.py) stands before it, and a fault there falls back to the plain forward.

Shapes: S packed tokens, H query heads, K key heads, D head dimension.
"""

import functools
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

from rl.prefix_layout import PrefixLayout, subtree_ends
from rl.prompt_attention import Rules

_MASKS_KEPT = 8
_masks: "OrderedDict[tuple[int, int | None], tuple[PrefixLayout, Any]]" = OrderedDict()


def flex_attention_is_there(device: torch.device) -> bool:
    """Whether FlexAttention has kernels for this device."""
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def flexible_attention(
    query_SHD: Tensor, key_SKD: Tensor, value_SKD: Tensor, layout: PrefixLayout, rules: Rules
) -> Tensor:
    """As rl.prefix_attention.tiled_attention. Returns [S, H, D]; gradients flow."""
    query, key, value = (tensor.transpose(0, 1).unsqueeze(0) for tensor in (query_SHD, key_SKD, value_SKD))
    softcap = rules.softcap

    def capped(score: Tensor, *_: Tensor) -> Tensor:
        assert softcap is not None
        return softcap * torch.tanh(score / softcap)

    output: Tensor = _kernel(query.device.type)(
        query,
        key,
        value,
        score_mod=None if softcap is None else capped,
        block_mask=_block_mask(layout, rules.window, query.device),
        scale=rules.scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output[0].transpose(0, 1)


def _block_mask(layout: PrefixLayout, window: int | None, device: torch.device) -> Any:
    """Made once for all layers of a forward; the layout is kept with it, so that its id stays its own."""
    from torch.nn.attention.flex_attention import create_block_mask

    name = id(layout), window
    if name in _masks:
        return _masks[name][1]
    order_S, end_S = (tensor.to(device) for tensor in subtree_ends(layout))
    position_S = layout.position_S.to(device)
    length = position_S.numel()
    # A tensor, and always there: one compiled kernel serves layers with a window and layers without.
    reach = torch.tensor(length if window is None else window, device=device)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        on_the_way = (order_S[key] <= order_S[query]) & (order_S[query] < end_S[key])
        return on_the_way & (position_S[query] - position_S[key] < reach)

    mask = create_block_mask(sees, None, None, length, length, device=str(device), _compile=device.type == "cuda")
    _masks[name] = layout, mask
    while len(_masks) > _MASKS_KEPT:
        _masks.popitem(last=False)
    return mask


@functools.cache
def _kernel(device_type: str) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    if device_type != "cuda":
        return flex_attention
    # Past the limit a call runs uncompiled, which makes the whole S x S scores: types, gradients and lengths need more.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    return torch.compile(flex_attention, dynamic=True)
