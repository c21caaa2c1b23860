"""Attention for packed groups: the prompt once, then its completions, each of which sees the prompt and its own past.

The completions of a group form a tree: where several begin alike, the common tokens are computed once too. A token sees
the prompt and the tokens on its way from the root, which is what it would see in a sequence of its own.

Registered with transformers as an attention function, so that it serves any decoder: the model gets the packed
sequence, explicit position ids and `prefix_layout=...`, which it hands down to every attention layer. Without a layout
it is plain SDPA.

Shapes: S packed tokens, H query heads, K key heads (H = K x repeats), D head dimension, P prompt tokens, C tokens of
the trees, N completions, R input tokens of the longest.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION_NAME = "offramp_shared_prefix"
SHORT_ROWS = 512
"""Tokens; measured with torch 2.13 on AVX-512: float32 wins at 350, bfloat16 at 2,000."""

_packed: ContextVar[bool] = ContextVar("packed", default=False)


class UnsupportedAttention(NotImplementedError):
    """The architecture asks for something that the shared-prefix attention does not do."""


@dataclass(frozen=True, slots=True)
class GroupSpan:
    """Where a group lies in the packed sequence: its prompt, then the tree of its completions.

    Example (10 prompt tokens from place 40 on, then 3 completions with 25 distinct input tokens):
        GroupSpan(start=40, prompt=10, tree=25, rows=3)
    """

    start: int
    prompt: int
    tree: int
    rows: int
    """Rows of the group in the table of paths."""

    @property
    def split(self) -> int:
        """First place after the prompt."""
        return self.start + self.prompt

    @property
    def stop(self) -> int:
        return self.split + self.tree


@dataclass(frozen=True, slots=True)
class PrefixLayout:
    """The groups of a packed sequence, and the path of each completion through it.

    Example (one group, prompt of 2 tokens; completions of 3 and 2 input tokens that begin with the same one):
        PrefixLayout(
            spans=(GroupSpan(start=0, prompt=2, tree=4, rows=2),),
            path_NR=tensor([[2, 3, 4], [2, 5, 5]]),     # places in S; the tail repeats one that no one looks at
            choice_C=tensor([0, 1, 2, 4]),              # of the flattened table: one entry for each place
            place_C=tensor([2, 3, 4, 5]),               # and that place
        )
    """

    spans: tuple[GroupSpan, ...]
    path_NR: Tensor
    choice_C: Tensor
    place_C: Tensor

    def to(self, device: torch.device | str) -> "PrefixLayout":
        return PrefixLayout(self.spans, self.path_NR.to(device), self.choice_C.to(device), self.place_C.to(device))


def make_layout(spans: Sequence[GroupSpan], paths: Sequence[Sequence[int]]) -> PrefixLayout:
    """Tensors for `spans`, from the places of each completion's input tokens, in order of depth; none may be empty."""
    longest = max((len(path) for path in paths), default=0)
    chosen: dict[int, int] = {}
    for row, path in enumerate(paths):
        for depth, place in enumerate(path):
            chosen.setdefault(place, row * longest + depth)
    return PrefixLayout(
        spans=tuple(spans),
        path_NR=torch.tensor(
            [[*path, *[path[-1]] * (longest - len(path))] for path in paths], dtype=torch.long
        ).reshape(len(paths), longest),
        choice_C=torch.tensor(list(chosen.values()), dtype=torch.long),
        place_C=torch.tensor(list(chosen), dtype=torch.long),
    )


