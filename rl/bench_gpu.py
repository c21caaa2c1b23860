"""`offramp bench gpu`: update, memory and (where vLLM is installed) rollouts on a CUDA device, with random weights.

Shapes of Qwen3-0.6B and Qwen3-4B, prompts of 1,000, 4,000 and 8,000 tokens: nothing is downloaded. On a machine without
a GPU `device=cpu shapes=tiny` runs the same code in seconds, which is all that was ever run of it.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

SHAPES: dict[str, dict[str, int]] = {
    "qwen3-0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "qwen3-4b": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
}
KEY_VALUE_HEADS, HEAD_DIM, VOCABULARY = 8, 128, 151936
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""Dense bf16, by a part of the device's name: NVIDIA's data sheets."""


def gpu(settings: dict[str, Any]) -> dict[str, Any]:
    """Rows of {"shape", "prompt", "attention", "seconds", "peak_bytes", "tokens", "mfu"}; shared prefix and plain."""
    import torch

    device = torch.device(settings["device"])
    rows = []
    for shape in settings["shapes"].split(","):
        policy = _policy(shape, device)
        for prompt in (int(size) for size in settings["prompts"].split(",")):
            for attention in ("shared_prefix", "plain"):
                rows.append({"shape": shape, "prompt": prompt, **_update(policy, attention, prompt, settings)})
        del policy
        if device.type == "cuda":
            torch.cuda.empty_cache()
    by_size = {(row["shape"], row["prompt"], row["attention"]): row["seconds"] for row in rows}
    for row in rows:
        row["plain_over_this"] = by_size[row["shape"], row["prompt"], "plain"] / row["seconds"]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"device": name, "rows": rows}


def _policy(shape: str, device: Any) -> Any:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from rl.policy import Policy, PolicyModel, keep_attention
    from rl.shared_prefix import ATTENTION_NAME

    tiny = shape == "tiny"
    config = Qwen3Config(
        **SHAPES[shape],
        vocab_size=512 if tiny else VOCABULARY,
        num_key_value_heads=2 if tiny else KEY_VALUE_HEADS,
        head_dim=16 if tiny else HEAD_DIM,
        max_position_embeddings=40960,
        tie_word_embeddings=True,
        attn_implementation=ATTENTION_NAME,
    )
    torch.manual_seed(0)
    with device:
        causal_lm = Qwen3ForCausalLM(config).train()
    causal_lm.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": keep_attention})
    return Policy(PolicyModel(causal_lm, "bfloat16"), None, "bfloat16", "shared_prefix")


def _update(policy: Any, attention: str, prompt: int, settings: dict[str, Any]) -> dict[str, Any]:
    """One group a micro-batch, forward and backward, with gradient checkpointing as a model of that size needs it."""
    import torch

    from rl.batching import make_batch
    from rl.bench_sides import peak_memory, reset_peak_memory
    from rl.bench_update import random_groups

    config, device = policy.causal_lm.config, policy.device
    (group,) = random_groups(settings | {"prompt": prompt, "documents": 1}, config.vocab_size)
    batch = make_batch([group], torch.ones(1, settings["group"])).to(device)
    policy.attention = attention
    chosen = policy.choose_attention(batch)
    cuda = device.type == "cuda"
    seconds = []
    for turn in range(settings["rounds"] + 1):
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        else:
            reset_peak_memory()
        start = time.perf_counter()
        logprobs_T, _ = policy.model(batch, chosen)
        logprobs_T.mean().backward()
        if cuda:
            torch.cuda.synchronize()
        if turn:
            seconds.append(time.perf_counter() - start)
        policy.model.zero_grad(set_to_none=True)
    plain = settings["group"] * (prompt + settings["completion"] - 1)
    tokens = batch.num_tokens if chosen == "shared_prefix" else plain
    found: dict[str, Any] = {
        "attention": attention,
        "ran": chosen,
        "seconds": statistics.median(seconds),
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else peak_memory(),
        "tokens": tokens,
    }
    peak = next((flops for name, flops in PEAK_FLOPS.items() if cuda and name in torch.cuda.get_device_name()), None)
    if peak is not None:
        # 6 operations a weight and token (forward 2, backward 4); attention and the recomputed forward are not counted.
        weights = sum(p.numel() for p in policy.causal_lm.get_decoder().layers.parameters())
        head = batch.target_T.numel() * config.vocab_size * config.hidden_size
        found["mfu"] = 6 * (weights * tokens + head) / found["seconds"] / peak
    return found
