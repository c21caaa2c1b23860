"""The policy: a causal language model, and the log-probabilities it gives to sampled completions."""

import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rewards.errors import ConfigError
from rl import lora
from rl.batching import Attention, Batch, make_batch
from rl.config import LoraConfig
from rl.recompute import enable_checkpointing
from rl.rollouts import Group
from rl.shared_prefix import ATTENTION_NAME, packed_sequence
from rl.token_logprobs import token_logprobs

logger = logging.getLogger(__name__)

Dtype = Literal["float32", "bfloat16"]
Checkpointing = bool | Literal["products"]

MIN_TOKEN_RATIO = 1.3
"""Below it the shared prefix saves less than its attention costs."""
MAX_CHECK_GAP = 1e-3
"""Nats, in float32: log-probabilities further apart than this, of a token by the shared prefix, or in the mean by our
plain forward (where a router may choose another expert), are different computations."""
MAX_GRADIENT_GAP = 1e-2
"""The same for gradients, as a share of the largest one of a tensor."""
CHECKED_TENSORS, CHECKED_ELEMENTS = 12, 2**24
"""Gradients are compared for so many trained tensors, the first of at most that size: those of the first layers."""


class PolicyModel(nn.Module):
    """A causal language model that scores batches, all in its own forward, so that wrappers (DDP) see one call."""

    def __init__(self, causal_lm: PreTrainedModel, dtype: Dtype) -> None:
        super().__init__()
        self.causal_lm = causal_lm
        self.dtype = dtype
        self.longest_packed: int | None = None
        """Tokens of a sequence up to which the shared prefix is right; None for any. Known after its first forward."""

    def forward(
        self, batch: Batch, attention: Attention, temperature: float = 1.0, entropy: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probability of each completion token of `batch` at `temperature`, and the entropy there if asked for.

        Returns ([T], [T] without gradient or None), nats, float32.
        """
        device = batch.input_ids_S.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.dtype == "bfloat16"):
            if attention == "shared_prefix":
                with packed_sequence() as windows:
                    hidden_SE = self._hidden(
                        batch.input_ids_S[None], position_ids=batch.position_ids_S[None], prefix_layout=batch.layout
                    )
                self.longest_packed = windows.longest_packed()
                predictor_T = batch.predictor_T
            else:
                rows_NL, predictor_T = plain_rows(batch)
                hidden_SE = self._hidden(rows_NL)
            head = self.causal_lm.get_output_embeddings()
            config = self.causal_lm.config.get_text_config()  # of a model that reads pictures too
            return token_logprobs(hidden_SE, predictor_T, batch.target_T, head, config, temperature, entropy)

    def _hidden(self, input_ids_NL: Tensor, **kwargs: Any) -> Tensor:
        """Last hidden states, all rows one after the other: [N x L, E]. Raises ConfigError where there are none."""
        output = self.causal_lm.get_decoder()(input_ids=input_ids_NL, use_cache=False, **kwargs)
        if "last_hidden_state" not in output:  # Llama 4 takes its whole self for its decoder
            name = type(self.causal_lm).__name__
            raise ConfigError(f"model.path: the decoder of {name} gives no hidden states; train another model")
        return cast(Tensor, output.last_hidden_state).flatten(0, 1)


@dataclass(slots=True)
class Policy:
    """A model that can be trained, and its tokenizer. `model` may be replaced by a wrapper of itself (DDP)."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    dtype: Dtype
    attention: Attention
    _told: set[str] = field(default_factory=set)
    _checked: set[Attention] = field(default_factory=set)

    @property
    def causal_lm(self) -> PreTrainedModel:
        """The transformers model under every wrapper."""
        return self._unwrapped().causal_lm

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def logprobs(self, batch: Batch, temperature: float = 1.0) -> Tensor:
        """[T] log-probabilities of the batch's completion tokens, nats, float32; gradients flow."""
        return self.logprobs_and_entropy(batch, temperature, entropy=False)[0]

    def logprobs_and_entropy(
        self, batch: Batch, temperature: float = 1.0, *, entropy: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """As `logprobs`, with the entropy of the policy at each token, [T] nats without gradient."""
        batch = batch.to(self.device)
        return cast(tuple[Tensor, Tensor | None], self.model(batch, self.choose_attention(batch), temperature, entropy))

    def choose_attention(self, batch: Batch) -> Attention:
        """Shared prefix where it is asked for, proves right and pays; plain otherwise, with one log line a reason.

        Raises ConfigError where the plain forward that is left is not the model's own.
        """
        attention = self.attention
        if attention == "shared_prefix":
            fault = self._fault(batch)
            if fault is not None:
                self._tell(f"plain forward: {fault}")
                self.attention = attention = "plain"
            elif batch.token_ratio < MIN_TOKEN_RATIO:
                self._tell(
                    f"plain forward: a batch repeats too little of its prompts (token ratio below {MIN_TOKEN_RATIO})"
                )
                attention = "plain"
        if attention == "plain" and "plain" not in self._checked:
            self._checked.add("plain")
            check_plain(self._unwrapped(), batch)
        return attention

    def look_again(self, attention: Attention) -> None:
        """Compute so from now on, as if for the first time: what fell back before is checked anew."""
        self.attention = attention
        self._checked.clear()

    def _fault(self, batch: Batch) -> str | None:
        """Why the shared prefix cannot be used from here on, if so; the first batch that it pays for is checked."""
        model = self._unwrapped()
        if "shared_prefix" not in self._checked and batch.token_ratio >= MIN_TOKEN_RATIO:
            self._checked.add("shared_prefix")
            fault = shared_prefix_fault(model, batch)
            if fault is not None:
                return fault
        if model.longest_packed is not None and batch.longest > model.longest_packed:
            return (
                f"a batch has sequences of {batch.longest} tokens, and {type(model.causal_lm).__name__} has attention "
                f"within {model.longest_packed} tokens in its masks alone"
            )
        return None

    def freeze(self) -> "Policy":
        """Take the gradients away, as a reference policy has none; returns itself."""
        self.model.requires_grad_(False)
        self.model.eval()
        return self

    def named_tensors_for_sampler(self, dtype: torch.dtype | None = None) -> Iterator[tuple[str, Tensor]]:
        """(name in the checkpoint, detached tensor in the sampler's dtype), every tensor once.

        Tied output embeddings are left out: vLLM ties them itself. `dtype` is the policy's own where it is None.
        """
        dtype = dtype or (torch.bfloat16 if self.dtype == "bfloat16" else torch.float32)
        seen: set[int] = set()
        for name, alone, tensor in lora.merged(self.causal_lm):
            if alone.data_ptr() in seen:
                continue
            seen.add(alone.data_ptr())
            yield name, tensor.to(dtype) if tensor.is_floating_point() else tensor

    def state_to_save(self) -> dict[str, Tensor]:
        """What a checkpoint needs beside the model it began with: its adapters if it has any, else all weights."""
        state = self.causal_lm.state_dict()
        return lora.adapters(state) or state

    def restore(self, saved: dict[str, Tensor]) -> None:
        """Take back what `state_to_save` gave."""
        self.causal_lm.load_state_dict(saved, strict=not lora.adapters(saved))

    def _unwrapped(self) -> PolicyModel:
        model = self.model
        while not isinstance(model, PolicyModel):
            model = cast(nn.Module, model.module)
        return model

    def _tell(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            logger.warning(line)


def load_policy(
    path: str | Path,
    dtype: Dtype,
    attention: Attention,
    gradient_checkpointing: Checkpointing = False,
    adapters: LoraConfig | None = None,
    seed: int = 0,
) -> Policy:
    """Load a causal language model by folder or hub name, with float32 master weights.

    `dtype` "bfloat16" computes under bf16 autocast. Gradient checkpointing computes all layers but the last again in
    the backward, but not their attention in tiles (`products`: nor their matrix products): with long prompts that is
    most of the time, and its outputs are little of the memory.
    Dropout and jitter are turned off: the policy must give the probabilities that it sampled with. With `adapters` only
    they train, drawn from `seed`. Raises ConfigError where there is no such model, where its attention cannot be
    replaced, and where it has no such module for the adapters.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        causal_lm = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation=ATTENTION_NAME)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"model.path: cannot load {str(path)!r} as a causal language model: {reason}") from error
    except KeyError as error:  # a model that looks its attention up among its own
        if ATTENTION_NAME not in error.args:
            raise
        raise ConfigError(OWN_ATTENTION.format(str(path))) from error
    if not causal_lm._can_set_attn_implementation():
        raise ConfigError(OWN_ATTENTION.format(str(path)))
    turn_noise_off(causal_lm)
    lora.adapt(causal_lm, adapters, seed)
    causal_lm.train()
    if gradient_checkpointing:
        enable_checkpointing(causal_lm, keep_products=gradient_checkpointing == "products")
    return Policy(PolicyModel(causal_lm, dtype), tokenizer, dtype, attention)


OWN_ATTENTION = "model.path: {!r} takes no attention but its own; train another model"


def turn_noise_off(model: nn.Module) -> None:
    """Every rate of dropout and of a router's jitter becomes 0, of layers and of what models have in their own code."""
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, float) and ("drop" in name or "jitter" in name or isinstance(module, _DropoutNd)):
                setattr(module, name, 0.0)


def plain_rows(batch: Batch) -> tuple[Tensor, Tensor]:
    """The batch with one row a completion, padded on the right (causal attention needs no mask for that).

    Returns ([N, L] token ids, [T] place of the predicting hidden state in the flattened rows).
    """
    rows = [(group.prompt_ids, rollout.completion_ids) for group in batch.groups for rollout in group.rollouts]
    longest = max(len(prompt) + max(len(completion) - 1, 0) for prompt, completion in rows)
    ids = [[*prompt, *completion[:-1]] for prompt, completion in rows]
    predictors = [
        row * longest + len(prompt) - 1 + offset
        for row, (prompt, completion) in enumerate(rows)
        for offset in range(len(completion))
    ]
    device = batch.input_ids_S.device
    padded = [row_ids + [0] * (longest - len(row_ids)) for row_ids in ids]
    return torch.tensor(padded, device=device), torch.tensor(predictors, dtype=torch.long, device=device)


def shared_prefix_fault(model: PolicyModel, batch: Batch) -> str | None:
    """None where shared-prefix log-probabilities, and their gradients where the model is trained, equal those of the
    model's own forward, row by row; else the fault in words.

    In float32, on a small part of `batch`. Raises torch.OutOfMemoryError: that says nothing about the shared prefix.
    """
    small = _small_part(batch)
    small_enough = (p for p in model.parameters() if p.requires_grad and p.numel() <= CHECKED_ELEMENTS)
    trained = list(itertools.islice(small_enough, CHECKED_TENSORS))
    try:
        with _in_float32(model), torch.set_grad_enabled(bool(trained)):
            ours_T, _ = model(small, "shared_prefix")
            ours = _gradients(ours_T.sum(), trained)
            plain_T, plain = _by_rows(model.causal_lm, small, trained)
    except torch.OutOfMemoryError:
        raise
    except NotImplementedError as error:
        return f"the shared prefix does not support this model ({error})"
    except RuntimeError as error:  # FlexAttention's compiler, on a GPU that it does not know
        return f"the shared prefix does not run here ({str(error).splitlines()[0]})"
    gap = (ours_T.detach() - plain_T).abs().max().item()
    if not gap <= MAX_CHECK_GAP:
        return f"shared-prefix log-probabilities differ from the plain ones by up to {gap:.2g} nats"
    for a, b in zip(ours, plain, strict=True):
        gap, largest = (a - b).abs().max().item(), b.abs().max().item()
        if not gap <= MAX_GRADIENT_GAP * largest + 1e-6:
            return f"shared-prefix gradients differ from the plain ones by up to {gap:.2g} (these reach {largest:.2g})"
    return None


@torch.no_grad()
def check_plain(model: PolicyModel, batch: Batch) -> None:
    """Raises ConfigError where our plain forward is not the model's own, which may do more to its logits than we know.

    In float32, on a small part of `batch`, as `shared_prefix_fault`.
    """
    name, small = type(model.causal_lm).__name__, _small_part(batch)
    with _in_float32(model):
        ours_T, _ = model(small, "plain")
    gap = (ours_T - _by_rows(model.causal_lm, small, [])[0]).abs().mean().item() if ours_T.numel() else 0.0
    if not gap <= MAX_CHECK_GAP:
        raise ConfigError(
            f"model.path: {name} makes other log-probabilities of its hidden states than softmax(head), by {gap:.2g} "
            "nats in the mean; train another model"
        )


def _small_part(batch: Batch) -> Batch:
    """Three completions of the two smallest groups."""
    groups = sorted(batch.groups, key=lambda group: group.num_tokens)[:2]
    return make_batch(
        [Group(group.document_id, group.prompt_ids, group.rollouts[:3]) for group in groups],
        torch.zeros(len(groups), 3),
    ).to(batch.input_ids_S.device)


@contextmanager
def _in_float32(model: PolicyModel) -> Iterator[None]:
    dtype, model.dtype = model.dtype, "float32"
    try:
        yield
    finally:
        model.dtype = dtype


def _gradients(loss: Tensor, trained: list[nn.Parameter]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, trained, materialize_grads=True)) if trained else []


def _by_rows(causal_lm: PreTrainedModel, batch: Batch, trained: list[nn.Parameter]) -> tuple[Tensor, list[Tensor]]:
    """What the model itself gives to each completion alone: [T] log-probabilities, and the gradients of their sum.

    Logits are made for the completion's tokens only, of one row at a time.
    """
    found, gradients = [], [torch.zeros_like(p) for p in trained]
    for group in batch.groups:
        for rollout in group.rollouts:
            targets = torch.tensor(rollout.completion_ids, device=batch.input_ids_S.device)
            ids = torch.tensor([[*group.prompt_ids, *rollout.completion_ids]], device=targets.device)
            logits = causal_lm(input_ids=ids, use_cache=False, logits_to_keep=len(targets) + 1).logits[0, :-1].float()
            logprobs = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
            for total, gradient in zip(gradients, _gradients(logprobs.sum(), trained), strict=True):
                total += gradient
            found.append(logprobs.detach())
    return torch.cat(found), gradients