@contextmanager
def packed_sequence() -> Iterator[None]:
    """Within it the model makes no mask: the layout says who sees whom."""
    token = _packed.set(True)
    try:
        yield
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

    Raises UnsupportedAttention for sliding windows, soft caps, sinks and dropout.
    """
    if prefix_layout is None:
        return cast(
            tuple[Tensor, Tensor | None],
            sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs),
        )
    for name in ("sliding_window", "softcap", "s_aux", "dropout", "position_bias"):
        setting = kwargs.get(name)
        if setting is not None and (isinstance(setting, Tensor) or setting):
            raise UnsupportedAttention(f"{type(module).__name__} uses {name}")
    if query.shape[0] != 1:
        raise UnsupportedAttention("a packed sequence is one row")
    scale = kwargs.get("scaling") or 1.0 / math.sqrt(query.shape[-1])
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    query_SHD, key_SKD, value_SKD = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    attend = merged_attention if query.device.type == "cpu" else masked_attention
    return attend(query_SHD, key_SKD, value_SKD, prefix_layout, scale).unsqueeze(0), None


def merged_attention(
    query_SHD: Tensor, key_SKD: Tensor, value_SKD: Tensor, layout: PrefixLayout, scale: float
) -> Tensor:
    """Shared-prefix attention without masks, on the flash kernels of the CPU. Returns [S, H, D], gradients flow."""
    contiguous = (tensor.contiguous() for tensor in (query_SHD, key_SKD, value_SKD))
    return cast(Tensor, _MergedAttention.apply(*contiguous, layout, scale))  # type: ignore[no-untyped-call]


def masked_attention(
    query_SHD: Tensor, key_SKD: Tensor, value_SKD: Tensor, layout: PrefixLayout, scale: float
) -> Tensor:
    """The same in plain SDPA calls, with a small [R, P + R] mask a group: for devices without kernels that merge.

    Returns [S, H, D], gradients flow.
    """
    repeats = query_SHD.shape[1] // key_SKD.shape[1]
    query_HSD = query_SHD.transpose(0, 1)
    key_HSD, value_HSD = (tensor.transpose(0, 1).repeat_interleave(repeats, 0) for tensor in (key_SKD, value_SKD))
    longest = layout.path_NR.shape[1]
    own_mask = torch.ones(longest, longest, dtype=torch.bool, device=query_SHD.device).tril()
    parts_HLD: list[Tensor] = []
    row, choice = 0, 0
    for span in layout.spans:
        query, key, value = (tensor[None, :, span.start : span.split] for tensor in (query_HSD, key_HSD, value_HSD))
        parts_HLD.append(scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)[0])
        if not span.tree:
            continue
        path_GR = layout.path_NR[row : row + span.rows]
        own_query, own_key, own_value = (
            tensor[:, path_GR].transpose(0, 1) for tensor in (query_HSD, key_HSD, value_HSD)
        )
        keys = torch.cat([key.expand(span.rows, -1, -1, -1), own_key], dim=2)
        values = torch.cat([value.expand(span.rows, -1, -1, -1), own_value], dim=2)
        mask = torch.cat([own_mask.new_ones(longest, span.prompt), own_mask], dim=1)
        output_GHRD = scaled_dot_product_attention(own_query, keys, values, attn_mask=mask, scale=scale)
        chosen_C = layout.choice_C[choice : choice + span.tree] - row * longest
        parts_HLD.append(output_GHRD.transpose(0, 1).flatten(1, 2)[:, chosen_C])
        row, choice = row + span.rows, choice + span.tree
    return torch.cat(parts_HLD, dim=1).transpose(0, 1)


class _MergedAttention(torch.autograd.Function):
    """Flash attention over the prompt and over the own tokens, merged by their log-sum-exp.

    Backward asks the flash kernel for the gradients of each part with the merged output and the merged log-sum-exp: the
    probabilities it recomputes from them are those of the whole row, which makes the gradients of each part exact.
    """

    @staticmethod
    def forward(
        ctx: Any, query_SHD: Tensor, key_SKD: Tensor, value_SKD: Tensor, layout: PrefixLayout, scale: float
    ) -> Tensor:
        output_SHD = torch.empty_like(query_SHD, memory_format=torch.contiguous_format)
        lse_HS = torch.empty(query_SHD.shape[1], query_SHD.shape[0], dtype=torch.float32)
        for span in layout.spans:
            prompt, tree = slice(span.start, span.split), slice(span.split, span.stop)
            keys, values = key_SKD[prompt], value_SKD[prompt]
            output, lse = _flash(*_spread(query_SHD[prompt], keys, values), causal=True, scale=scale)
            output_SHD[prompt].view(span.prompt, *_split_heads(keys, query_SHD)).copy_(output.permute(2, 0, 1, 3))
            lse_HS[:, prompt] = lse.flatten(0, 1)
            if span.tree:
                output, lse = _flash(*_fold(query_SHD[tree], keys, values), causal=False, scale=scale)
                output_SHD[tree] = _unfold(output, query_SHD[tree])
                lse_HS[:, tree] = lse.reshape(query_SHD.shape[1], -1)
        if layout.place_C.numel():
            place, choice = layout.place_C, layout.choice_C
            output, lse = _flash(*_own(query_SHD, key_SKD, value_SKD, layout), causal=True, scale=scale)
            own_CHD = output.transpose(1, 2).flatten(0, 1)[choice]
            own_lse_HC, prompt_lse_HC = lse.transpose(0, 1).flatten(1, 2)[:, choice], lse_HS[:, place]
            lse_HC = torch.logaddexp(prompt_lse_HC, own_lse_HC)
            prompt_share_CH1 = (prompt_lse_HC - lse_HC).exp().mT.unsqueeze(-1)
            merged_CHD = torch.lerp(own_CHD.float(), output_SHD[place].float(), prompt_share_CH1)
            output_SHD[place], lse_HS[:, place] = merged_CHD.to(output_SHD.dtype), lse_HC
        ctx.save_for_backward(query_SHD, key_SKD, value_SKD, output_SHD, lse_HS)
        ctx.layout, ctx.scale = layout, scale
        return output_SHD

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query_SHD, key_SKD, value_SKD, output_SHD, lse_HS = ctx.saved_tensors
        layout: PrefixLayout = ctx.layout
        grad_SHD = grad_outputs[0].contiguous()
        # In float32, because keys collect gradients of several calls.
        sums = [torch.zeros(tensor.shape, dtype=torch.float32) for tensor in (query_SHD, key_SKD, value_SKD)]
        for span in layout.spans:
            prompt, tree = slice(span.start, span.split), slice(span.split, span.stop)
            keys, values = key_SKD[prompt], value_SKD[prompt]
            heads = _split_heads(keys, query_SHD)
            grad, output = (
                tensor[prompt].view(span.prompt, *heads).permute(1, 2, 0, 3) for tensor in (grad_SHD, output_SHD)
            )
            lse = lse_HS[:, prompt].reshape(*heads[:2], span.prompt)
            grads = _flash_backward(
                grad, *_spread(query_SHD[prompt], keys, values), output, lse, causal=True, scale=ctx.scale
            )
            sums[0][prompt].view(span.prompt, *heads).copy_(grads[0].permute(2, 0, 1, 3))
            for total, part in zip(sums[1:], grads[1:], strict=True):
                total[prompt] = part.sum(1, dtype=torch.float32).transpose(0, 1)
            if span.tree:
                folded = _fold(query_SHD[tree], keys, values)
                grad, output = (_fold_rows(tensor[tree], heads[0]) for tensor in (grad_SHD, output_SHD))
                lse = lse_HS[:, tree].reshape(1, heads[0], -1)
                grads = _flash_backward(grad, *folded, output, lse, causal=False, scale=ctx.scale)
                sums[0][tree] = _unfold(grads[0], query_SHD[tree]).float()
                for total, part in zip(sums[1:], grads[1:], strict=True):
                    total[prompt] += part[0].transpose(0, 1)
        if layout.place_C.numel():
            path_NR = layout.path_NR
            # Each place gets its gradient in one row of the table; padding and other rows get 0, so nothing flows back.
            own_grad = grad_SHD.new_zeros(path_NR.numel(), *grad_SHD.shape[1:])
            own_grad[layout.choice_C] = grad_SHD[layout.place_C]
            grads = _flash_backward(
                own_grad.view(*path_NR.shape, *grad_SHD.shape[1:]).transpose(1, 2),
                *_own(query_SHD, key_SKD, value_SKD, layout),
                output_SHD[path_NR].transpose(1, 2),
                lse_HS[:, path_NR].transpose(0, 1).contiguous(),
                causal=True,
                scale=ctx.scale,
            )
            for total, part in zip(sums, grads, strict=True):
                rows = part.transpose(1, 2).reshape(path_NR.numel(), total.shape[1], -1, total.shape[2])
                total.index_add_(0, path_NR.flatten(), rows.sum(2, dtype=torch.float32))
        grad_query, grad_key, grad_value = (total.to(query_SHD.dtype) for total in sums)
        return grad_query, grad_key, grad_value, None, None


def _split_heads(keys: Tensor, query_SHD: Tensor) -> tuple[int, int, int]:
    """(key heads, query heads of each, head dimension)."""
    return keys.shape[1], query_SHD.shape[1] // keys.shape[1], query_SHD.shape[2]


def _spread(query_LHD: Tensor, key_LKD: Tensor, value_LKD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[L, heads, D] to [K, repeats, L, D]: key heads take the batch's place, so that no key is copied."""
    heads = _split_heads(key_LKD, query_LHD)
    query = query_LHD.view(-1, *heads).permute(1, 2, 0, 3)
    key, value = (tensor.transpose(0, 1).unsqueeze(1).expand(-1, heads[1], -1, -1) for tensor in (key_LKD, value_LKD))
    return query, key, value


