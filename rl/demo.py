"""The main job as a demo: the starter policy learns layout families that it never saw, from its own scored attempts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rewards.errors import ConfigError
from rl import evaluate
from rl.config import RunConfig
from rl.grpo import train
from rl.run import answers_path

METRIC = "documents_exact"
SHOWN = ("n", "reward", "documents_exact", "header_exact", "field_accuracy", "field_f1", "schema_valid", "parses")


def main(config: RunConfig) -> dict[str, Any]:
    """Train, then set the starter beside the trained policy on the same unseen documents, vendors unseen too.

    The policy after the last step is shown, not the best one: nothing is picked on the documents that are reported.
    Prints the table and returns {"starter", "grpo", "delta_documents_exact", "ci95", "seconds"}.
    """
    if not config.eval.at_start or config.eval.metric != METRIC:
        raise ConfigError(f"eval: the demo needs eval.at_start=true and eval.metric={METRIC}")
    start = time.perf_counter()
    train(config)
    run_dir = Path(config.run.dir)
    before, after = (evaluate.read_answers(answers_path(run_dir, step)) for step in (0, config.run.steps))
    columns = {
        name: evaluate.summarise(answers, resamples=config.eval.bootstrap, seen_groups=None)
        for name, answers in (("starter", before), ("grpo", after))
    }
    delta = evaluate.delta(before, after, METRIC, resamples=config.eval.bootstrap)
    low, high = delta["ci95"]
    print(evaluate.table(columns))
    print(f"documents_exact: {delta['value']:+.3f} [{low:+.3f}, {high:+.3f}] (paired, 95 %)")
    print(f"the run is in {run_dir}, its curves in {run_dir / 'plots' / 'curves.png'}")
    return {
        **{name: {key: column[key] for key in SHOWN if key in column} for name, column in columns.items()},
        "delta_documents_exact": delta["value"],
        "ci95": delta["ci95"],
        "seconds": round(time.perf_counter() - start, 1),
    }
