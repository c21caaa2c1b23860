"""Gradient checkpointing: the backward computes each layer again, but for what is dear.

What a layer's attention in tiles (rl/prefix_attention.py) gave in the forward, and its matrix products if asked for,
are handed to the second computing, in the order of the calls. (torch's selective checkpointing runs Python code before
every operation for that.) Other attention is computed again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


@dataclass(slots=True)
class _Layer:
    """A layer that is being computed, for the first or the second time."""

    kept: deque[tuple[Tensor, ...]]
    again: bool


_layer: ContextVar[_Layer | None] = ContextVar("layer", default=None)


def enable_checkpointing(causal_lm: PreTrainedModel, keep_products: bool) -> None:
    """Of each layer keep what its attention in tiles gave, and its matrix products if asked for.

    The last layer is not computed again: its backward comes first, and needs all of it at once anyway.
    """
    if keep_products:
        for module in causal_lm.get_decoder().modules():
            if type(module) is nn.Linear:
                module.__class__ = _KeptLinear
    causal_lm.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": _both_times})
    layers = [module for module in causal_lm.get_decoder().modules() if isinstance(module, GradientCheckpointingLayer)]
    if layers:
        layers[-1].gradient_checkpointing = False


def computed_once(compute: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """What `compute` gives; when a layer is computed again, what it gave before. Without gradients."""
    layer = _layer.get()
    if layer is None:
        return compute()
    if layer.again:
        return layer.kept.popleft()
    given = compute()
    layer.kept.append(tuple(tensor.detach() for tensor in given))  # others: autograd makes the given ones its own
    return given


def _both_times() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    kept: deque[tuple[Tensor, ...]] = deque()
    return _computing(_Layer(kept, again=False)), _computing(_Layer(kept, again=True))


@contextmanager
def _computing(layer: _Layer) -> Iterator[None]:
    token = _layer.set(layer)
    try:
        yield
    finally:
        _layer.reset(token)


class _KeptLinear(nn.Linear):
    """A linear layer whose product is computed once. Computes in autocast's dtype where that is on."""

    def forward(self, input: Tensor) -> Tensor:
        device = input.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else input.dtype
        return cast(Tensor, _Product.apply(input.to(dtype), self.weight, self.bias))  # type: ignore[no-untyped-call]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)

        def product() -> tuple[Tensor]:
            return (linear(input, weight.to(input.dtype), None if bias is None else bias.to(input.dtype)),)

        (output,) = computed_once(product)
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        input, weight = ctx.saved_tensors
        needs_input, needs_weight, needs_bias = ctx.needs_input_grad
        grad_TO, input_TI = grad_outputs[0].flatten(0, -2), input.flatten(0, -2)
        return (
            grad_outputs[0] @ weight.to(input.dtype) if needs_input else None,
            (grad_TO.mT @ input_TI).to(weight.dtype) if needs_weight else None,
            grad_TO.sum(0).to(weight.dtype) if needs_bias else None,
        )
