"""Seeded splits by group, and the check that no document, nor its near-duplicate, stands on both sides."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rewards.document import Document
from rewards.errors import DataError

SHINGLE = 4
"""Words in a shingle."""
NEAR_WORDS, NEAR_NUMBERS = 0.7, 0.88
"""Two documents count as one when the Jaccard similarity of their shingles and that of their numbers reach these.

Two scans of one receipt share all numbers; two visits to one shop may share nearly all words, but neither the date nor
the receipt's number.
"""
BANDS, ROWS = 24, 4
"""At similarity 0.7 the chance that 24 bands of 4 rows miss a pair is 0.1 %."""

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Split:
    train: tuple[Document, ...]
    test: tuple[Document, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two documents that count as one. similarity: Jaccard over shingles of four words, in [0, 1]."""

    first: Document
    second: Document
    similarity: float


def split(documents: Sequence[Document], test_fraction: float, seed: int, key: str = "docs.test_fraction") -> Split:
    """Holds out about `test_fraction` of the documents, whole groups at a time, in the documents' own order.

    Groups that share a near-duplicate stay together. A group that is larger than the share stays in train, so that the
    test side is never larger than asked (except that it has at least one group). `key` is what the user sets the share
    with. Raises DataError when nothing could be held out, or nothing would be left.
    """
    if test_fraction <= 0:
        return Split(tuple(documents), ())
    unit = _units(documents)
    members: dict[str, int] = defaultdict(int)
    for document in documents:
        members[unit[document.group]] += 1
    if len(members) < 2:
        only = documents[0].group if documents else ""
        otherwise = ", or a file of their own with docs.test_path" if key == "docs.test_fraction" else ""
        raise DataError(
            f"{key}={test_fraction}: all {len(documents)} documents belong to one group ({only!r}), so none can be "
            f"held out; give them groups{otherwise}"
        )
    # Sorted by hash, not random.shuffle: a split may never change with the Python version.
    order = sorted(
        members, key=lambda name: (hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=16).digest(), name)
    )
    room = round(test_fraction * len(documents))
    held_out: set[str] = set()
    for name in order:
        if members[name] <= room and len(held_out) < len(members) - 1:
            held_out.add(name)
            room -= members[name]
    if not held_out:
        held_out.add(min(order, key=lambda name: members[name]))
    train = tuple(document for document in documents if unit[document.group] not in held_out)
    return Split(train, tuple(document for document in documents if unit[document.group] in held_out))


def check_leak(train: Sequence[Document], test: Sequence[Document]) -> None:
    """Raises DataError, naming the pair, when a test document or its near-duplicate is also in train."""
    known = {document.id: document for document in train}
    for document in test:
        if document.id in known:
            raise DataError(f"document id {document.id!r} is in train and in test; remove it from one of them")
    pairs = sorted(near_duplicates(train, test), key=lambda pair: -pair.similarity)
    if pairs:
        worst = pairs[0]
        more = f" ({len(pairs) - 1} more such pairs)" if len(pairs) > 1 else ""
        raise DataError(
            f"train document {worst.first.id!r} and test document {worst.second.id!r} are the same "
            f"(similarity {worst.similarity:.2f}){more}: {_glimpse(worst.first)} / {_glimpse(worst.second)}; "
            "remove one of them, or put both on one side"
        )


def near_duplicates(first: Sequence[Document], second: Sequence[Document] | None = None) -> list[Pair]:
    """Pairs that are the same up to case, punctuation, spacing and a few words; without `second`, within `first`.

    MinHash with banding proposes the pairs, their exact Jaccard similarity decides. Time grows with the number of
    documents, not with its square.
    """
    both = list(first) + list(second or ())
    shingles = [_shingles(document.text) for document in both]
    pairs = []
    for i, j in _candidates([_signature(hashes) for hashes in shingles], None if second is None else len(first)):
        similarity = _jaccard(shingles[i], shingles[j])
        if similarity >= NEAR_WORDS and _same_numbers(both[i].text, both[j].text):
            pairs.append(Pair(both[i], both[j], similarity))
    return pairs


def _units(documents: Sequence[Document]) -> dict[str, str]:
    """Each group's unit: groups that share a near-duplicate have one unit."""
    unit = {document.group: document.group for document in documents}

    def find(name: str) -> str:
        while unit[name] != name:
            unit[name] = unit[unit[name]]
            name = unit[name]
        return name

    for pair in near_duplicates(documents):
        a, b = sorted((find(pair.first.group), find(pair.second.group)))
        unit[b] = a
    return {name: find(name) for name in unit}


_NUMBER = re.compile(r"\d[\d.,/:-]*\d|\d")


def _shingles(text: str) -> Hashes:
    words = re.findall(r"\w+", text.casefold())
    size = min(SHINGLE, max(len(words), 1))
    grams = {" ".join(words[i : i + size]) for i in range(max(len(words) - size + 1, 1))}
    return np.array(sorted({zlib.crc32(gram.encode("utf-8", "replace")) for gram in grams}), dtype=np.uint64)


_RANDOM = np.random.Generator(np.random.PCG64(20_240_501))
_PRIME = np.uint64(2**31 - 1)
_A = _RANDOM.integers(1, 2**31 - 1, size=(BANDS * ROWS, 1), dtype=np.uint64)
_B = _RANDOM.integers(0, 2**31 - 1, size=(BANDS * ROWS, 1), dtype=np.uint64)


def _signature(shingles: Hashes) -> Hashes:
    hashes = (_A * (shingles % _PRIME)[None, :] + _B) % _PRIME
    signature: Hashes = hashes.min(axis=1)
    return signature


def _candidates(signatures: Sequence[Hashes], boundary: int | None) -> Iterator[tuple[int, int]]:
    """Index pairs that share a band; with a boundary, only those on its two sides."""
    seen: set[tuple[int, int]] = set()
    for band in range(BANDS):
        buckets: dict[bytes, list[int]] = defaultdict(list)
        for index, signature in enumerate(signatures):
            buckets[signature[band * ROWS : (band + 1) * ROWS].tobytes()].append(index)
        for bucket in buckets.values():
            for position, j in enumerate(bucket):
                for i in bucket[:position]:
                    if (boundary is None or i < boundary <= j) and (i, j) not in seen:
                        seen.add((i, j))
                        yield i, j


def _jaccard(a: Hashes, b: Hashes) -> float:
    shared = np.intersect1d(a, b, assume_unique=True).size
    return float(shared / (a.size + b.size - shared))


def _same_numbers(a: str, b: str) -> bool:
    first, second = set(_NUMBER.findall(a)), set(_NUMBER.findall(b))
    return len(first & second) >= NEAR_NUMBERS * len(first | second)


def _glimpse(document: Document) -> str:
    text = " ".join(document.text.split())
    return repr(text if len(text) <= 40 else text[:39] + "…")
