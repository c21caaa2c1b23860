"""`offramp bench step` and `scaling`: whole training steps, vLLM and rewards included, beside TRL's in turns.

Prompts are synthetic receipts filled up to a length; completions run to their limit on both sides (the end token is
ignored). Both score with the task's rubric; the total is then spread by the text's hash, because answers that are cut
all fail alike, groups without spread cost us nothing, and that would be no comparison.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from rl.bench_sides import Turn, Worker, in_turns, median, ratios

if TYPE_CHECKING:
    from rewards.document import Document
    from rewards.task import Task
    from rl.prepare import Prepared

PHASES = ("sample", "score", "update", "load", "rest", "total")


def step(settings: dict[str, Any]) -> dict[str, Any]:
    """{"trl_over_ours", seconds by side and phase, shares of our step}."""
    workers = [Worker(name, settings) for name in ("our_step", "trl_step")]
    try:
        found = in_turns(workers, settings["rounds"])
    finally:
        for worker in workers:
            worker.__exit__(None, None, None)
    by_round = ratios(found, "trl_step", "our_step")
    return {
        "trl_over_ours": statistics.median(by_round),
        "trl_over_ours_by_round": by_round,
        "seconds": {
            "ours": {key: median(found["our_step"], key) for key in ("seconds", *PHASES)},
            "trl": {key: median(found["trl_step"], key) for key in ("seconds", "sample", "score", "load")},
        },
        **shares(found["our_step"]),
    }


def load(settings: dict[str, Any]) -> dict[str, Any]:
    """What of our own step goes to handing over the weights, and to everything beside sample, update and load."""
    with Worker("our_step", settings) as worker:
        found = in_turns([worker], settings["rounds"])["our_step"]
    seconds = {key: median(found, key) for key in ("seconds", *PHASES)}
    return {"seconds": seconds, **shares(found)}


def shares(found: list[dict[str, float]]) -> dict[str, float]:
    """Shares of the wall time of a step, medians over rounds."""
    covered = ("sample", "update", "load")
    return {
        "load_share": statistics.median(one["load"] / one["seconds"] for one in found),
        "other_share": statistics.median(1 - sum(one[key] for key in covered) / one["seconds"] for one in found),
    }


def scaling(settings: dict[str, Any]) -> dict[str, Any]:
    """Seconds of an update against documents, G and prompt length, beside the least-squares line through its tokens.

    Each is changed alone, to a half, the same and twice; all sizes are run in turns. `worst` is the largest distance
    from the line, as a share of it.
    """
    found: dict[str, Any] = {}
    for key in ("documents", "group", "prompt"):
        sizes = [max(settings[key] // 2, 1), settings[key], settings[key] * 2]
        workers = [Worker("ours", settings | {key: size}) for size in sizes]
        try:
            runs: list[list[dict[str, float]]] = [[] for _ in sizes]
            for turn in range(settings["rounds"] + 1):
                for place, worker in enumerate(workers):
                    numbers = worker.run()
                    if turn:
                        runs[place].append(numbers)
        finally:
            for worker in workers:
                worker.__exit__(None, None, None)
        points = [(median(each, "tokens"), median(each)) for each in runs]
        slope, intercept = statistics.linear_regression(*zip(*points, strict=True))
        off = [seconds / (intercept + slope * tokens) - 1 for tokens, seconds in points]
        found[key] = {"sizes": sizes, "tokens": [t for t, _ in points], "seconds": [s for _, s in points], "off": off}
    return {"scaling": found, "worst": max(abs(value) for one in found.values() for value in one["off"])}


def prepared_documents(settings: dict[str, Any], tokenizer: Any) -> tuple[Prepared, Task]:
    """As many documents as there are in a step, of at most `prompt` prompt tokens, and nearly so."""
    from rewards.document import Document
    from rewards.task import load_task
    from rl.prepare import encode, prepare

    task, lines = load_task(settings["task"]), _lines(settings)
    documents: list[Document] = []
    at = 0
    for number in range(settings["documents"]):
        text: list[str] = []
        while True:
            longer = [*text, lines[at % len(lines)]]
            document = Document(f"b{number}", "\n".join(longer), f"g{number}", None)
            if len(encode(document, task, tokenizer, schema_in_prompt=False)) > settings["prompt"]:
                break
            text, at = longer, at + 1
        documents.append(Document(f"b{number}", "\n".join(text), f"g{number}", None))
    prepared = prepare(
        documents, task, tokenizer, max_prompt_tokens=settings["prompt"], schema_in_prompt=False, what="bench"
    )
    return prepared, task


def _lines(settings: dict[str, Any]) -> list[str]:
    from envs.synthetic import documents

    made = documents(settings["task"], 64, seed=settings["seed"])
    return [line for document in made for line in document.text.splitlines() if line.strip()]


def spread(total: float, text: str) -> float:
    """The total, moved a little by the text, so that no group is without spread."""
    return 0.9 * total + 0.1 * hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=1).digest()[0] / 255


class OurStep:
    """Steps of rl/grpo.py itself, as `offramp train` runs it, record and rewards' processes included."""

    def __init__(self, settings: dict[str, Any]) -> None:
        from transformers import AutoTokenizer

        from rewards.document import Document
        from rl.config import RunConfig

        folder = Path(tempfile.mkdtemp(prefix="offramp-bench-"))
        prepared, _ = prepared_documents(settings, AutoTokenizer.from_pretrained(settings["model"]))
        write(folder / "documents.jsonl", prepared.documents)
        write(folder / "other.jsonl", [Document("other", "OTHER SHOP\nTOTAL 1.00", "other", None)])
        values = json.loads(settings["run"])
        values["run"] |= {"dir": str(folder / "run"), "threads": settings["threads"], "steps": 10**6}
        values["docs"] |= {"path": str(folder / "documents.jsonl"), "test_path": str(folder / "other.jsonl")}
        self.config = RunConfig.model_validate_json(json.dumps(values))

    def drive(self, turn: Turn) -> None:
        """rl.grpo.train, with a pause after each step's record is written."""
        from rl import grpo, sampler
        from rl.record import Record

        score, record, seeded = grpo.sample_and_score, Record.step, sampler.Sampler._seeded
        started: list[float] = []

        def begin() -> None:
            turn.wait()
            started[:] = [time.perf_counter()]

        def sample_and_score(*args: Any) -> Any:
            if not started:
                begin()
            groups, scores = score(*args)
            rows = [
                [
                    replace(one, total=spread(one.total, rollout.text))
                    for one, rollout in zip(row, group.rollouts, strict=True)
                ]
                for row, group in zip(scores, groups, strict=True)
            ]
            return groups, rows

        def recorded(self: Record, number: int, metrics: Any, *rest: Any) -> None:
            record(self, number, metrics, *rest)
            seconds = time.perf_counter() - started[0]
            turn.done({"seconds": seconds, **{key: metrics[f"seconds/{key}"] for key in PHASES}})
            begin()

        def to_the_limit(self: sampler.Sampler, *args: Any) -> Any:
            params = seeded(self, *args)
            params.ignore_eos = True
            return params

        with (
            mock.patch.object(grpo, "sample_and_score", sample_and_score),
            mock.patch.object(Record, "step", recorded),
            mock.patch.object(sampler.Sampler, "_seeded", to_the_limit),
        ):
            grpo.train(self.config)


def write(path: Path, documents: Sequence[Document]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for document in documents:
            row = {"id": document.id, "text": document.text, "group": document.group, "gold": None}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
