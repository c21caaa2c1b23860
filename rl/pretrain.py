"""Pre-trains the starter policy on synthetic documents: tokenizer, random Qwen3, next-token loss on the completions.

Muon on the hidden matrices (Jordan et al. 2024), AdamW on the rest; warm-up, plateau, decay. B documents, S tokens.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from envs.prompts import messages
from envs.synthetic import Layouts, generate, mixture
from rewards.task import Task, load_task
from rl.config import PretrainConfig
from rl.tokenizer import train_tokenizer

IGNORE = -100


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of prompt and completion (end mark included) and where the completion begins."""

    ids: list[int]
    prompt_length: int
    family: str


def encode(tokenizer: PreTrainedTokenizerFast, task: Task, text: str, gold: dict[str, object], family: str) -> Example:
    prompt = tokenizer.apply_chat_template(messages(task, text), tokenize=False, add_generation_prompt=True)
    prompt_ids = tokenizer.encode(prompt, add_special_tokens=False)
    completion_ids = tokenizer.encode(task.canonical(gold), add_special_tokens=False)
    return Example([*prompt_ids, *completion_ids, tokenizer.eos_token_id], len(prompt_ids), family)


def pad(examples: list[Example], pad_id: int) -> tuple[Tensor, Tensor]:
    """(ids_BS, labels_BS), padded on the right: under a causal mask padding is invisible to what stands before it."""
    length = max(len(e.ids) for e in examples)
    ids_BS = torch.tensor([e.ids + [pad_id] * (length - len(e.ids)) for e in examples])
    labels_BS = torch.full_like(ids_BS, IGNORE)
    for row, e in enumerate(examples):
        labels_BS[row, e.prompt_length : len(e.ids)] = ids_BS[row, e.prompt_length : len(e.ids)]
    return ids_BS, labels_BS


def batches(
    config: PretrainConfig, tokenizer: PreTrainedTokenizerFast, tasks: dict[str, Task], cap: list[int]
) -> Iterator[list[Example]]:
    """Endless batches of about `tokens_per_step` tokens and like lengths; those over cap[0] are passed over."""
    rng = Random(config.seed)
    source = mixture(config.tasks, config.seed, config.layouts)
    while True:
        pool: list[Example] = []
        while len(pool) < config.pool_documents:
            name, document = next(source)
            assert document.gold is not None
            example = encode(tokenizer, tasks[name], document.text, document.gold, document.id.rsplit("-", 1)[1])
            if len(example.ids) <= cap[0]:
                pool.append(example)
        pool.sort(key=lambda e: len(e.ids))
        groups: list[list[Example]] = [[]]
        for e in pool:
            if groups[-1] and (len(groups[-1]) + 1) * len(e.ids) > config.tokens_per_step:
                groups.append([])
            groups[-1].append(e)
        rng.shuffle(groups)
        yield from groups


def completion_logits(model: Qwen3ForCausalLM, ids_BS: Tensor, labels_BS: Tensor) -> tuple[Tensor, Tensor]:
    """(logits_TV, targets_T) over the completion tokens alone."""
    hidden_BSH = model.model(input_ids=ids_BS, use_cache=False).last_hidden_state[:, :-1]
    targets_BS = labels_BS[:, 1:]
    kept = targets_BS != IGNORE
    return model.lm_head(hidden_BSH[kept]), targets_BS[kept]


@torch.no_grad()
def exactness(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, examples: list[Example], bf16: bool = True
) -> dict[str, float]:
    """Share of documents answered right, token for token (greedy: argmax is right everywhere), by family."""
    model.eval()
    right: dict[str, list[float]] = defaultdict(list)
    ordered = sorted(examples, key=lambda e: len(e.ids))
    for first in range(0, len(ordered), 16):
        chunk = ordered[first : first + 16]
        ids_BS, labels_BS = pad(chunk, int(tokenizer.pad_token_id))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            logits_TV, targets_T = completion_logits(model, ids_BS, labels_BS)
        hits = torch.split(logits_TV.argmax(-1) == targets_T, [len(e.ids) - e.prompt_length for e in chunk])
        for e, hit in zip(chunk, hits, strict=True):
            right["all"].append(float(hit.all()))
            right[e.family].append(float(hit.all()))
    model.train()
    return {name: sum(values) / len(values) for name, values in right.items()}


def held_examples(
    config: PretrainConfig, tokenizer: PreTrainedTokenizerFast, tasks: dict[str, Task], layouts: Layouts, count: int
) -> list[Example]:
    out = []
    for name in tasks:
        for i in range(count):
            document = generate(name, config.seed + 1_000_003, i, layouts)
            assert document.gold is not None
            out.append(encode(tokenizer, tasks[name], document.text, document.gold, document.id.rsplit("-", 1)[1]))
    return out


