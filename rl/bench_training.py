"""`offramp bench ahead` and `learning`: whole training runs of rl/grpo.py side by side, their rewards step by step.

ahead      run.driver=ahead beside on_policy, in turns: seconds a step, and what a version of age does to the reward
learning   model.attention=shared_prefix beside plain, seed by seed: the same gradient, and the same curves up to chance
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from rewards.errors import ConfigError
from rl.bench_sides import Turn, Worker, median, ratios
from rl.metrics import PHASES

KEPT = ("policy_age", "logprob_gap", "tis_weight", "grad_norm")


def ahead(settings: dict[str, Any]) -> dict[str, Any]:
    """{"on_policy_over_ahead", seconds by side, reward by step of both}; the first two steps are to warm up."""
    names = ("on_policy", "ahead")
    aside = tempfile.TemporaryDirectory(prefix="offramp-bench-", ignore_cleanup_errors=True)
    dirs = {name: str(Path(aside.name, name)) for name in names}
    workers = [Worker(name, changed(settings, "run", driver=name, dir=dirs[name])) for name in names]
    try:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(settings["steps"]):
            for worker in workers:
                found[worker.name].append(worker.run())
    finally:
        for worker in workers:
            worker.__exit__(None, None, None)
        aside.cleanup()
    measured = {name: steps[2:] for name, steps in found.items()}
    by_step = ratios(measured, "on_policy", "ahead")
    return {
        "on_policy_over_ahead": statistics.median(by_step),
        "on_policy_over_ahead_by_step": by_step,
        "seconds_a_step": {name: median(steps) for name, steps in measured.items()},
        "seconds_in_all": {name: sum(step["seconds"] for step in steps) for name, steps in measured.items()},
        "seconds": {name: {key: median(steps, key) for key in PHASES} for name, steps in measured.items()},
        **{key: {name: [step[key] for step in steps] for name, steps in found.items()} for key in ("reward", *KEPT)},
    }


def learning(settings: dict[str, Any]) -> dict[str, Any]:
    """{"within_spread", "gradient_difference", difference and spread of the rewards, curves by side and seed}.

    difference: of the two means over seeds, mean over steps; spread: standard deviation over seeds, mean over steps and
    sides. gradient_difference: of the first update, ||ours - plain|| / ||plain||, the largest over seeds and tensors.
    """
    names = ("shared_prefix", "plain")
    curves: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    gradients = []
    with tempfile.TemporaryDirectory(prefix="offramp-bench-", ignore_cleanup_errors=True) as folder:
        for seed in range(settings["seed"], settings["seed"] + settings["seeds"]):
            for name in names:
                run_dir = str(Path(folder, f"{name}-{seed}"))
                side = changed(changed(settings, "run", seed=seed, dir=run_dir), "model", attention=name)
                side["gradient"] = str(Path(folder, f"{name}-{seed}.safetensors"))
                with Worker(name, side) as worker:
                    curves[name][f"seed {seed}"] = [worker.run()["reward"] for _ in range(settings["steps"])]
            gradients.append(gradient_difference(*(Path(folder, f"{name}-{seed}.safetensors") for name in names)))
    return {
        **compared(*([list(curves[name].values()) for name in names])),
        "gradient_difference": max(one["worst_tensor"] for one in gradients),
        "gradient_difference_by_seed": gradients,
        "reward": curves,
    }


def compared(ours: Sequence[Sequence[float]], plain: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Two sets of curves, one a seed, step by step: the distance of their means beside the spread of the seeds."""
    steps = range(len(plain[0]))
    means = [[statistics.fmean(curve[step] for curve in side) for step in steps] for side in (ours, plain)]
    apart = [abs(a - b) for a, b in zip(*means, strict=True)]
    single = len(plain) == 1
    spreads = [0.0 if single else statistics.stdev(c[step] for c in side) for side in (ours, plain) for step in steps]
    difference, spread = statistics.fmean(apart), statistics.fmean(spreads)
    return {
        "within_spread": difference <= spread,
        "difference": difference,
        "spread": spread,
        "reward_mean": {"shared_prefix": means[0], "plain": means[1]},
    }


def gradient_difference(ours: Path, plain: Path) -> dict[str, float]:
    """Relative differences of two gradients in files: of all parameters together, and of the worst tensor."""
    from safetensors.torch import load_file

    if not (ours.exists() and plain.exists()):
        raise ConfigError("bench learning: no group had spread, so there was no update; more --steps or --completion")
    a, b = load_file(ours), load_file(plain)
    apart = {name: (a[name].double() - b[name].double()).norm().item() for name in b}
    size = {name: b[name].double().norm().item() for name in b}
    whole = sum(v**2 for v in apart.values()) ** 0.5 / max(sum(v**2 for v in size.values()) ** 0.5, 1e-300)
    return {"whole": whole, "worst_tensor": max(apart[name] / max(size[name], 1e-300) for name in b)}


def changed(settings: Mapping[str, Any], section: str, **values: Any) -> dict[str, Any]:
    """Settings whose run has other values in one section."""
    run = json.loads(settings["run"])
    run[section] |= values
    return {**settings, "run": json.dumps(run)}


class Training:
    """rl.grpo.train as `offramp train` runs it: one step a turn."""

    def __init__(self, settings: dict[str, Any]) -> None:
        from rl.config import RunConfig

        run = json.loads(settings["run"])
        # One step more, so that the last turn ends before the evaluation at the end.
        run["run"] |= {"threads": settings["threads"], "steps": settings["steps"] + 1}
        self.config = RunConfig.model_validate_json(json.dumps(run))
        self.gradient = settings.get("gradient")

    def drive(self, turn: Turn) -> None:
        from safetensors.torch import save_file

        from rl import grpo
        from rl.record import Record

        record, apply, started = Record.step, grpo.apply_gradients, 0.0

        def recorded(self: Record, number: int, metrics: Any, *rest: Any) -> None:
            nonlocal started
            record(self, number, metrics, *rest)
            seconds = {key: metrics[f"seconds/{key}"] for key in PHASES}
            numbers = {key: metrics.get(key, 0.0) for key in KEPT}
            elapsed = time.perf_counter() - started
            turn.done({"seconds": elapsed, "reward": metrics["reward/mean"], **seconds, **numbers})
            turn.wait()
            started = time.perf_counter()

        def applied(run: Any, lr: float, skip: bool) -> None:
            if self.gradient and not skip:
                named = run.policy.model.named_parameters()
                save_file({name: p.grad.clone() for name, p in named if p.grad is not None}, self.gradient)
                self.gradient = None
            apply(run, lr, skip)

        turn.wait()
        started = time.perf_counter()
        with mock.patch.object(Record, "step", recorded), mock.patch.object(grpo, "apply_gradients", applied):
            grpo.train(self.config)
