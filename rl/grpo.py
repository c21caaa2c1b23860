"""THE loop: sample a group of attempts at each document, score them by the task's rubric, raise the better.

Steps are counted by the updates done: line 0 of metrics.jsonl is the evaluation at the start, train line k is update k.
Everything random is a function of (run.seed, step, document, sample), so weights, optimizer state and `Progress`
are the whole state, and a run that was killed and resumed ends like one that was not.

Training never reads gold: the documents come here without it, and only the evaluation compares with it.

Suffixes of names: P documents (groups), G completions of a group, T completion tokens of a micro-batch.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rewards.errors import InfraError, Paused
from rewards.rubric import RubricScore
from rl import distributed, drafting, evaluate, replay
from rl.advantages import has_spread
from rl.ahead import Attempts
from rl.batching import Batch, batches, drop_without_spread, totals
from rl.config import RunConfig
from rl.interrupt import Stopped
from rl.losses import Totals
from rl.methods import METHODS
from rl.metrics import Clock, rollout_metrics
from rl.optim import learning_rate
from rl.rollouts import Group
from rl.run import Run, open_run
from rl.stream import Stream

log = logging.getLogger(__name__)


def train(config: RunConfig) -> dict[str, Any]:
    """Train a policy on its own scored attempts. The run's folder holds the record; returns its last evaluation.

    Raises ConfigError, DataError or InfraError for what a user can mend, and Stopped, state saved, on SIGTERM or ^C.
    """
    with ExitStack() as stack:
        run = open_run(config, stack)
        method, policy, accelerator = METHODS[config.method.kind], run.policy, run.accelerator
        attempts = stack.enter_context(Attempts(run, sample_and_score))
        try:
            while True:
                if evaluation_is_due(run):
                    evaluate_policy(run)
                if checkpoint_is_due(run):
                    run.save()
                if run.ended:
                    return run.result()
                clock, step = Clock(), run.progress.step + 1

                drawn = attempts.take(step, clock)
                groups, scores = drawn.groups, drawn.scores
                if drafts_went_wrong(run, groups):
                    continue  # the same documents once more

                with clock.phase("update"):
                    scored, rewards_PG = reward_table(groups, scores)
                    advantages_PG = method.advantage(rewards_PG, config.method)
                    trained, spread_PG, dropped = drop_without_spread(scored, rewards_PG, advantages_PG)
                    if run.reference is not None and not config.batch.resample_rounds:
                        # A group without spread still has a divergence; its advantages are nothing but rounding.
                        trained, spread_PG = scored, advantages_PG * has_spread(rewards_PG)[:, None]
                    # A dropped group adds 0 to the gradient and keeps its place in the mean, unless others took it.
                    denominators = totals(trained if config.batch.resample_rounds else scored, config.method.truncated)
                    mine = distributed.shard(range(len(trained)), accelerator)
                    micro_batches = packed(run, [trained[i] for i in mine], spread_PG[mine])
                    sums: defaultdict[str, float] = defaultdict(float)
                    for batch in micro_batches:
                        batch = batch.to(accelerator.device)
                        logprobs_T, entropy_T = policy.logprobs_and_entropy(batch, config.sampler.temperature)
                        ref_logprobs_T = reference_logprobs(run, batch)
                        loss, metrics = method.loss(
                            logprobs_T, batch, denominators, config.method, ref_logprobs_T=ref_logprobs_T
                        )
                        accelerator.backward(loss)
                        metrics |= {"loss": loss.item(), "entropy": token_mean(entropy_T, batch, denominators)}
                        for name, value in metrics.items():
                            sums[name] += value
                    distributed.sum_gradients(policy.model.parameters(), accelerator)
                    metrics = step_metrics(run, sums, trained, denominators)
                    check(run, step, metrics, micro_batches, denominators)

                with clock.phase("sample"):
                    attempts.wait()
                with run.interrupts.held():  # a signal waits: weights, record and progress move together
                    with clock.phase("update"):
                        attempts.before_update()
                        apply_gradients(run, metrics["lr"], skip=not trained)
                    with clock.phase("load"):
                        run.sampler.load(policy.named_tensors_for_sampler(), version=step)
                    metrics |= rollout_metrics(groups, scores) | {"rollout/zero_spread": dropped / len(groups)}
                    metrics["policy_age"] = policy_age(groups, run.progress.step)
                    metrics |= run.monitor.measure(groups)
                    metrics |= clock.metrics() | drawn.seconds
                    run.record.step(step, metrics, groups, scores)
                    run.record.alarms(run.monitor.after_step(step, metrics))
                    run.progress = replace(
                        run.progress,
                        step=step,
                        position=drawn.position,
                        lines=run.record.lines,
                        spent=run.spent_after(metrics),
                    )
        except Stopped as stopped:
            attempts.wait()
            run.save()
            log.warning("%s; saved after step %d, run.resume=auto goes on", stopped, run.progress.step)
            raise
        except Paused:  # between two updates: weights and progress belong together
            attempts.wait()
            run.save()
            log.warning("saved after step %d, run.resume=auto goes on", run.progress.step)
            raise


def packed(run: Run, groups: Sequence[Group], advantages_PG: Tensor) -> list[Batch]:
    """Micro-batches of at most batch.tokens_per_batch computed tokens, or of one group.

    Packed again where the first look at the shared prefix finds that it does not run: then rows repeat their prompts.
    """
    policy, config = run.policy, run.config
    while True:
        attention = policy.attention
        found = batches(
            groups,
            advantages_PG,
            config.batch.tokens_per_batch,
            truncated=config.method.truncated,
            attention=attention,
        )
        if found:
            policy.choose_attention(found[0].to(policy.device))
        if policy.attention == attention:
            return found


def drafts_went_wrong(run: Run, groups: Sequence[Group]) -> bool:
    """Now and then, whether attempts that were drawn with drafts are the policy's; where not, drafting ends."""
    step, sampler = run.progress.step, run.sampler
    if run.config.sampler.drafting is None or not sampler.drafting:
        return False
    broken = any(not math.isfinite(sum(r.sampler_logprobs)) for group in groups for r in group.rollouts)
    if step != run.opened_at and step % drafting.EVERY_STEPS and not broken:
        return False
    fault = drafting.fault(run.policy, groups, run.config.sampler.logprob_gap_max)
    if fault is None and broken:
        fault = "log-probabilities that are no numbers"
    if fault is None:
        return False
    log.warning("sampler.drafting is off from step %d on: %s", step + 1, fault)
    sampler.stop_drafting()
    sampler.load(run.policy.named_tensors_for_sampler(), version=step)
    return True


