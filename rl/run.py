"""What a training run holds: opened from its config, resumed from its folder, closed in the end."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from rewards.errors import ConfigError, DataError
from rewards.pool import RewardPool
from rewards.task import Task
from rl import checkpoint, distributed, evaluate
from rl.config import RunConfig, with_later_keys
from rl.constraint import constraint
from rl.drafting import refuse_on_cpu
from rl.interrupt import Interrupts
from rl.lora import merged_state
from rl.metrics import peak_memory_mb
from rl.monitor import Monitor
from rl.optim import make_optimizer
from rl.policy import Policy, load_policy
from rl.prepare import Prepared, at_most, load_documents, prepare, write_left_out
from rl.record import Record, read_metrics
from rl.sampler import TRAINER_TOO, Sampler
from rl.task_of import task_of

log = logging.getLogger(__name__)

MAY_CHANGE = (
    *("run.resume", "run.steps", "run.dir", "run.name", "record", "checkpoint", "monitor", "launch.timeout_s"),
    *("docs.path", "docs.test_path"),
)
"""Keys that a resumed run may have otherwise than before. Documents may lie elsewhere: their content is compared."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands, beside weights and optimizer state; plain data in each checkpoint.

    Example: Progress(documents="9f2c44", step=20, position=320, lines=22, evaluated=20, best_step=20, best_value=0.81)
    """

    documents: str
    """Fingerprint of the training and the held-out documents."""
    step: int = 0
    """Updates done; also the policy version."""
    position: int = 0
    """Documents drawn from the stream."""
    lines: int = 0
    """Lines of metrics.jsonl."""
    evaluated: int = -1
    """Step of the last evaluation."""
    best_step: int = -1
    best_value: float | None = None
    """Step and eval.metric of the best evaluation."""
    spent: float = 0.0
    """Share of run.max_seconds or run.max_tokens that is used up; 0 where there is neither."""


@dataclass(slots=True)
class Run:
    """The parts of a run. Only `progress` is ever replaced."""

    config: RunConfig
    dir: Path
    task: Task
    accelerator: Accelerator
    interrupts: Interrupts
    policy: Policy
    reference: Policy | None
    optimizer: torch.optim.Optimizer
    train_set: Prepared
    """Without gold."""
    test_set: Prepared
    pool: RewardPool
    record: Record
    monitor: Monitor
    sampler: Sampler
    progress: Progress
    saved: Progress
    opened_at: int
    """The step at which this process began."""
    older: dict[str, Tensor] | None = None
    """Weights of before the last update, where the sampler samples one step ahead."""

    @property
    def ended(self) -> bool:
        """Whether all steps are done, or the budget is spent."""
        return self.progress.step >= self.config.run.steps or self.progress.spent >= 1

    def spent_after(self, metrics: Mapping[str, float]) -> float:
        """`progress.spent` after a step with these metrics."""
        run, share = self.config.run, 0.0
        if run.max_seconds is not None:
            share = metrics["seconds/total"] / run.max_seconds
        if run.max_tokens is not None:
            share = max(share, (metrics["tokens/prompt"] + metrics["tokens/completion"]) / run.max_tokens)
        return self.progress.spent + share

    def save(self) -> None:
        """Write a checkpoint of the last whole step, unless it is there already."""
        if self.saved != self.progress and self.accelerator.is_main_process:
            checkpoint.save(
                self.dir,
                self.progress.step,
                self.policy.state_to_save(),
                self.optimizer.state_dict(),
                asdict(self.progress),
                keep=self.config.checkpoint.keep,
                older=self.older,
            )
        self.saved = self.progress

    def save_best(self) -> None:
        """Write the policy as a model folder that vLLM and transformers load, in the place of the best one before."""
        if self.accelerator.is_main_process:
            checkpoint.save_model_dir(
                merged_state(self.policy.causal_lm),
                self.config.model.path,
                self.dir / "best",
                getattr(torch, self.config.model.dtype),
            )

    def record_evaluation(self, step: int, summary: Mapping[str, Any], answers: Sequence[evaluate.Answer]) -> None:
        """The summary into the metrics, each answer into a file of its own."""
        if self.accelerator.is_main_process:
            evaluate.write_answers(answers_path(self.dir, step), answers)
        self.record.evaluation(step, summary)
        self.record.alarms(self.monitor.after_evaluation(step, summary))

    def result(self) -> dict[str, Any]:
        """What the run ends with, for --json: where it is, the best step by eval.metric, and the last evaluation."""
        progress, resamples = self.progress, self.config.eval.bootstrap
        last: dict[str, Any] | None = None
        if progress.evaluated >= 0 and self.accelerator.is_main_process:  # the other ranks have no file to wait for
            answers = evaluate.read_answers(answers_path(self.dir, progress.evaluated))
            last = evaluate.summarise(answers, resamples=resamples, seen_groups=self.train_set.groups)
        return {
            "run": str(self.dir),
            "steps": progress.step,
            "best": {"step": progress.best_step, self.config.eval.metric: progress.best_value},
            "evaluated": progress.evaluated,
            "evaluation": distributed.broadcast(last, self.accelerator),
            "cost": {"peak_memory_mb": peak_memory_mb()},
        }


def open_run(config: RunConfig, stack: ExitStack) -> Run:
    """Load, prepare, resume and start everything; what needs closing is closed by `stack`."""
    accelerator = distributed.start(config.run.world_size, config.launch.timeout_s)
    threads = threads_each(config)
    if threads is not None:
        torch.set_num_threads(threads)
    run_dir, task = Path(config.run.dir), task_of(config)
    # Its workers are forks: started before anything large or threaded is in memory.
    pool = stack.enter_context(RewardPool(task, config.rewards.workers, config.rewards.deadline_s))
    found = find_checkpoint(config, run_dir)

    if config.sampler.drafting is not None:
        refuse_on_cpu("training")
    model = config.model
    policy = load_policy(
        model.path, model.dtype, model.attention, model.gradient_checkpointing, config.lora, config.run.seed
    )
    policy.model.to(accelerator.device)
    reference = None
    if config.method.kl_coef > 0:
        reference = load_policy(model.path, model.dtype, model.attention).freeze()
        reference.model.to(accelerator.device)
    optimizer = make_optimizer(policy.model.named_parameters(), config.optim)
    train_set, test_set = prepare_sets(config, task, policy, run_dir, write=accelerator.is_main_process)
    progress = Progress(documents=f"{train_set.fingerprint()}-{test_set.fingerprint()}")

    record = stack.enter_context(Record(run_dir, config))
    record.texts = {document.id: document.text for document in train_set.documents}
    if found is not None:
        progress = restore(found, progress, policy, optimizer)
    record.truncate(lines=progress.lines, step=progress.step)
    record.note(documents=progress.documents)
    monitor = Monitor(config.monitor, task, train_set.documents)
    monitor.replay(read_metrics(run_dir))
    sampler = Sampler(
        model.path,
        config.sampler,
        max_model_len=model.max_positions,
        dtype=model.dtype,
        threads=threads,
        seed=config.run.seed,
        constraint=constraint(config.sampler.structured, task, (*train_set.documents, *test_set.documents)),
        gpu_share=TRAINER_TOO,
    )
    stack.callback(sampler.close)
    sampler.load(policy.named_tensors_for_sampler(), version=progress.step)
    interrupts = stack.enter_context(Interrupts())
    return Run(
        config=config,
        dir=run_dir,
        task=task,
        accelerator=accelerator,
        interrupts=interrupts,
        policy=policy,
        reference=reference,
        optimizer=optimizer,
        train_set=train_set,
        test_set=test_set,
        pool=pool,
        record=record,
        monitor=monitor,
        sampler=sampler,
        progress=progress,
        saved=progress,
        opened_at=progress.step,
        older=None if found is None else found.older,
    )


def threads_each(config: RunConfig) -> int | None:
    """torch threads of the trainer, and of the sampler: run.threads, or half of them where both work at once."""
    if config.run.driver == "on_policy":
        return config.run.threads
    return max((config.run.threads or torch.get_num_threads()) // 2, 1)


def answers_path(run_dir: Path, step: int) -> Path:
    """Where the answers of the evaluation after `step` updates are."""
    return run_dir / "evaluations" / f"step_{step:06d}.jsonl"


def prepare_sets(
    config: RunConfig, task: Task, policy: Policy, run_dir: Path, *, write: bool
) -> tuple[Prepared, Prepared]:
    """Training documents, their gold taken away, and at most eval.documents held-out ones."""
    parts = load_documents(config.docs, task, run_dir / "logs")
    prepared = []
    for what, documents, completion_tokens in (
        ("train", [evaluate.without_gold(document) for document in parts.train], config.sampler.max_tokens),
        ("test", at_most(parts.test, config.eval.documents), config.eval.max_tokens),
    ):
        one = prepare(
            documents,
            task,
            policy.tokenizer,
            max_prompt_tokens=config.model.max_positions - completion_tokens,
            schema_in_prompt=config.model.schema_in_prompt,
            what=what,
        )
        if write:
            write_left_out(run_dir / "logs", one, what)
        prepared.append(one)
    return prepared[0], prepared[1]


def find_checkpoint(config: RunConfig, run_dir: Path) -> checkpoint.Checkpoint | None:
    """The checkpoint to go on from, or None for a new run. Raises ConfigError where run.resume forbids it."""
    found = None if config.run.resume == "never" else checkpoint.latest(run_dir)
    if config.run.resume == "never" and (run_dir / "metrics.jsonl").exists():
        raise ConfigError(
            f"run.resume=never: {run_dir} holds a run already; choose another run.name or run.resume=auto"
        )
    if config.run.resume == "must" and found is None:
        raise ConfigError(f"run.resume=must: {run_dir} holds no whole checkpoint; use run.resume=auto to start")
    if found is not None:
        before = with_later_keys(json.loads((run_dir / "config.json").read_text(encoding="utf-8")))
        change = first_change(before, config.model_dump(mode="json"))
        if change is not None:
            key, old, new = change
            raise ConfigError(
                f"{key}: the run in {run_dir} was made with {old!r}, not {new!r}; change it back or run.name"
            )
    return found


def first_change(before: Any, now: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """The first key, dotted, whose value a resumed run may not change; None where there is no such key."""
    if key in MAY_CHANGE:
        return None
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return None if before == now else (key, before, now)
    for name in [*before, *(name for name in now if name not in before)]:
        change = first_change(before.get(name), now.get(name), f"{key}.{name}" if key else name)
        if change is not None:
            return change
    return None


def restore(
    found: checkpoint.Checkpoint, fresh: Progress, policy: Policy, optimizer: torch.optim.Optimizer
) -> Progress:
    """Put weights and optimizer state back; the progress of the checkpoint. Raises DataError for other documents."""
    progress = Progress(**found.extra)
    if progress.documents != fresh.documents:
        raise DataError("docs: not the documents that the run began with; bring them back, or choose another run.name")
    policy.restore(found.policy_state)
    optimizer.load_state_dict(found.optimizer_state)
    found.restore_rng()
    log.info("resumed after step %d", progress.step)
    return progress
