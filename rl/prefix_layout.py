"""Where the groups of a packed sequence lie, and which token sees which.

The completions of a group form a tree: where several begin alike, the common tokens are computed once. With the prompt
as its trunk the whole group is one tree, and a token sees exactly the tokens on its way from the root.

Shapes: S packed tokens, N branches (completions that add tokens), R input tokens of the longest, C tokens of the trees.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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
            position_S=tensor([0, 1, 2, 3, 4, 3]),
        )
    """

    spans: tuple[GroupSpan, ...]
    path_NR: Tensor
    choice_C: Tensor
    place_C: Tensor
    position_S: Tensor
    """Place of the token in a sequence of its own: what a sliding window counts."""

    def to(self, device: torch.device | str) -> "PrefixLayout":
        """The same layout with its tensors on `device`."""
        tensors = (self.path_NR, self.choice_C, self.place_C, self.position_S)
        return PrefixLayout(self.spans, *(tensor.to(device) for tensor in tensors))


def make_layout(spans: Sequence[GroupSpan], paths: Sequence[Sequence[int]]) -> PrefixLayout:
    """Tensors for `spans`, from the places of each completion's input tokens, in order of depth; none may be empty."""
    longest = max((len(path) for path in paths), default=0)
    chosen: dict[int, int] = {}
    positions = [0] * max((span.stop for span in spans), default=0)
    rows = iter(enumerate(paths))
    for span in spans:
        positions[span.start : span.split] = range(span.prompt)
        for _ in range(span.rows):
            row, path = next(rows)
            for depth, place in enumerate(path):
                chosen.setdefault(place, row * longest + depth)
                positions[place] = span.prompt + depth
    return PrefixLayout(
        spans=tuple(spans),
        path_NR=torch.tensor(
            [[*path, *[path[-1]] * (longest - len(path))] for path in paths], dtype=torch.long
        ).reshape(len(paths), longest),
        choice_C=torch.tensor(list(chosen.values()), dtype=torch.long),
        place_C=torch.tensor(list(chosen), dtype=torch.long),
        position_S=torch.tensor(positions, dtype=torch.long),
    )


def subtree_ends(layout: PrefixLayout) -> tuple[Tensor, Tensor]:
    """([S] place in depth-first order, [S] the first such place behind the token's subtree), on the CPU.

    A token q sees a token k exactly where order[k] <= order[q] < end[k].
    """
    length = layout.position_S.numel()
    parents = [-1] * length
    for span in layout.spans:
        for place in range(span.start + 1, span.split):
            parents[place] = place - 1
    row = 0
    for span in layout.spans:
        for path in layout.path_NR[row : row + span.rows].tolist():
            before = span.split - 1
            for place in path:
                if place != before:
                    parents[place] = before
                before = place
        row += span.rows
    sizes = [1] * length
    for place in range(length - 1, -1, -1):  # parents come before their children
        if parents[place] >= 0:
            sizes[parents[place]] += sizes[place]
    order, free = [0] * length, [0] * length
    roots = 0
    for place, parent in enumerate(parents):
        if parent < 0:
            order[place], roots = roots, roots + sizes[place]
        else:
            order[place] = free[parent]
            free[parent] += sizes[place]
        free[place] = order[place] + 1
    ends = [first + size for first, size in zip(order, sizes, strict=True)]
    return torch.tensor(order, dtype=torch.long), torch.tensor(ends, dtype=torch.long)
