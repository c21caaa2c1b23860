"""What the methods share that learn from a fixed set of answers: TRL trains, the record and the evaluation are ours.

A run of `sft`, `distill`, `graded_sft`, `dpo` or `on_policy_distill` writes the same folder as one of rl/grpo.py: the
same documents, split, greedy evaluations, choice of the best policy and intervals. It takes minutes, so it is not
resumed: a run that was cut starts anew, and one that has ended gives back its result.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from envs.documents import Trace
from rewards.errors import ConfigError, DataError, InfraError
from rewards.pool import RewardPool
from rewards.task import Task
from rl import checkpoint, evaluate
from rl.config import TrainConfig
from rl.constraint import constraint
from rl.interrupt import Interrupts
from rl.lora import merged_state
from rl.metrics import peak_memory_mb
from rl.optim import learning_rate, make_optimizer
from rl.prepare import Prepared, at_most, load_documents, prepare, write_left_out
from rl.record import Record, write_whole
from rl.sampler import TRAINER_TOO, Sampler
from rl.task_of import task_of

log = logging.getLogger(__name__)

RESULT = "result.json"
METRIC_NAMES = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "lr",
    "entropy": "entropy",
    "mean_token_accuracy": "token_accuracy",
    "rewards/margins": "dpo/margin",
    "rewards/accuracies": "dpo/accuracy",
}
"""TRL's names of a step's numbers and ours."""


@dataclass(slots=True)
class FineTune:
    """The parts of a run, and where it stands."""

    config: TrainConfig
    dir: Path
    task: Task
    tokenizer: Any
    model: Any
    """The transformers model, float32, or what PEFT or TRL made of it."""
    train_set: Prepared
    """With gold, which only the method `sft` reads."""
    test_set: Prepared
    pool: RewardPool
    record: Record
    sampler: Sampler
    step: int = 0
    tokens: int = 0
    """Prompt and completion tokens that went through an update."""
    seconds: float = 0.0
    """Of updates and of what the method does before the first; evaluations and the start are not in it."""
    began: float = 0.0
    """perf_counter when the method began."""
    prepare_s: float = 0.0
    """Seconds before the first update that no step's line has yet: its own answers, a reference's log-probabilities."""
    evaluated: int = -1
    best_step: int = -1
    best_value: float | None = None
    summary: dict[str, Any] | None = None

    def evaluate(self) -> None:
        """Greedy answers on the held-out documents; the best policy so far, by eval.metric, is kept."""
        state = merged_state(self.model)
        dtype = getattr(torch, self.config.model.dtype)
        self.sampler.load(tensors_for_sampler(state, dtype), version=self.step)
        answers = evaluate.answer(
            self.test_set, self.sampler, self.pool, self.task, max_tokens=self.config.eval.max_tokens
        )
        summary = evaluate.summarise(answers, resamples=self.config.eval.bootstrap, seen_groups=self.train_set.groups)
        value = summary.get(self.config.eval.metric, {}).get("value")
        if self.best_step < 0 or (value is not None and (self.best_value is None or value > self.best_value)):
            checkpoint.save_model_dir(state, self.config.model.path, self.dir / "best", dtype)
            self.best_step, self.best_value = self.step, value
        evaluate.write_answers(self.dir / "evaluations" / f"step_{self.step:06d}.jsonl", answers)
        self.record.evaluation(self.step, summary)
        self.evaluated, self.summary = self.step, summary

    def own_answers(self, count: int) -> dict[str, list[Trace]]:
        """`count` answers of the first policy to each training document, drawn at sampler.temperature."""
        groups = self.sampler.rollout(self.train_set.prompts, count, run_seed=self.config.run.seed, step=0)
        return {g.document_id: [Trace(g.document_id, "policy", r.text) for r in g.rollouts] for g in groups}

    def result(self, **facts: Any) -> dict[str, Any]:
        """What the run ends with; the same keys as rl.run.Run.result, and what it cost."""
        return {
            "run": str(self.dir),
            "steps": self.step,
            "best": {"step": self.best_step, self.config.eval.metric: self.best_value},
            "evaluated": self.evaluated,
            "evaluation": self.summary,
            "cost": {
                "seconds_training": round(self.seconds, 3),
                "tokens_trained": self.tokens,
                "peak_memory_mb": peak_memory_mb(),
            },
            **facts,
        }


def train(config: TrainConfig) -> dict[str, Any]:
    """Train by TRL's trainer for `config.method.kind`. Raises ConfigError, DataError or InfraError."""
    if config.launch.processes != 1:
        raise ConfigError(f"method={config.method.kind}: trains in one process; use launch=local")
    run_dir = Path(config.run.dir)
    if (before := finished(config)) is not None:
        log.info("%s has ended before; its result is given again", run_dir)
        return before
    if config.run.resume == "must":
        raise ConfigError(
            f"run.resume=must: a run of method={config.method.kind} is not resumed but starts anew; use run.resume=auto"
        )
    with ExitStack() as stack:
        tune = open_fine_tune(config, stack)
        run = _method(config.method.kind)
        tune.began = time.perf_counter()
        facts = run(tune)
        if tune.evaluated != tune.step:
            tune.evaluate()
        result = tune.result(**facts)
        tune.record.note(cost=result["cost"], **facts)
        write_whole(run_dir / RESULT, json.dumps({"config": config_key(config), "result": result}, indent=1) + "\n")
        return result


