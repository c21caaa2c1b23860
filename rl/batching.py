"""Groups to micro-batches: whole groups by token budget, packed as [prompt | completion 1 | .. | completion G]."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rl.advantages import has_spread
from rl.losses import Totals
from rl.prefix_layout import GroupSpan, PrefixLayout, make_layout
from rl.rollouts import Group

Attention = Literal["shared_prefix", "plain"]
Truncated = Literal["mask", "score"]


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch: several groups packed into one sequence of S tokens, with T completion tokens to score.

    Completions of a group that begin alike share the tokens up to where they part. The last token of a completion
    predicts nothing, so it is a target and not an input.

    Example (one group, prompt (5, 6), completions (7, 8, 2), (7, 9, 2) and (9, 2)):
        input_ids_S    = [5, 6, 7, 8, 9, 9]
        position_ids_S = [0, 1, 2, 3, 3, 2]
        predictor_T    = [1, 2, 3, 1, 2, 4, 1, 5]
        target_T       = [7, 8, 2, 7, 9, 2, 9, 2]
        sequence_T     = [0, 0, 0, 1, 1, 1, 2, 2]
    """

    groups: tuple[Group, ...]
    layout: PrefixLayout
    input_ids_S: Tensor
    position_ids_S: Tensor
    predictor_T: Tensor
    """Place in S whose hidden state predicts the token."""
    target_T: Tensor
    """The completion tokens, all completions one after the other."""
    sequence_T: Tensor
    """Completion that the token belongs to, 0..N-1."""
    mask_T: Tensor
    """1.0 where the token is trained on."""
    sampler_logprobs_T: Tensor
    """Nats."""
    advantages_N: Tensor

    @property
    def num_tokens(self) -> int:
        """S: tokens that one forward computes."""
        return self.input_ids_S.numel()

    @property
    def token_ratio(self) -> float:
        """Tokens a plain forward computes, by the tokens of this one."""
        return sum(plain_tokens(group) for group in self.groups) / max(self.num_tokens, 1)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that a forward sees."""
        return max(
            (len(g.prompt_ids) + max(len(r.completion_ids) for r in g.rollouts) - 1 for g in self.groups), default=0
        )

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors on `device`."""
        return Batch(
            self.groups,
            self.layout.to(device),
            self.input_ids_S.to(device),
            self.position_ids_S.to(device),
            self.predictor_T.to(device),
            self.target_T.to(device),
            self.sequence_T.to(device),
            self.mask_T.to(device),
            self.sampler_logprobs_T.to(device),
            self.advantages_N.to(device),
        )


def batches(
    groups: Sequence[Group],
    advantages_PG: Tensor,
    tokens_per_batch: int,
    *,
    truncated: Truncated = "score",
    attention: Attention = "shared_prefix",
) -> list[Batch]:
    """Pack groups, in order, into micro-batches of at most `tokens_per_batch` computed tokens; a bigger one goes alone.

    `advantages_PG` has one row a group and one column a completion. `truncated` "mask" leaves completions cut by the
    token limit out of the loss. `attention` says how tokens are counted: a plain forward repeats the prompt for every
    completion.
    """
    if advantages_PG.shape[0] != len(groups):
        raise ValueError(f"{len(groups)} groups but advantages for {advantages_PG.shape[0]}")
    cost = packed_tokens if attention == "shared_prefix" else plain_tokens
    bins: list[list[int]] = []
    room = 0
    for place, group in enumerate(groups):
        tokens = cost(group)
        if not bins or tokens > room:
            bins.append([])
            room = tokens_per_batch
        bins[-1].append(place)
        room -= tokens
    return [make_batch([groups[place] for place in places], advantages_PG[places], truncated) for places in bins]


