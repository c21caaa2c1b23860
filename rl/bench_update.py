"""`offramp bench update` and `memory`: the update phase beside TRL's, and beside the limit of what a forward can be.

All sides see the same random prompts and completions and the same random advantages. Update means: log-probabilities
of the start of the step where a trainer computes them, forward, loss and backward; no optimizer.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from pathlib import Path
from typing import Any

from rl.bench_sides import Worker, in_turns, median, peak_memory, ratios, reset_peak_memory

STARTER = Path(__file__).resolve().parents[1] / "results" / "starter"


def update(settings: dict[str, Any]) -> dict[str, Any]:
    """{"trl_over_ours", "ours_over_limit", "memory_ours_over_trl", seconds and bytes by side}: medians over rounds.

    `ran` is the attention that our side came to, which may have stepped aside. Memory is the peak above what stood
    before the update, `resident_bytes` all of a side's process. CPU seconds are what a busy machine disturbs least.
    """
    names = ("ours", "limit", "trl")
    workers = [Worker(name, settings) for name in names]
    try:
        found = in_turns(workers, settings["rounds"])
    finally:
        for worker in workers:
            worker.__exit__(None, None, None)
    speed, limit = ratios(found, "trl", "ours"), ratios(found, "ours", "limit")
    memory = ratios(found, "ours", "trl", "peak_bytes")
    return {
        "trl_over_ours": statistics.median(speed),
        "ours_over_limit": statistics.median(limit),
        "memory_ours_over_trl": statistics.median(memory),
        "trl_over_ours_cpu": statistics.median(ratios(found, "trl", "ours", "cpu_seconds")),
        "ours_over_limit_cpu": statistics.median(ratios(found, "ours", "limit", "cpu_seconds")),
        "trl_over_ours_by_round": speed,
        "ours_over_limit_by_round": limit,
        "seconds": {name: median(found[name]) for name in names},
        "cpu_seconds": {name: median(found[name], "cpu_seconds") for name in names},
        "peak_bytes": {name: median(found[name], "peak_bytes") for name in names},
        "resident_bytes": {name: median(found[name], "resident_bytes") for name in names},
        "tokens": median(found["ours"], "tokens"),
        "ran": found["ours"][-1]["ran"],
    }


def memory(settings: dict[str, Any]) -> dict[str, Any]:
    """Peak memory of the update above what stood before it, and peak resident memory in all: ours and TRL's."""
    found = {}
    for name in ("ours", "trl"):
        with Worker(name, settings) as worker:
            found[name] = in_turns([worker], settings["rounds"])[name]
    return {
        "ran": found["ours"][-1]["ran"],
        "memory_ours_over_trl": statistics.median(ratios(found, "ours", "trl", "peak_bytes")),
        "resident_ours_over_trl": statistics.median(ratios(found, "ours", "trl", "resident_bytes")),
        "peak_bytes": {name: median(numbers, "peak_bytes") for name, numbers in found.items()},
        "resident_bytes": {name: median(numbers, "resident_bytes") for name, numbers in found.items()},
    }


def random_groups(settings: dict[str, Any], vocabulary: int) -> list[Any]:
    """Groups of random tokens, the same on every side; completions share nothing."""
    from rl.rollouts import Group, Rollout

    rng = random.Random(settings["seed"])

    def ids(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, vocabulary) for _ in range(count))

    length = settings["completion"]
    return [
        Group(
            f"d{document}",
            ids(settings["prompt"]),
            tuple(
                Rollout(f"d{document}", ids(length), (-8.0,) * length, "", "length", 0, 0)
                for _ in range(settings["group"])
            ),
        )
        for document in range(settings["documents"])
    ]