def _method(kind: str) -> Callable[[FineTune], dict[str, Any]]:
    """TRL comes with them: imported before the clock begins."""
    if kind == "dpo":
        from rl import dpo

        return dpo.run
    if kind == "on_policy_distill":
        from rl import on_policy_distillation

        return on_policy_distillation.run
    from rl import sft

    return sft.run


def finished(config: TrainConfig) -> dict[str, Any] | None:
    """The result of the same run where it has ended, or None. Raises ConfigError where another run is in its place."""
    path = Path(config.run.dir) / RESULT
    if not path.is_file():
        return None
    if config.run.resume == "never":
        raise ConfigError(f"run.resume=never: {config.run.dir} holds a run already; choose another run.name")
    stored = json.loads(path.read_text(encoding="utf-8"))
    if not _same_run(json.loads(stored["config"]), json.loads(config_key(config))):
        raise ConfigError(f"run.name={config.run.name}: {config.run.dir} holds another run; choose another run.name")
    result: dict[str, Any] = stored["result"]
    return result


def config_key(config: TrainConfig) -> str:
    """The configuration as text, without what does not decide the weights."""
    values = config.model_dump(mode="json", exclude={"record": True, "run": {"resume", "dir", "name"}})
    return json.dumps(values, sort_keys=True)