def make_batch(groups: Sequence[Group], advantages_PG: Tensor, truncated: Truncated = "score") -> Batch:
    """Pack all of `groups` into one batch; advantages [P, G] in the same order."""
    input_ids: list[int] = []
    positions: list[int] = []
    predictors: list[int] = []
    targets: list[int] = []
    sequences: list[int] = []
    mask: list[float] = []
    sampler_logprobs: list[float] = []
    advantages: list[Tensor] = []
    spans: list[GroupSpan] = []
    rows: list[list[int]] = []
    num_sequences = 0
    for group, advantages_G in zip(groups, advantages_PG, strict=True):
        start, prompt_length = len(input_ids), len(group.prompt_ids)
        tree = completion_tree(group)
        input_ids.extend((*group.prompt_ids, *tree.tokens))
        positions.extend((*range(prompt_length), *(prompt_length + depth for depth in tree.depths)))
        split = start + prompt_length
        branches = _branches(tree)
        spans.append(GroupSpan(start, prompt_length, len(tree.tokens), len(branches)))
        rows.extend([split + node for node in path] for path in branches)
        for rollout, path in zip(group.rollouts, tree.paths, strict=True):
            length = len(rollout.completion_ids)
            predictors.extend([split - 1, *(split + node for node in path)][:length])
            targets.extend(rollout.completion_ids)
            sequences.extend([num_sequences] * length)
            mask.extend([0.0 if truncated == "mask" and rollout.truncated else 1.0] * length)
            sampler_logprobs.extend(rollout.sampler_logprobs)
            num_sequences += 1
        advantages.append(advantages_G[: len(group.rollouts)])
    return Batch(
        groups=tuple(groups),
        layout=make_layout(spans, rows),
        input_ids_S=torch.tensor(input_ids, dtype=torch.long),
        position_ids_S=torch.tensor(positions, dtype=torch.long),
        predictor_T=torch.tensor(predictors, dtype=torch.long),
        target_T=torch.tensor(targets, dtype=torch.long),
        sequence_T=torch.tensor(sequences, dtype=torch.long),
        mask_T=torch.tensor(mask, dtype=torch.float32),
        sampler_logprobs_T=torch.tensor(sampler_logprobs, dtype=torch.float32),
        advantages_N=torch.cat(advantages).to(torch.float32),
    )


def totals(groups: Sequence[Group], truncated: Truncated = "score") -> Totals:
    """Denominators of a step over `groups`; with several processes sum both counts over them first.

    Counted over every sampled group, also those dropped for want of spread, the loss is the mean over documents that
    the methods define (without KL a group without spread adds exactly 0 to it), and dropping is nothing but saved work.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    kept = [rollout for rollout in rollouts if not (truncated == "mask" and rollout.truncated)]
    return Totals(tokens=sum(len(rollout.completion_ids) for rollout in kept), sequences=len(kept))


def drop_without_spread(
    groups: Sequence[Group], rewards_PG: Tensor, advantages_PG: Tensor
) -> tuple[list[Group], Tensor, int]:
    """Leave out the groups whose rewards are all the same: the kept groups, their advantages, and how many went."""
    kept_P = has_spread(rewards_PG)
    kept = [group for group, keep in zip(groups, kept_P.tolist(), strict=True) if keep]
    return kept, advantages_PG[kept_P], len(groups) - len(kept)


def packed_tokens(group: Group) -> int:
    """Tokens that the shared-prefix forward computes for a group."""
    return len(group.prompt_ids) + len(completion_tree(group).tokens)


def plain_tokens(group: Group) -> int:
    """Tokens that a forward with one row a completion computes, padding left out."""
    return sum(len(group.prompt_ids) + max(len(rollout.completion_ids) - 1, 0) for rollout in group.rollouts)


@dataclass(frozen=True, slots=True)
class CompletionTree:
    """The distinct input tokens of a group's completions.

    Example (completions (7, 8, 2), (7, 9, 2), (9, 2)):
        CompletionTree(tokens=(7, 8, 9, 9), depths=(0, 1, 1, 0), paths=((0, 1), (0, 2), (3,)))
    """

    tokens: tuple[int, ...]
    depths: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]
    """For each rollout, its input tokens (all but the last) as places in `tokens`."""


def completion_tree(group: Group) -> CompletionTree:
    """Merge what the group's completions have in common at their beginnings."""
    children: dict[tuple[int, int], int] = {}
    tokens: list[int] = []
    depths: list[int] = []
    paths: list[tuple[int, ...]] = []
    for rollout in group.rollouts:
        node, path = -1, []
        for depth, token in enumerate(rollout.completion_ids[:-1]):
            node = children.setdefault((node, token), len(tokens))
            if node == len(tokens):
                tokens.append(token)
                depths.append(depth)
            path.append(node)
        paths.append(tuple(path))
    return CompletionTree(tuple(tokens), tuple(depths), tuple(paths))


def _branches(tree: CompletionTree) -> list[tuple[int, ...]]:
    """The paths that reach a token first: together they hold every token; a completion that adds none is left out."""
    seen = 0
    branches: list[tuple[int, ...]] = []
    for path in tree.paths:
        if path and path[-1] >= seen:
            branches.append(path)
            seen = path[-1] + 1
    return branches
