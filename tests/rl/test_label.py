"""The teacher that is a local model, through vLLM: the starter labels layouts that it knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from envs import synthetic
from envs.documents import write_documents
from launch.cli import run
from launch.compose import compose_raw, finish
from rewards.rubric import Rubric
from rewards.task import load_task
from rl.label import LabelConfig

STARTER = Path(__file__).resolve().parents[2] / "results" / "starter"


@pytest.mark.parametrize(
    ("teacher", "more"),
    [
        ("openai", [f"teacher.endpoint.{key}" for key in ("model=m", "prompt_price=1.0", "completion_price=1.0")]),
        ("serve", ["teacher.endpoint.model=m"]),
        ("vllm", ["teacher.model.path=m"]),
        ("recorded", ["teacher.path=t.jsonl"]),
        ("faulty", []),
    ],
)  # fmt: skip
def test_every_teacher_composes(teacher: str, more: list[str]) -> None:
    words = [f"teacher={teacher}", "docs.path=d.jsonl", "out=o.jsonl", *more]
    config = finish(compose_raw("label", words, LabelConfig), LabelConfig)
    assert LabelConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.slow
def test_local_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pages = [synthetic.draw("receipt", 11, i, "seen", 0.5) for i in range(6)]
    docs, out = tmp_path / "docs.jsonl", tmp_path / "traces.jsonl"
    write_documents(docs, pages)
    words = [
        "label", "teacher=vllm", f"teacher.model.path={STARTER}", "teacher.model.max_positions=1536",
        "teacher.model.schema_in_prompt=false", "teacher.sampler.max_tokens=500", "teacher.greedy=false",
        "teacher.threads=1", f"docs.path={docs}", f"out={out}", "samples=2", "--json",
    ]  # fmt: skip
    assert run(words) == 0
    result: dict[str, Any] = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert result["labelled"] >= 6 and result["labelled"] + result["failed"] == 12
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["sample"] for row in rows} == {0, 1} and all(row["usage"]["completion_tokens"] > 20 for row in rows)
    rubric, by_id = Rubric(load_task("receipt")), {page.id: page for page in pages}
    rewards = [rubric.score(by_id[row["id"]], row["completion"]).total for row in rows]
    assert sum(rewards) / len(rewards) > 0.5
