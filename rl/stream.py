"""Seeded, resumable order of the training documents: the whole state is one integer."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from functools import lru_cache

from rewards.errors import ConfigError


class Stream:
    """Endless passes over `n` documents, each pass in its own seeded order.

    The order is a pure function of (seed, pass), so `position` alone restores the stream.

    Example: Stream(n=3, seed=0).next(2) -> [2, 0]
    """

    def __init__(self, n: int, seed: int, position: int = 0) -> None:
        self.n = n
        self.seed = seed
        self.position = position

    def next(self, count: int, exclude: Collection[int] = ()) -> list[int]:
        """The next `count` document indexes, all different and none of them in `exclude`.

        A document twice in one step would be sampled twice with the same seeds, so where a pass ends inside a step
        the few repeats are skipped. Raises ConfigError when there are fewer documents than asked for.
        """
        taken = set(exclude)
        if count + len(taken) > self.n:
            raise ConfigError(
                f"batch.documents_per_step: {count + len(taken)} different documents wanted in one step, but there are "
                f"only {self.n}; lower it or bring more documents"
            )
        indexes: list[int] = []
        while len(indexes) < count:
            passes, offset = divmod(self.position, self.n)
            index = _order(self.n, self.seed, passes)[offset]
            self.position += 1
            if index not in taken:
                taken.add(index)
                indexes.append(index)
        return indexes


@lru_cache(maxsize=2)
def _order(n: int, seed: int, passes: int) -> tuple[int, ...]:
    # Sorted by hash, not random.shuffle: the order may never change with the Python version.
    def key(index: int) -> bytes:
        return hashlib.blake2b(f"{seed}:{passes}:{index}".encode(), digest_size=16).digest()

    return tuple(sorted(range(n), key=key))
