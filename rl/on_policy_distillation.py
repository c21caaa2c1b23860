"""On-policy distillation: Agarwal et al. 2024, GKD (arXiv:2306.13649), over TRL's DistillationTrainer.

The policy answers, and a local teacher's distribution at every token of that answer is what it learns: no label, no
reward, and no exposure bias. Answers come from our sampler, so that a CPU with vLLM does as well as a GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DistillationConfig, DistillationTrainer

from rewards.errors import ConfigError
from rl import config as c
from rl import lora
from rl.evaluate import find_model
from rl.finetune import FineTune, Keeper, arguments, check_rows, fit, optimizers, steps_of
from rl.finetune import tensors_for_sampler as tensors

log = logging.getLogger(__name__)


def run(tune: FineTune) -> dict[str, Any]:
    """Train `tune.model` towards its teacher. Returns what the teacher was, for the record."""
    config, method = tune.config, tune.config.method
    assert isinstance(method, c.OnPolicyDistillationConfig)
    check_rows(config, tune.train_set.documents, "documents")
    teacher = load_teacher(tune, method.teacher)
    tune.model = lora.wrap(tune.model, config.lora)
    longest = max(map(len, tune.train_set.prompt_ids)) + config.sampler.max_tokens
    steps = steps_of(config, len(tune.train_set))
    trainer = SampledDistillationTrainer(
        tune,
        model=tune.model,
        teacher_model=teacher,
        args=DistillationConfig(
            **arguments(config, steps, longest, tune.dir),
            beta=method.divergence,
            temperature=config.sampler.temperature,
            max_completion_length=config.sampler.max_tokens,
        ),
        train_dataset=Dataset.from_list([{"prompt": document.id} for document in tune.train_set.documents]),
        processing_class=tune.tokenizer,
        optimizers=optimizers(tune, steps),
        callbacks=[Keeper(tune, steps)],
    )
    fit(tune, trainer)
    return {"teacher": {"model": method.teacher, "parameters": sum(p.numel() for p in teacher.parameters())}}


def load_teacher(tune: FineTune, path: str) -> Any:
    """The teacher, frozen. Raises ConfigError where it is not there or has another vocabulary."""
    _, folder = find_model(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        teacher = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, tune.config.model.dtype))
    except (OSError, ValueError) as error:
        raise ConfigError(f"method.teacher: cannot load {path!r} as a causal language model: {error}") from error
    if tokenizer.get_vocab() != tune.tokenizer.get_vocab():
        raise ConfigError(
            f"method.teacher={path}: its tokens are not those of {tune.config.model.path}; distributions over tokens "
            "compare only with the same tokenizer: use method=distill with its answers"
        )
    return teacher.eval().requires_grad_(False)


class SampledDistillationTrainer(DistillationTrainer):  # type: ignore[misc]
    """DistillationTrainer whose prompts are ours, by document id, and whose answers our sampler draws."""

    def __init__(self, tune: FineTune, **kwargs: Any) -> None:
        self._tune = tune
        self._prompts = dict(tune.train_set.prompts)
        self._drawn: list[str] = []
        self._loaded = 0
        super().__init__(**kwargs)

    def _tokenize_prompts(self, prompts: Sequence[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        self._drawn = list(prompts)
        return [list(self._prompts[name]) for name in prompts], None, {}

    def _generate_single_turn(self, prompt_ids: Sequence[Sequence[int]], *_: Any, **__: Any) -> list[list[int]]:
        tune, step = self._tune, self.state.global_step
        if self._loaded != step:
            dtype = getattr(torch, tune.config.model.dtype)
            tune.sampler.load(tensors(lora.merged_state(tune.model), dtype), version=step)
            self._loaded = step
        prompts = list(zip(self._drawn, map(tuple, prompt_ids), strict=True))
        groups = tune.sampler.rollout(prompts, 1, run_seed=tune.config.run.seed, step=step + 1)
        answers = [list(group.rollouts[0].completion_ids) for group in groups]
        tune.tokens += sum(map(len, prompt_ids)) + sum(map(len, answers))
        return answers
