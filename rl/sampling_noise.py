"""Seeded sampling for vLLM as one batched logits processor.

vLLM draws a seeded request's noise from its own torch.Generator, one request after another over the whole vocabulary:
with 128 requests and 4,096 tokens that is a third of a decoding step on a CPU, and on the CPU it fails outright
(`CPU Generator does not use offset`) as soon as chunked prefill leaves a prompt half read. Here a token needs one
uniform number, made from (seed, position) by a counter-based hash, and is found by inverse transform sampling, for all
rows at once. The draw depends on nothing else: not on the batch, not on preemption, not on the global random state.

Imports vLLM: import it only where the engine is about to start.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014, figure 16)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniforms(seeds_B: NDArray[np.uint64], positions_B: NDArray[np.uint64]) -> NDArray[np.float64]:
    """[B] numbers in [0, 1): number `position` of the SplitMix64 stream that starts at the hash of `seed`."""
    bits = _mix(_mix(seeds_B) + (positions_B + np.uint64(1)) * _GAMMA)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


class SeededSampling(LogitsProcessor):  # type: ignore[misc]  # vLLM is untyped here
    """Turns greedy decoding into sampling at temperature 1 for every request that carries a seed.

    The sampled token's logit becomes +inf, so that the argmax takes it; raw log-probabilities are read before this.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self.device = device
        self.requests: dict[int, tuple[int, list[int]]] = {}
        self.rows = np.empty(0, np.int64)
        self.seeds = np.empty(0, np.uint64)
        self.outputs: list[list[int]] = []

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        if batch_update is None:
            return
        requests = self.requests
        for index in batch_update.removed:
            requests.pop(index, None)
        for index, params, _, output_ids in batch_update.added:
            requests.pop(index, None)
            if params.seed is not None:
                requests[index] = (params.seed, output_ids)
        for source, target, direction in batch_update.moved:
            moved, replaced = requests.pop(source, None), requests.pop(target, None)
            if moved is not None:
                requests[target] = moved
            if replaced is not None and direction == MoveDirectionality.SWAP:
                requests[source] = replaced
        self.rows = np.fromiter(requests, np.int64, len(requests))
        self.seeds = np.array([seed for seed, _ in requests.values()], np.uint64)
        self.outputs = [output_ids for _, output_ids in requests.values()]

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """logits: [B, V] float32, changed in place."""
        if not self.outputs:
            return logits
        # The lists are vLLM's own and grow with each token, so their length is the position that is drawn now.
        positions = np.fromiter(map(len, self.outputs), np.uint64, len(self.outputs))
        uniform = torch.from_numpy(uniforms(self.seeds, positions)).to(self.device)
        rows = torch.from_numpy(self.rows).to(self.device)
        cumulative = logits[rows].softmax(-1).cumsum(-1, dtype=torch.float64)
        threshold = uniform[:, None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, threshold, right=True).squeeze(1).clamp_(max=logits.shape[1] - 1)
        logits[rows, tokens] = torch.inf
        return logits
