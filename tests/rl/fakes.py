"""Stand-ins, so that the loop runs dozens of times in a test: a sampler without vLLM, a reward without a task."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewards.document import Document
from rewards.rubric import RubricScore
from rl.config import RunConfig, SamplerConfig
from rl.rollouts import Group, Rollout

VALUES: dict[str, Any] = {
    "run": {
        "name": "test",
        "dir": "runs/test",
        "seed": 0,
        "steps": 4,
        "resume": "auto",
        "threads": 1,
        "world_size": 1,
        "max_seconds": None,
        "max_tokens": None,
        "driver": "on_policy",
    },
    "task": "receipt",
    "rubric": None,
    "docs": {
        "kind": "jsonl",
        "path": "",
        "extra": [],
        "test_path": None,
        "test_fraction": 0.2,
        "split_seed": 0,
        "max_bad": 0,
        "limit": None,
        "train_documents": None,
    },
    "model": {
        "path": "",
        "dtype": "float32",
        "attention": "shared_prefix",
        "max_positions": 1024,
        "gradient_checkpointing": False,
        "schema_in_prompt": False,
    },
    "method": {
        "kind": "grpo",
        "scale_rewards": "group",
        "clip_low": 0.2,
        "clip_high": 0.2,
        "kl_coef": 0.0,
        "tis_cap": None,
        "truncated": "score",
        "max_completion_length": 8,
    },
    "lora": None,
    "optim": {
        "lr": 1e-3,
        "betas": [0.9, 0.95],
        "eps": 1e-8,
        "weight_decay": 0.0,
        "warmup_steps": 0,
        "decay": "constant",
        "max_grad_norm": 1.0,
    },
    "batch": {"documents_per_step": 3, "group_size": 4, "tokens_per_batch": 1200, "resample_rounds": 0},
    "sampler": {
        "engine": {},
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 8,
        "logprob_gap_max": 0.01,
        "structured": "text",
        "drafting": None,
    },
    "rewards": {"workers": 1, "deadline_s": 10.0},
    "eval": {
        "every_steps": 2,
        "at_start": True,
        "documents": None,
        "max_tokens": 8,
        "metric": "reward",
        "bootstrap": 100,
    },
    "checkpoint": {"every_steps": 1, "keep": 2},
    "record": {
        "rollouts": True,
        "wandb": {"enabled": False, "project": "offramp", "group": None, "table_rows": 0, "timeout_s": 1.0},
    },
    "monitor": {
        "enabled": True,
        "window": 2,
        "z": 4.0,
        "reward_rise": 0.03,
        "effects": {"null_share": 0.2, "constant_share": 0.15, "entropy": -0.3},
        "truth_fall": 0.05,
    },
    "launch": {"kind": "local", "processes": 1, "backend": "auto", "timeout_s": 300.0},
}


def write_receipts(path: Path, total: str = "3.20") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for i in range(15):
            gold = {"vendor": f"SHOP {i}", "date": None, "items": [], "tax": None, "rounding": None, "total": total}
            row = {"id": f"d{i}", "text": f"SHOP {i}\nTOTAL {total}", "group": f"g{i}", "gold": gold}
            file.write(json.dumps(row) + "\n")


def make_config(model: Path, run_dir: Path, **changes: object) -> RunConfig:
    """A run of seconds over 15 tiny receipts; `changes` by dotted key, with "__" for the dot: run__steps=2."""
    values = copy.deepcopy(VALUES)
    values["model"]["path"], values["run"]["dir"] = str(model), str(run_dir)
    if "docs__path" not in changes:
        values["docs"]["path"] = str(run_dir.parent / "documents.jsonl")
        write_receipts(run_dir.parent / "documents.jsonl")
    for key, value in changes.items():
        place, names = values, key.split("__")
        for name in names[:-1]:
            place = place[name]
        place[names[-1]] = value
    return RunConfig.model_validate_json(json.dumps(values))


class TorchSampler:
    """The interface of rl.sampler.Sampler, over transformers and without a cache: slow, small and exact."""

    def __init__(self, model_path: str | Path, config: SamplerConfig, **_: object) -> None:
        self.config = config
        self.version = 0
        self.model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(model_path)

    def load(self, named_tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        tensors = {name: tensor.float().clone() for name, tensor in named_tensors}
        tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"])
        self.model.load_state_dict(tensors)
        self.version = version

    def rollout(
        self, prompts: Sequence[tuple[str, Sequence[int]]], group_size: int, *, run_seed: int, step: int
    ) -> list[Group]:
        groups = []
        for name, ids in prompts:
            seed = random.Random(f"{run_seed}/{step}/{name}").randrange(2**31)
            groups.append(
                Group(name, tuple(ids), tuple(self._draw(name, ids, group_size, seed, self.config.max_tokens)))
            )
        return groups

    def greedy(self, prompts: Sequence[tuple[str, Sequence[int]]], max_tokens: int) -> list[Rollout]:
        return [self._draw(name, ids, 1, None, max_tokens)[0] for name, ids in prompts]

    def close(self) -> None:
        pass

    @torch.no_grad()
    def _draw(self, name: str, prompt: Sequence[int], n: int, seed: int | None, max_tokens: int) -> list[Rollout]:
        generator = torch.Generator().manual_seed(seed or 0)
        ids_NL = torch.tensor([list(prompt)] * n)
        logprobs = []
        for _ in range(max_tokens):
            logprobs_NV = self.model(input_ids=ids_NL).logits[:, -1].log_softmax(-1)
            drawn_N1 = (
                logprobs_NV.argmax(-1, keepdim=True)
                if seed is None
                else torch.multinomial(logprobs_NV.exp(), 1, generator=generator)
            )
            logprobs.append(logprobs_NV.gather(1, drawn_N1)[:, 0])
            ids_NL = torch.cat([ids_NL, drawn_N1], dim=1)
        rollouts = []
        for row, logprobs_R in zip(ids_NL[:, len(prompt) :].tolist(), torch.stack(logprobs, 1).tolist(), strict=True):
            end = self.tokenizer.eos_token_id
            length = row.index(end) + 1 if end in row else len(row)
            rollouts.append(
                Rollout(
                    document_id=name,
                    completion_ids=tuple(row[:length]),
                    sampler_logprobs=tuple(logprobs_R[:length]),
                    text=self.tokenizer.decode(row[:length], skip_special_tokens=True),
                    finish_reason="stop" if end in row else "length",
                    policy_version=self.version,
                    seed=seed or 0,
                )
            )
        return rollouts


def scored(value: float) -> RubricScore:
    return RubricScore(total=value, status="scored", gate=None, parts={"toy": value}, findings=(), error=None)


def failed() -> RubricScore:
    return RubricScore(total=0.0, status="error", gate=None, parts={}, findings=(), error="deadline")


def share_of_digits(document: Document, text: str) -> RubricScore:
    return scored(sum(c.isdigit() for c in text) / max(1, len(text)))


class ToyPool:
    """The interface of rewards.pool.RewardPool, in this process, with any function as the reward."""

    reward: Callable[[Document, str], RubricScore] = staticmethod(share_of_digits)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> ToyPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def score(self, pairs: Sequence[tuple[Document, Sequence[str]]]) -> list[list[RubricScore]]:
        assert all(document.gold is None for document, _ in pairs), "a reward saw gold"
        return [[type(self).reward(document, text) for text in texts] for document, texts in pairs]
