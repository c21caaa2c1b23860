"""Attention for packed groups: the prompt once, then its completions, each of which sees the prompt and its own past.

Registered with transformers as an attention function, so that it serves any decoder: the model gets the packed
sequence, explicit position ids and `prefix_layout=...`, which it hands down to every attention layer. Without a layout
it is plain SDPA.

Shapes: S packed tokens, H query heads, K key heads, D head dimension.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rewards.errors import ConfigError
from rl.prefix_attention import tiled_attention
from rl.prefix_flex import flex_attention_is_there, flexible_attention
from rl.prefix_layout import PrefixLayout
from rl.prompt_attention import Rules

ATTENTION_NAME = "offramp_shared_prefix"


@dataclass(slots=True)
class Windows:
    """How far a packed forward's tokens should see, by the masks that the model asked for, and what attention was told.

    The masks are not made, so that a window which stands in them alone hides nothing.
    """

    masked: set[int] = field(default_factory=set)
    told: set[int] = field(default_factory=set)

    def longest_packed(self) -> int | None:
        """Tokens of a sequence up to which no such window hides anything; None without one."""
        return min(self.masked - self.told, default=None)


_packed: ContextVar[Windows | None] = ContextVar("packed", default=None)


class UnsupportedAttention(NotImplementedError):
    """The architecture asks for something that the shared-prefix attention does not do."""


@contextmanager
def packed_sequence() -> Iterator[Windows]:
    """Within it the model makes no mask: the layout says who sees whom."""
    windows = Windows()
    token = _packed.set(windows)
    try:
        yield windows
    finally:
        _packed.reset(token)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    prefix_layout: PrefixLayout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """transformers' attention function: query [1, H, S, D], key and value [1, K, S, D], output [1, S, H, D].

    Raises UnsupportedAttention for attention sinks, position biases, dropout and values of a size of their own, and
    ConfigError for sinks where there is no layout: no other forward is left.
    """
    if prefix_layout is None and kwargs.get("s_aux") is not None:
        raise ConfigError(f"model.path: {type(module).__name__} has attention sinks, which SDPA has not; train another")
    if prefix_layout is None and kwargs.get("softcap"):
        return _capped_attention(query, key, value, attention_mask, kwargs["scaling"], kwargs["softcap"]), None
    if prefix_layout is None:
        return cast(
            tuple[Tensor, Tensor | None],
            sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs),
        )
    for name in ("s_aux", "dropout", "position_bias"):
        setting = kwargs.get(name)
        if setting is not None and (isinstance(setting, Tensor) or setting):
            raise UnsupportedAttention(f"{type(module).__name__} uses {name}")
    if query.shape[0] != 1:
        raise UnsupportedAttention("a packed sequence is one row")
    if value.shape[-1] != query.shape[-1]:
        raise UnsupportedAttention(f"{type(module).__name__} has values of another size than its queries")
    window = kwargs.get("sliding_window") or None
    windows = _packed.get()
    if windows is not None and window is not None:
        windows.told.add(window)
    if window is not None and window > int(prefix_layout.position_S.max()):
        window = None  # no sequence here is longer than it
    rules = Rules(
        scale=kwargs.get("scaling") or 1.0 / math.sqrt(query.shape[-1]),
        window=window,
        softcap=kwargs.get("softcap") or None,
    )
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    query_SHD, key_SKD, value_SKD = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    attend = flexible_attention if flex_attention_is_there(query.device) else tiled_attention
    return attend(query_SHD, key_SKD, value_SKD, prefix_layout, rules).unsqueeze(0), None


def _capped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, softcap: float
) -> Tensor:
    """Plain attention with a soft cap on its scores, which SDPA leaves out. Returns [N, L, H, D]."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scores = softcap * (query @ key.mT * (scale / softcap)).float().tanh()
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return (scores.softmax(-1).to(value.dtype) @ value).transpose(1, 2).contiguous()


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    windows = _packed.get()
    if windows is None:
        return cast(Tensor | None, sdpa_mask(*args, **kwargs))
    if kwargs.get("local_size") is not None:
        windows.masked.add(kwargs["local_size"])
    return None


# At import, because transformers looks the name up when a model is built.
AttentionInterface.register(ATTENTION_NAME, attention)
AttentionMaskInterface.register(ATTENTION_NAME, _mask)