def _fold(query_CHD: Tensor, key_PKD: Tensor, value_PKD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Without a mask, query heads that share a key head are just more rows: [1, K, repeats x C, D] and [1, K, P, D]."""
    return (
        _fold_rows(query_CHD, key_PKD.shape[1]),
        key_PKD.transpose(0, 1).unsqueeze(0),
        value_PKD.transpose(0, 1).unsqueeze(0),
    )


def _fold_rows(rows_CHD: Tensor, key_heads: int) -> Tensor:
    rows, heads, dim = rows_CHD.shape
    return rows_CHD.view(rows, key_heads, heads // key_heads, dim).permute(1, 2, 0, 3).reshape(1, key_heads, -1, dim)


def _unfold(folded: Tensor, like_CHD: Tensor) -> Tensor:
    """[1, K, repeats x C, D] back to [C, H, D]."""
    length, heads, dim = like_CHD.shape
    return folded.reshape(heads, length, dim).transpose(0, 1)


def _own(query_SHD: Tensor, key_SKD: Tensor, value_SKD: Tensor, layout: PrefixLayout) -> tuple[Tensor, Tensor, Tensor]:
    """The completions as a padded table, [N, H, R, D] each."""
    repeats = query_SHD.shape[1] // key_SKD.shape[1]
    query = query_SHD[layout.path_NR].transpose(1, 2)
    key, value = (
        tensor[layout.path_NR].repeat_interleave(repeats, 2).transpose(1, 2) for tensor in (key_SKD, value_SKD)
    )
    return query, key, value


def _flash(query: Tensor, key: Tensor, value: Tensor, *, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    query, key, value = _kernel_dtype(causal, query, key, value)
    output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, causal, attn_mask=None, scale=scale
    )
    return output, lse


def _flash_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    lse: Tensor,
    *,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = query.dtype
    grad, query, key, value, output = _kernel_dtype(causal, grad, query, key, value, output)
    grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, query, key, value, output, lse, 0.0, causal, attn_mask=None, scale=scale
    )
    return grads[0].to(dtype), grads[1].to(dtype), grads[2].to(dtype)


def _kernel_dtype(causal: bool, *tensors: Tensor) -> Iterator[Tensor]:
    """Short causal rows go to the kernel in float32, where its backward is up to five times faster than in bfloat16."""
    short = causal and tensors[0].shape[2] <= SHORT_ROWS
    return (tensor.float() if short else tensor for tensor in tensors)


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    return None if _packed.get() else sdpa_mask(*args, **kwargs)


# At import, because transformers looks the name up when a model is built.
AttentionInterface.register(ATTENTION_NAME, attention)
AttentionMaskInterface.register(ATTENTION_NAME, _mask)
