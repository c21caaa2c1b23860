"""`offramp bench gpu`: update, memory and rollouts on a CUDA device, with random weights.

Shapes of Qwen3-0.6B and Qwen3-4B, prompts of 1,000, 4,000 and 8,000 tokens: nothing is downloaded. On a machine without
a GPU `device=cpu shapes=tiny` runs the same code in seconds, which is all that was ever run of it.
"""

from __future__ import annotations

import gc
import importlib.util
import statistics
import tempfile
import time
from typing import Any

from rl.bench_sides import gpu_name, peak_memory, reset_peak_memory

SHAPES: dict[str, dict[str, int]] = {
    "qwen3-0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "qwen3-4b": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
}
KEY_VALUE_HEADS, HEAD_DIM, VOCABULARY = 8, 128, 151936
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""Dense bf16, by a part of the device's name: NVIDIA's data sheets."""


def gpu(settings: dict[str, Any]) -> dict[str, Any]:
    """{"device", "rows", "rollouts"}.

    rows: {"shape", "prompt", "attention", "ran", "seconds", "plain_over_this", "peak_bytes", "tokens", "mfu"} of an
    update, shared prefix and plain in turns, or {"shape", "prompt", "attention", "failed"}: one that does not fit the
    memory leaves the others. rollouts: {"shape", "prompt", "seconds", "tokens_per_second"}, or None without vLLM.
    """
    import torch

    device = torch.device(settings["device"])
    torch.set_num_threads(settings["threads"])
    prompts = [int(size) for size in settings["prompts"].split(",")]
    rows: list[dict[str, Any]] = []
    rollouts: list[dict[str, Any]] | None = [] if vllm_is_there() else None
    for shape in settings["shapes"].split(","):
        policy = _policy(shape, device)
        for prompt in prompts:
            rows += [{"shape": shape, "prompt": prompt, **row} for row in _updates(policy, prompt, settings)]
        config = policy.causal_lm.config
        del policy
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if rollouts is not None:
            try:
                found = _rollouts(config, prompts, settings)
            except Exception as error:  # vLLM raises all sorts, and the updates above are measured
                found = [{"failed": str(error).splitlines()[0]}]
            rollouts += [{"shape": shape, **row} for row in found]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"device": name, "rows": rows, "rollouts": rollouts}


def vllm_is_there() -> bool:
    return importlib.util.find_spec("vllm") is not None


def _policy(shape: str, device: Any) -> Any:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from rl.policy import Policy, PolicyModel
    from rl.recompute import enable_checkpointing
    from rl.shared_prefix import ATTENTION_NAME

    tiny = shape == "tiny"
    config = Qwen3Config(
        **SHAPES[shape],
        vocab_size=512 if tiny else VOCABULARY,
        num_key_value_heads=2 if tiny else KEY_VALUE_HEADS,
        head_dim=32 if tiny else HEAD_DIM,
        max_position_embeddings=40960,
        tie_word_embeddings=True,
        architectures=["Qwen3ForCausalLM"],
        attn_implementation=ATTENTION_NAME,
    )
    torch.manual_seed(0)
    with device:
        causal_lm = Qwen3ForCausalLM(config).train()
    enable_checkpointing(causal_lm, keep_products=False)
    return Policy(PolicyModel(causal_lm, "bfloat16"), None, "bfloat16", "shared_prefix")


def _updates(policy: Any, prompt: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """One group a micro-batch, forward and backward, with gradient checkpointing as a model of that size needs it.

    Both kinds of attention, in turns (A B A B ...).
    """
    import torch

    from rl.batching import make_batch
    from rl.bench_update import random_groups

    config, device = policy.causal_lm.config, policy.device
    (group,) = random_groups(settings | {"prompt": prompt, "documents": 1}, config.vocab_size)
    batch = make_batch([group], torch.ones(1, settings["group"])).to(device)
    kinds = ("shared_prefix", "plain")
    found: dict[str, list[tuple[float, int]]] = {kind: [] for kind in kinds}
    ran, failed = {}, {}
    for turn in range(settings["rounds"] + 1):
        for kind in kinds:
            if kind in failed:
                continue
            try:
                if not turn:
                    policy.look_again(kind)
                    ran[kind] = policy.choose_attention(batch)
                measured = _measured(policy, batch, ran[kind])
            except torch.OutOfMemoryError:
                failed[kind] = "out of memory"
                policy.model.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
                continue
            if turn:
                found[kind].append(measured)
    rows = []
    for kind in kinds:
        if kind in failed:
            rows.append({"attention": kind, "failed": failed[kind]})
            continue
        tokens = batch.num_tokens if ran[kind] == "shared_prefix" else _plain_tokens(prompt, settings)
        seconds = statistics.median(one for one, _ in found[kind])
        row: dict[str, Any] = {"attention": kind, "ran": ran[kind], "seconds": seconds}
        if "plain" not in failed:  # a round is two neighbours in time
            turns = zip(found["plain"], found[kind], strict=True)
            row["plain_over_this"] = statistics.median(plain / this for (plain, _), (this, _) in turns)
        row |= {"peak_bytes": max(peak for _, peak in found[kind]), "tokens": tokens}
        peak = next((flops for name, flops in PEAK_FLOPS.items() if name in (gpu_name() or "")), None)
        if peak is not None and device.type == "cuda":
            # 6 operations a weight and token (forward 2, backward 4), without attention and the recomputed forward.
            weights = sum(p.numel() for p in policy.causal_lm.get_decoder().layers.parameters())
            head = batch.target_T.numel() * config.vocab_size * config.hidden_size
            row["mfu"] = 6 * (weights * tokens + head) / seconds / peak
        rows.append(row)
    return rows


def _plain_tokens(prompt: int, settings: dict[str, Any]) -> int:
    return int(settings["group"] * (prompt + settings["completion"] - 1))


def _measured(policy: Any, batch: Any, attention: str) -> tuple[float, int]:
    """(seconds, peak bytes) of a forward and a backward."""
    import torch

    cuda = policy.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    else:
        reset_peak_memory()
    start = time.perf_counter()
    logprobs_T, _ = policy.model(batch, attention)
    logprobs_T.mean().backward()
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    policy.model.zero_grad(set_to_none=True)
    return seconds, torch.cuda.max_memory_allocated() if cuda else peak_memory()


def _rollouts(config: Any, prompts: list[int], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """vLLM alone, n=G to a document, random weights and tokens, completions of full length."""
    import os

    import torch

    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm import LLM, SamplingParams
    from vllm.distributed.parallel_state import destroy_distributed_environment, destroy_model_parallel

    from rl.bench_update import STARTER, random_groups

    folder = tempfile.mkdtemp(prefix="offramp-bench-")
    config.save_pretrained(folder)
    on_cpu: dict[str, Any] = {"enforce_eager": True, "kv_cache_memory_bytes": 2**28}
    params = SamplingParams(n=settings["group"], max_tokens=settings["completion"], ignore_eos=True, detokenize=False)
    llm = LLM(
        folder,
        load_format="dummy",
        tokenizer=str(STARTER),  # some tokenizer: nothing is put into words
        dtype="bfloat16",
        max_model_len=max(prompts) + settings["completion"],
        enable_prefix_caching=True,
        **(on_cpu if settings["device"] == "cpu" else {}),
    )
    rows = []
    for prompt in prompts:
        (group,) = random_groups(settings | {"prompt": prompt, "documents": 1}, config.vocab_size)
        seconds = []
        for turn in range(settings["rounds"] + 1):
            llm.reset_prefix_cache()
            start = time.perf_counter()
            llm.generate([{"prompt_token_ids": list(group.prompt_ids)}], params, use_tqdm=False)
            if turn:
                seconds.append(time.perf_counter() - start)
        median = statistics.median(seconds)
        tokens = settings["group"] * settings["completion"]
        rows.append({"prompt": prompt, "seconds": median, "tokens_per_second": tokens / median})
    llm.llm_engine.engine_core.shutdown()
    destroy_model_parallel()
    destroy_distributed_environment()
    del llm
    gc.collect()
    if settings["device"] == "cuda":
        torch.cuda.empty_cache()
    return rows