class Measured:
    """Time, CPU time and peak memory of `work()`."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def work(self) -> float:
        """Does it once; returns the tokens that were computed."""
        raise NotImplementedError

    def run(self) -> dict[str, Any]:
        gc.collect()
        before = reset_peak_memory()
        wall, cpu = time.perf_counter(), time.process_time()
        tokens = self.work()
        seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        return {
            **seconds,
            "tokens": tokens,
            "peak_bytes": max(peak_memory() - before, 1),
            "resident_bytes": peak_memory(),
        }


class Ours(Measured):
    """Batches, forward, loss and backward as rl/grpo.py has them."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import torch

        from rl.policy import load_policy

        super().__init__(settings)
        self.policy = load_policy(
            settings["model"], settings["dtype"], settings["attention"], settings["checkpointing"]
        )
        self.groups = random_groups(settings, self.policy.causal_lm.config.vocab_size)
        torch.manual_seed(settings["seed"])
        self.advantages_PG = torch.randn(settings["documents"], settings["group"])
        self.ran: set[str] = set()

    def work(self) -> float:
        import torch

        from rl.batching import batches, totals
        from rl.config import MethodConfig
        from rl.methods import METHODS

        config = MethodConfig.model_validate(METHOD)
        tokens = 0.0
        self.ran.clear()
        denominators = totals(self.groups)
        made = batches(
            self.groups, self.advantages_PG, self.settings["tokens_per_batch"], attention=self.policy.attention
        )
        for batch in made:
            attention = self.policy.choose_attention(batch)
            self.ran.add(attention)
            logprobs_T, _ = self.policy.logprobs_and_entropy(batch)
            loss, _ = METHODS["dapo"].loss(logprobs_T, batch, denominators, config)
            torch.autograd.backward(loss)
            tokens += batch.num_tokens * (batch.token_ratio if attention == "plain" else 1)
        self.policy.model.zero_grad(set_to_none=True)
        return tokens

    def run(self) -> dict[str, Any]:
        from rl.prompt_attention import forget_memory

        forget_memory()  # of the tiles, which the turn before left: it is the update's
        found = super().run()
        return found | {"ran": " and ".join(sorted(self.ran))}


METHOD: dict[str, Any] = {
    "kind": "dapo",
    "scale_rewards": "group",
    "clip_low": 0.2,
    "clip_high": 0.2,
    "kl_coef": 0.0,
    "tis_cap": 3.0,
    "truncated": "score",
    "max_completion_length": 512,
}
"""TRL's default loss, with importance weights as it has them by default."""


class Limit(Measured):
    """A plain forward and backward of as many tokens as are distinct, in sequences of prompt + completion.

    The model's own SDPA; the head scores as many tokens as ours does. A whole number of sequences, its time scaled to
    the number of tokens.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        super().__init__(settings)
        self.model = AutoModelForCausalLM.from_pretrained(
            settings["model"], dtype=torch.float32, attn_implementation="sdpa"
        ).train()
        length = settings["prompt"] + settings["completion"]
        distinct = settings["prompt"] + settings["group"] * (settings["completion"] - 1)
        self.wanted = settings["documents"] * distinct
        self.rows = max(round(self.wanted / length), 1)
        self.scale = self.wanted / (self.rows * length)
        scored = settings["documents"] * settings["group"] * settings["completion"]
        self.scored = min(round(scored / self.scale / self.rows), length - 1)
        self.at_once = max(settings["tokens_per_batch"] // length, 1)
        generator = torch.Generator().manual_seed(settings["seed"])
        self.ids_NL = torch.randint(3, self.model.config.vocab_size, (self.rows, length), generator=generator)

    def work(self) -> float:
        import torch

        from rl.token_logprobs import token_logprobs

        length = self.ids_NL.shape[1]
        for start in range(0, self.rows, self.at_once):
            ids_NL = self.ids_NL[start : start + self.at_once]
            places_T = (
                torch.arange(len(ids_NL))[:, None] * length + torch.arange(length - 1 - self.scored, length - 1)
            ).flatten()
            with torch.autocast("cpu", torch.bfloat16, enabled=self.settings["dtype"] == "bfloat16"):
                hidden = self.model.get_decoder()(input_ids=ids_NL, use_cache=False).last_hidden_state.flatten(0, 1)
                head = self.model.get_output_embeddings()
                targets_T = ids_NL.flatten()[places_T + 1]
                logprobs_T, _ = token_logprobs(hidden, places_T, targets_T, head, self.model.config)
            torch.autograd.backward(logprobs_T.mean())
        self.model.zero_grad(set_to_none=True)
        return float(self.ids_NL.numel())

    def run(self) -> dict[str, Any]:
        found = super().run()
        return found | {key: found[key] * self.scale for key in ("seconds", "cpu_seconds", "tokens")}