def _same_run(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether two configurations are the same; their documents may lie in other files of the same content."""
    for place in ("path", "test_path"):
        old, new = before["docs"].get(place), now["docs"].get(place)
        if old != new and old and new and Path(old).is_file() and Path(old).read_bytes() == Path(new).read_bytes():
            before["docs"][place] = new
    return before == now


def open_fine_tune(config: TrainConfig, stack: ExitStack) -> FineTune:
    """Load and prepare everything; what needs closing is closed by `stack`."""
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    torch.manual_seed(config.run.seed)
    run_dir, task, model = Path(config.run.dir), task_of(config), config.model
    # Its workers are forks: started before anything large or threaded is in memory.
    pool = stack.enter_context(RewardPool(task, config.rewards.workers, config.rewards.deadline_s))
    try:
        tokenizer = AutoTokenizer.from_pretrained(model.path)
        causal_lm = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise ConfigError(f"model.path: cannot load {model.path!r} as a causal language model: {error}") from error
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"model.path={model.path}: its tokenizer has no end-of-sequence token")
    train_set, test_set = prepare_sets(config, task, tokenizer, run_dir)
    record = stack.enter_context(Record(run_dir, config))
    record.truncate(lines=0, step=0)
    record.note(documents=f"{train_set.fingerprint()}-{test_set.fingerprint()}")
    sampler = Sampler(
        model.path,
        config.sampler,
        max_model_len=model.max_positions,
        dtype=model.dtype,
        threads=config.run.threads,
        seed=config.run.seed,
        constraint=constraint(config.sampler.structured, task, (*train_set.documents, *test_set.documents)),
        gpu_share=TRAINER_TOO,
    )
    stack.callback(sampler.close)
    stack.enter_context(Interrupts())
    return FineTune(config, run_dir, task, tokenizer, causal_lm, train_set, test_set, pool, record, sampler)


def prepare_sets(config: TrainConfig, task: Task, tokenizer: Any, run_dir: Path) -> tuple[Prepared, Prepared]:
    """Training documents, gold and all, and at most eval.documents held-out ones: those of rl.run.prepare_sets."""
    parts = load_documents(config.docs, task, run_dir / "logs")
    prepared = []
    for what, documents, completion_tokens in (
        ("train", parts.train, config.sampler.max_tokens),
        ("test", at_most(parts.test, config.eval.documents), config.eval.max_tokens),
    ):
        one = prepare(
            documents,
            task,
            tokenizer,
            max_prompt_tokens=config.model.max_positions - completion_tokens,
            schema_in_prompt=config.model.schema_in_prompt,
            what=what,
        )
        write_left_out(run_dir / "logs", one, what)
        prepared.append(one)
    return prepared[0], prepared[1]


class Keeper(TrainerCallback):  # type: ignore[misc]
    """Writes TRL's numbers as lines of our record, evaluates when it is due, and counts what a run costs."""

    def __init__(self, tune: FineTune, steps: int) -> None:
        self.tune = tune
        self.steps = steps
        self._since = time.perf_counter()
        self._tokens = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._since = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs:  # TRL's closing line
            return
        tune, elapsed = self.tune, time.perf_counter() - self._since
        metrics = {ours: float(logs[theirs]) for theirs, ours in METRIC_NAMES.items() if theirs in logs}
        if not all(math.isfinite(metrics.get(name, 0.0)) for name in ("loss", "grad_norm")):
            raise InfraError(
                f"step {state.global_step}: loss {metrics['loss']}, gradient norm {metrics.get('grad_norm')}; "
                "lower optim.lr"
            )
        total = elapsed + tune.prepare_s
        tune.step, tune.seconds = state.global_step, tune.seconds + total
        more = {"tokens/trained": tune.tokens - self._tokens, "seconds/update": elapsed, "seconds/total": total}
        if tune.prepare_s:
            more["seconds/prepare"], tune.prepare_s = tune.prepare_s, 0.0
        self._tokens = tune.tokens
        tune.record.step(tune.step, metrics | more, [], [])
        if spent(tune.config, tune.seconds, tune.tokens) >= 1:
            control.should_training_stop = True
        every = tune.config.eval.every_steps
        if every and tune.step % every == 0 and tune.step < self.steps:
            tune.evaluate()


def spent(config: TrainConfig, seconds: float, tokens: int) -> float:
    """Share of the run's budget that is used up; 0 where there is none."""
    run = config.run
    return max(
        0.0 if run.max_seconds is None else seconds / run.max_seconds,
        0.0 if run.max_tokens is None else tokens / run.max_tokens,
    )


def steps_of(config: TrainConfig, rows: int) -> int:
    """Updates for `method.passes` passes over `rows`, at most run.steps."""
    passes = getattr(config.method, "passes", None)
    if passes is None:
        return config.run.steps
    return max(1, min(config.run.steps, math.ceil(float(passes) * rows / config.batch.documents_per_step)))


def arguments(config: TrainConfig, steps: int, longest: int, tune_dir: Path, **more: Any) -> dict[str, Any]:
    """TRL's arguments that all trainers share: our batches, precision and seed; no logs, no checkpoints of its own.

    longest: tokens of the longest row, from which follows how many rows fit in batch.tokens_per_batch at once.
    """
    rows = config.batch.documents_per_step
    fits = max(1, config.batch.tokens_per_batch // max(longest, 1))
    at_once = next(n for n in range(min(rows, fits), 0, -1) if rows % n == 0)
    on_cpu = not torch.cuda.is_available()
    return {
        "output_dir": str(tune_dir / "logs" / "trainer"),
        "max_steps": steps,
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": rows // at_once,
        "learning_rate": config.optim.lr,
        "max_grad_norm": config.optim.max_grad_norm,
        "bf16": config.model.dtype == "bfloat16",
        "use_cpu": on_cpu,
        "gradient_checkpointing": bool(config.model.gradient_checkpointing),  # TRL has one kind of it
        "seed": config.run.seed,
        "data_seed": config.run.seed,
        "logging_steps": 1,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "log_level": "error",
        "dataloader_pin_memory": not on_cpu,
        **more,
    }


def optimizers(tune: FineTune, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    """The optimizer and the schedule that rl/grpo.py has, so that methods differ in what they learn from.

    The schedule follows the steps or the run's budget, whichever is further on.
    """
    config = tune.config

    def factor(step: int) -> float:
        place = min(max(step, int(steps * spent(config, tune.seconds, tune.tokens))), steps - 1)
        return learning_rate(place, steps, config.optim) / config.optim.lr

    optimizer = make_optimizer(tune.model.named_parameters(), config.optim)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def fit(tune: FineTune, trainer: Any) -> None:
    """Evaluate the first policy where asked for, then train. What TRL prints stays unprinted: the record has it."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    tune.prepare_s = time.perf_counter() - tune.began
    if tune.config.eval.at_start:
        tune.evaluate()
    tune.model.train()
    trainer.train()


def tensors_for_sampler(state: dict[str, Tensor], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor in the sampler's type); tied tensors once, since vLLM ties them itself."""
    seen: set[int] = set()
    for name, tensor in state.items():
        if name == "lm_head.weight" and (tensor.data_ptr() in seen or _equals_embeddings(state, tensor)):
            continue
        seen.add(tensor.data_ptr())
        yield name, tensor.detach().to(dtype) if tensor.is_floating_point() else tensor.detach()


def _equals_embeddings(state: dict[str, Tensor], head: Tensor) -> bool:
    embeddings = next((t for n, t in state.items() if n.endswith("embed_tokens.weight")), None)
    return embeddings is not None and embeddings.shape == head.shape and torch.equal(embeddings, head)


def completion_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a completion, its end included."""
    return [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]


def check_rows(config: TrainConfig, rows: Sequence[object], what: str) -> None:
    """Raises DataError where there is nothing to learn from."""
    if len(rows) < config.batch.documents_per_step:
        raise DataError(
            f"method={config.method.kind}: {len(rows)} {what}, fewer than "
            f"batch.documents_per_step={config.batch.documents_per_step}; bring more, or make smaller steps"
        )
