"""`offramp bench rollout`: the sampler against bare `LLM.generate` on the same prompts and the same engine."""

import statistics
import time
from pathlib import Path
from typing import Any, Literal

from rl.config import SamplerConfig


def bench_rollout(
    model_path: str | Path,
    *,
    task: str = "receipt",
    documents: int = 16,
    group_size: int = 8,
    max_tokens: int = 128,
    max_model_len: int = 2048,
    dtype: Literal["float32", "bfloat16"] = "bfloat16",
    threads: int | None = None,
    rounds: int = 4,
) -> dict[str, Any]:
    """Tokens a second of `Sampler.rollout` and of vLLM alone, in turns (A B A B ...), on synthetic documents.

    Bare means: the same prompts and n, no seeds, no log-probabilities, text decoded, and vLLM's own helpers compiled.
    `ratio` is the median over the rounds of sampler / bare; each round is two neighbours in time.
    """
    import torch
    from transformers import AutoTokenizer

    from envs.synthetic import documents as synthetic_documents
    from rewards.task import load_task
    from rl.prepare import prepare
    from rl.sampler import Sampler

    config = SamplerConfig(
        engine={},
        temperature=1.0,
        top_p=1.0,
        max_tokens=max_tokens,
        logprob_gap_max=1.0,
        structured="text",
        drafting=None,
    )
    threads = threads or torch.get_num_threads()
    loaded = load_task(task)
    prepared = prepare(
        synthetic_documents(task, documents, seed=0),
        loaded,
        AutoTokenizer.from_pretrained(model_path),
        max_prompt_tokens=max_model_len - max_tokens,
        schema_in_prompt=False,
        what="bench",
    )
    prompts = prepared.prompts
    sampler = Sampler(model_path, config, max_model_len=max_model_len, dtype=dtype, threads=threads)

    def ours(step: int) -> float:
        start = time.perf_counter()
        groups = sampler.rollout(prompts, group_size, run_seed=0, step=step)
        seconds = time.perf_counter() - start
        return sum(len(rollout.completion_ids) for group in groups for rollout in group.rollouts) / seconds

    def bare(step: int) -> float:
        tokens, seconds = sampler.bare_generate(prompts, group_size)
        return tokens / seconds

    ours(0), bare(0)  # warm-up
    rates = [(ours(step), bare(step)) for step in range(1, rounds + 1)]
    sampler.close()
    ratios = [a / b for a, b in rates]
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "sampler_tokens_per_second": statistics.median(a for a, _ in rates),
        "bare_tokens_per_second": statistics.median(b for _, b in rates),
        "documents": len(prompts),
        "group_size": group_size,
        "mean_prompt_tokens": statistics.fmean(len(ids) for _, ids in prompts),
        "threads": threads,
        "dtype": dtype,
    }
