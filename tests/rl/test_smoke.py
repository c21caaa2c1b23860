"""The whole loop as a user starts it: command line, starter policy, synthetic receipts, rubric, vLLM, record."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STARTER = ROOT / "results" / "starter"


def offramp(*arguments: str) -> dict[str, object]:
    command = [sys.executable, "-m", "launch.cli", *arguments, "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.slow
@pytest.mark.skipif(not STARTER.is_dir(), reason="no results/starter: run offramp pretrain")
def test_train_then_evaluate(tmp_path: Path) -> None:
    run = tmp_path / "smoke"
    trained = offramp("train", "experiment=smoke", f"run.dir={run}", "sampler.max_tokens=256", "eval.max_tokens=256")
    assert trained["steps"] == 2
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["kind"]) for line in lines] == [(0, "eval"), (1, "train"), (2, "train"), (2, "eval")]
    for line in lines:
        if line["kind"] == "train":
            assert line["reward/mean"] > 0.3
            assert line["logprob_gap"] is None or line["logprob_gap"] < 0.01
            assert line["seconds/score"] < 0.2 * line["seconds/total"]
    assert {path.name for path in (run / "rollouts").iterdir()} == {"step_000001.parquet", "step_000002.parquet"}

    evaluated = offramp(
        "evaluate",
        f"model={run}",
        "docs=synthetic",
        "docs.train=0",
        "docs.test=4",
        "part=test",
        "sampler.max_tokens=256",
    )
    assert evaluated["n"] == 4
    for name in ("reward", "documents_exact", "header_exact", "field_f1", "schema_valid"):
        metric = evaluated[name]
        assert isinstance(metric, dict)
        low, high = metric["ci95"]
        assert 0 <= low <= metric["value"] <= high <= 1