def evaluation_is_due(run: Run) -> bool:
    """At the start where asked for, every eval.every_steps, and at the end; once each, also across a resume."""
    step, config = run.progress.step, run.config
    if run.progress.evaluated == step:
        return False
    if step == 0:
        return config.eval.at_start
    return run.ended or (config.eval.every_steps > 0 and step % config.eval.every_steps == 0)


def evaluate_policy(run: Run) -> None:
    """Greedy answers on the held-out documents; the best policy so far, by eval.metric, is kept."""
    config, step = run.config, run.progress.step
    answers = evaluate.answer(
        run.test_set, run.sampler, run.pool, run.task, max_tokens=config.eval.max_tokens, accelerator=run.accelerator
    )
    summary = evaluate.summarise(answers, resamples=config.eval.bootstrap, seen_groups=run.train_set.groups)
    value = summary.get(config.eval.metric, {}).get("value")
    best = run.progress.best_value
    with run.interrupts.held():
        if value is not None and (best is None or value > best):
            run.save_best()
            run.progress = replace(run.progress, best_step=step, best_value=value)
        run.record_evaluation(step, summary, answers)
        run.progress = replace(run.progress, evaluated=step, lines=run.record.lines)


def checkpoint_is_due(run: Run) -> bool:
    step, config = run.progress.step, run.config
    return step > 0 and (run.ended or step % config.checkpoint.every_steps == 0)


def sample_and_score(run: Run, stream: Stream, step: int, clock: Clock) -> tuple[list[Group], list[list[RubricScore]]]:
    """Rollouts of the next documents and their scores: all of them, in the same order, on every rank.

    Each rank samples and scores its shard. With batch.resample_rounds, further documents take the place of groups
    without spread, up to so many rounds; all groups come back, also those without.
    """
    batch = run.config.batch
    groups: list[Group] = []
    scores: list[list[RubricScore]] = []
    used: list[int] = []
    wanted = batch.documents_per_step
    for _ in range(batch.resample_rounds + 1):
        drawn = stream.next(wanted, exclude=used)
        used += drawn
        mine = run.train_set.take(distributed.shard(drawn, run.accelerator))
        with clock.phase("sample"):
            sampled = run.sampler.rollout(mine.prompts, batch.group_size, run_seed=run.config.run.seed, step=step)
        with clock.phase("score"):
            texts = [[rollout.text for rollout in group.rollouts] for group in sampled]
            judged = run.pool.score(list(zip(mine.documents, texts, strict=True)))
        for group, row in distributed.gather(list(zip(sampled, judged, strict=True)), run.accelerator):
            groups.append(group)
            scores.append(row)
        with_spread = int(has_spread(reward_table(groups, scores)[1]).sum())
        wanted = min(batch.documents_per_step - with_spread, len(run.train_set) - len(used))
        if wanted <= 0:
            break
    return groups, scores


