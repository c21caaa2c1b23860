"""The peer: TRL's GRPOTrainer with its own defaults, and the few lines that it needs on a CPU.

Its defaults that matter here: bf16 autocast (but for --dtype float32), gradient checkpointing on, 8 completions a
micro-batch, no second look at prompts that repeat, log-probabilities of the start of the step by a forward of their own
(because vLLM samples), loss "dapo", importance weights masked by sequence. Set by us: the group size, the length of
completions, and as many micro-batches in a step as there are completions.
"""

from __future__ import annotations

import functools
import os
import tempfile
import time
from typing import Any

from rewards.rubric import Rubric
from rl.bench_sides import Turn
from rl.bench_update import Measured, random_groups

MICRO_BATCH = 8
"""TRL's per_device_train_batch_size."""


def make_trainer(settings: dict[str, Any], prompts: list[str], reward: Any, rollout: Any = None, **more: Any) -> Any:
    """A GRPOTrainer whose step holds all the documents' completions; on the device that our side takes."""
    import datasets
    import torch
    import trl
    from transformers import AutoTokenizer

    completions = settings["documents"] * settings["group"]
    size = next(size for size in range(MICRO_BATCH, 0, -1) if completions % size == 0)
    arguments = trl.GRPOConfig(
        output_dir=tempfile.mkdtemp(prefix="offramp-bench-"),
        per_device_train_batch_size=size,
        gradient_accumulation_steps=completions // size,
        num_generations=settings["group"],
        max_completion_length=settings["completion"],
        bf16=settings["dtype"] == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        save_strategy="no",
        logging_steps=10**6,
        disable_tqdm=True,
        shuffle_dataset=False,
        max_steps=10**6,
        learning_rate=1e-6,
        seed=settings["seed"],
        **more,
    )
    return trl.GRPOTrainer(
        model=settings["model"],
        reward_funcs=reward,
        args=arguments,
        train_dataset=datasets.Dataset.from_dict({"prompt": prompts}),
        processing_class=AutoTokenizer.from_pretrained(settings["model"]),
        rollout_func=rollout,
    )


class TrlUpdate(Measured):
    """TRL's training steps on given completions: its data flow from prompts to gradients, without a sampler."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import torch
        from transformers import AutoConfig

        super().__init__(settings)
        groups = random_groups(settings, AutoConfig.from_pretrained(settings["model"]).vocab_size)
        rows = [(group.prompt_ids, rollout) for group in groups for rollout in group.rollouts]

        def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
            return {
                "prompt_ids": [list(prompt) for prompt, _ in rows],
                "completion_ids": [list(each.completion_ids) for _, each in rows],
                "logprobs": [list(each.sampler_logprobs) for _, each in rows],
            }

        torch.manual_seed(settings["seed"])
        noise = torch.randn(len(rows)).tolist()
        self.trainer = make_trainer(settings, ["a"] * settings["documents"], lambda completions, **_: noise, rollout)
        self.trainer.use_vllm, self.trainer._last_loaded_step = (
            True,
            0,
        )  # as with vLLM; no engine is asked
        self.trainer.current_gradient_accumulation_steps = self.trainer.args.gradient_accumulation_steps
        self.trainer.create_optimizer_and_scheduler(num_training_steps=10)
        model = self.trainer.model
        if self.trainer.args.gradient_checkpointing:
            model.gradient_checkpointing_enable(
                self.trainer.args.gradient_checkpointing_kwargs or {"use_reentrant": False}
            )
        self.model = self.trainer.accelerator.prepare(model)
        self.inputs = [{"prompt": "a"} for _ in rows]

    def work(self) -> float:
        arguments = self.trainer.args
        for _ in range(arguments.gradient_accumulation_steps):
            self.trainer.training_step(self.model, self.inputs, None)
        self.model.zero_grad(set_to_none=True)
        settings = self.settings
        return float(settings["documents"] * settings["group"] * (settings["prompt"] + settings["completion"]))


class TrlStep:
    """Whole steps of TRL's own training loop, vLLM in colocate mode, with a pause between two of them.

    What a CPU needs: no compiling in vLLM, threads set back after it, and weights handed over in one call.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        os.environ |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_CPU_KVCACHE_SPACE": "1",
        }
        import torch
        from transformers import AutoTokenizer
        from trl.generation import vllm_generation

        from rl.bench_step import prepared_documents, spread
        from rl.weights import load_weights

        set_num_threads = torch.set_num_threads
        prepared, task = prepared_documents(settings, AutoTokenizer.from_pretrained(settings["model"]))
        ids = {name: list(prompt) for name, prompt in prepared.prompts}
        documents = {document.id: document for document in prepared.documents}
        rubric = Rubric(task)
        self.seconds: dict[str, float] = {}

        def reward(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
            start = time.perf_counter()
            found = [
                spread(rubric.score(documents[name], text).total, text)
                for name, text in zip(prompts, completions, strict=True)
            ]
            self.seconds["score"] = self.seconds.get("score", 0.0) + time.perf_counter() - start
            return found

        def sync(generation: Any) -> None:
            start = time.perf_counter()
            tensors = ((name, tensor.detach()) for name, tensor in generation.model.named_parameters())
            load_weights(generation.llm, tensors, None)
            self.seconds["load"] = self.seconds.get("load", 0.0) + time.perf_counter() - start

        engine = functools.partial(vllm_generation.LLM, enforce_eager=True, dtype=settings["dtype"])
        vllm_generation.LLM = engine
        vllm_generation.VLLMGeneration.sync_weights = sync
        names = list(ids)
        self.trainer = make_trainer(
            settings,
            [names[i % len(names)] for i in range(64 * settings["documents"])],
            reward,
            use_vllm=True,
            vllm_max_model_length=settings["prompt"] + settings["completion"],
            generation_kwargs={"ignore_eos": True},
        )
        set_num_threads(settings["threads"])
        self.trainer._tokenize_prompts = lambda prompts: ([ids[name] for name in prompts], None, {})
        generate = self.trainer.vllm_generation.generate

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            found = generate(*args, **kwargs)
            self.seconds["sample"] = self.seconds.get("sample", 0.0) + time.perf_counter() - start
            return found

        self.trainer.vllm_generation.generate = timed

    def drive(self, turn: Turn) -> None:
        """TRL's train(), which never ends by itself."""
        import transformers

        side = self

        class Pause(transformers.TrainerCallback):  # type: ignore[misc]
            def __init__(self) -> None:
                self.start: float | None = None

            def on_step_begin(self, *_: Any, **__: Any) -> None:
                if self.start is None:
                    self.begin()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                assert self.start is not None
                turn.done({"seconds": time.perf_counter() - self.start, **side.seconds})
                self.begin()

            def begin(self) -> None:
                turn.wait()
                side.seconds.clear()
                self.start = time.perf_counter()

        self.trainer.add_callback(Pause())
        self.trainer.train()