def start(config: PretrainConfig, tasks: dict[str, Task]) -> tuple[PreTrainedTokenizerFast, Qwen3ForCausalLM]:
    """A tokenizer learned from synthetic documents and random weights; or both from config.init, to go on from."""
    if config.init is not None:
        model = Qwen3ForCausalLM.from_pretrained(config.init, dtype=torch.float32, attn_implementation="sdpa")
        return PreTrainedTokenizerFast.from_pretrained(config.init), model
    texts: list[str] = []
    for name, document in islice(mixture(config.tasks, config.seed + 7, config.layouts), config.tokenizer_documents):
        assert document.gold is not None
        texts += [document.text, tasks[name].canonical(document.gold), tasks[name].prompt]
    tokenizer = train_tokenizer(texts, config.vocabulary, config.max_positions)
    return tokenizer, Qwen3ForCausalLM(model_config(config, tokenizer))


def rate(progress: float, config: PretrainConfig) -> float:
    """Share of the top rate: a plateau, then straight down to 0 over the last `decay_share`."""
    return min(1.0, max(0.0, (1.0 - progress) / config.decay_share)) if config.decay_share else 1.0


def pretrain(config: PretrainConfig) -> dict[str, object]:
    """Trains the starter and writes it to config.out. Returns what log.jsonl says last."""
    torch.manual_seed(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    tasks = {name: load_task(name) for name in config.tasks}
    tokenizer, model = start(config, tasks)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)

    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(hidden, lr=config.muon_lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=config.adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    tops = [config.muon_lr, config.adam_lr]
    cap = [config.short_tokens]
    stream = batches(config, tokenizer, tasks, cap)
    seen = held_examples(config, tokenizer, tasks, "seen", config.evaluate_documents)
    unseen = held_examples(config, tokenizer, tasks, "held_out", config.evaluate_documents)
    begin, step, tokens, documents, progress = time.monotonic(), 0, 0, 0, 0.0
    recent: list[float] = []
    last: dict[str, object] = {}
    with (out / "log.jsonl").open("w") as log:
        while progress < 1.0:
            growth = min(1.0, progress / config.short_first) if config.short_first else 1.0
            cap[0] = int(config.short_tokens + growth**2 * (config.long_tokens - config.short_tokens))
            scale = rate(progress, config) * min(1.0, (step + 1) / max(1, config.warmup_steps))
            for optimizer, top in zip(optimizers, tops, strict=True):
                optimizer.param_groups[0]["lr"] = top * scale
            examples = next(stream)
            ids_BS, labels_BS = pad(examples, int(tokenizer.pad_token_id))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits_TV, targets_T = completion_logits(model, ids_BS, labels_BS)
            loss = F.cross_entropy(logits_TV.float(), targets_T)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            step, tokens, documents = step + 1, tokens + sum(len(e.ids) for e in examples), documents + len(examples)
            progress = max(step / config.steps, (time.monotonic() - begin) / (60 * config.minutes))
            recent.append(float(loss.detach()))
            done = progress >= 1.0
            if step % 20 == 0 or done:
                line: dict[str, object] = {
                    "step": step,
                    "progress": round(progress, 4),
                    "loss": round(sum(recent) / len(recent), 4),
                    "tokens": tokens,
                    "documents": documents,
                    "seconds": round(time.monotonic() - begin, 1),
                    "cap": cap[0],
                }
                recent = []
                if step % config.evaluate_every == 0 or done:
                    line["exact_seen_layouts"] = exactness(model, tokenizer, seen)
                    line["exact_held_out_layouts"] = exactness(model, tokenizer, unseen)
                log.write(json.dumps(line) + "\n")
                log.flush()
                print({k: (v if not isinstance(v, dict) else v["all"]) for k, v in line.items()}, flush=True)
                last = line
            if step % config.save_every == 0 or done:
                save(model, tokenizer, out)
                write_recipe(config, last, out)
    return last


def write_recipe(config: PretrainConfig, last: dict[str, object], out: Path) -> None:
    """recipe.json: the stages that made this model (those of config.init first), each with its config and last line."""
    earlier = Path(config.init) / "recipe.json" if config.init else None
    stages = json.loads(earlier.read_text())["stages"] if earlier and earlier.exists() else []
    stages.append({"config": config.model_dump(mode="json", exclude={"out", "init"}), "last": last})
    (out / "recipe.json").write_text(json.dumps({"stages": stages}, indent=1) + "\n")


def model_config(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=config.vocabulary,
        hidden_size=config.hidden,
        intermediate_size=config.intermediate,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.key_value_heads,
        head_dim=config.hidden // config.heads,
        max_position_embeddings=config.max_positions,
        tie_word_embeddings=True,
        rope_theta=10000.0,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
    )


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """bf16 safetensors, with the tokenizer beside them."""
    copy = Qwen3ForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