def reward_table(groups: Sequence[Group], scores: Sequence[Sequence[RubricScore]]) -> tuple[list[Group], Tensor]:
    """Groups without the attempts whose scoring failed, and rewards [P, G], NaN where a group is short of attempts.

    A failed scoring says nothing about the attempt: it leaves the group, so that it is neither a 0 nor in the baseline.
    """
    kept: list[Group] = []
    rows: list[list[float]] = []
    for group, row in zip(groups, scores, strict=True):
        known = [i for i, score in enumerate(row) if score.status == "scored"]
        if known:
            kept.append(replace(group, rollouts=tuple(group.rollouts[i] for i in known)))
            rows.append([row[i].total for i in known])
    width = max((len(group.rollouts) for group in groups), default=0)
    return kept, torch.tensor([row + [math.nan] * (width - len(row)) for row in rows]).reshape(len(rows), width)


def reference_logprobs(run: Run, batch: Batch) -> Tensor | None:
    if run.reference is None:
        return None
    with torch.no_grad():
        return run.reference.logprobs(batch, run.config.sampler.temperature)


def token_mean(values_T: Tensor | None, batch: Batch, denominators: Totals) -> float:
    """This batch's part of the mean over all tokens of the step."""
    assert values_T is not None
    return float((values_T * batch.mask_T).sum()) / max(denominators.tokens, 1)


def step_metrics(run: Run, sums: dict[str, float], trained: Sequence[Group], denominators: Totals) -> dict[str, float]:
    """The step's numbers over all ranks, gradient norm (before clipping) and learning rate among them."""
    config = run.config
    tokens = totals(trained, config.method.truncated).tokens
    metrics = distributed.sum_numbers(dict(sums), run.accelerator)
    for name in metrics.keys() - {"loss"}:  # as means over the tokens that were trained on, not over dropped groups too
        metrics[name] *= denominators.tokens / max(tokens, 1)
    norm = torch.nn.utils.clip_grad_norm_(run.policy.model.parameters(), config.optim.max_grad_norm)
    return {
        "loss": 0.0,
        **metrics,
        "grad_norm": float(norm),
        "lr": learning_rate(run.progress.step, config.run.steps, config.optim),
        "tokens/trained": tokens,
        "groups/trained": len(trained),
    }


def policy_age(groups: Sequence[Group], version: int) -> float:
    """Versions between the policy that drew the attempts and the one that is updated, mean over the attempts."""
    ages = [version - rollout.policy_version for group in groups for rollout in group.rollouts]
    return sum(ages) / max(len(ages), 1)


def check(run: Run, step: int, metrics: dict[str, float], micro_batches: Sequence[Batch], denominators: Totals) -> None:
    """Stop before the update when the step cannot be trusted. Every rank sees the same sums, so all stop together."""
    gap, gap_max = metrics.get("logprob_gap", 0.0), run.config.sampler.logprob_gap_max
    if run.config.sampler.structured != "text":
        gap = 0.0  # the mask lies between them
    if not (math.isfinite(metrics["loss"]) and math.isfinite(metrics["grad_norm"])):
        path = replay.write(
            run.dir / "replay" / f"step_{step:06d}_rank_{run.accelerator.process_index}",
            dict(run.policy.causal_lm.named_parameters()),
            micro_batches,
            denominators,
            {
                "step": step,
                "loss": repr(metrics["loss"]),
                "grad_norm": repr(metrics["grad_norm"]),
                "temperature": run.config.sampler.temperature,
                "model": run.config.model.model_dump(mode="json"),
                "method": run.config.method.model_dump(mode="json"),
            },
        )
        raise InfraError(
            f"step {step}: loss {metrics['loss']}, gradient norm {metrics['grad_norm']}; stopped before the update, "
            f"the batch is in {path}; lower optim.lr or look there"
        )
    if gap > gap_max:
        ahead = run.config.run.driver == "ahead"
        fix = "lower optim.lr (an update lies between them)" if ahead else "use model.dtype=float32"
        fix = "set sampler.drafting=null" if run.config.sampler.drafting is not None else fix
        raise InfraError(
            f"step {step}: sampler and trainer differ by {gap:.4f} nats a token, more than "
            f"sampler.logprob_gap_max={gap_max}; {fix}, or raise the bound if that is expected"
        )


def apply_gradients(run: Run, lr: float, skip: bool) -> None:
    """One optimizer step; none where no group was trained on, since momentum alone would still move the weights."""
    if not skip:
        for group in run.optimizer.param_groups:
            group["lr"] = lr
        run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
