"""The jobs of a comparison: their plans, what becomes of failed ones, and that no process is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from envs import synthetic
from envs.documents import write_documents
from launch import compare, job
from launch.compose import compose_compare
from rewards.errors import DataError, InfraError

TINY = ["docs=synthetic", "docs.train=16", "docs.test=4", "methods=sft", "wandb=false"]


def test_the_documented_command_plans_its_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    documents = synthetic.documents("receipt", 48, 7, "seen")
    write_documents(tmp_path / "receipts.jsonl", documents[:40])
    write_documents(tmp_path / "held_out.jsonl", documents[40:])
    traces = [{"id": d.id, "extractor": "t", "completion": json.dumps(d.gold)} for d in documents]
    (tmp_path / "traces.jsonl").write_text("".join(json.dumps(trace) + "\n" for trace in traces))
    config = compose_compare(
        [
            *("docs.path=receipts.jsonl", "docs.test_path=held_out.jsonl", "teacher.traces=[traces.jsonl]"),
            *("methods=sft,distill,distill+grpo", "seeds=range(0,2)", "documents=8,all"),
            *("train.run.threads=2", "recipes.grpo.run.steps=100", "launcher.kind=script"),
        ]
    )
    assert compare.run(config)["jobs"] == 1 + 3 * 2 * 2
    lines = (tmp_path / "runs" / "compare" / "jobs.sh").read_text().splitlines()[1:]
    assert all(line.startswith(f"cd {tmp_path} && ") for line in lines)  # plans hold paths as they were given
    answers = [json.loads((Path(line.split()[-1]) / job.PLAN).read_text()) for line in lines]
    assert all(plan["train"] is None and plan["evaluate"] for plan in answers)
    jobs = tmp_path / "runs" / "compare" / "jobs"
    trainings = [json.loads((jobs / plan["before"] / job.PLAN).read_text()) for plan in answers if plan["before"]]
    assert len(trainings) == 3 * 2 * 2 and all(plan["evaluate"] is None for plan in trainings)
    grpo = [plan["train"] for plan in trainings if plan["before"]]
    assert {(t["run"]["steps"], t["run"]["threads"], t["run"]["seed"]) for t in grpo} == {(100, 2, 0), (100, 2, 1)}
    distill = [plan["train"]["method"] for plan in trainings if plan["train"]["method"]["kind"] == "distill"]
    assert distill and all(method["traces"] == ["traces.jsonl"] for method in distill)


def test_other_answers_of_the_same_policies_train_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    planned: list[list[compare.Job]] = []
    monkeypatch.setattr(compare, "report_on", lambda config, folder, data, jobs: planned.append(jobs) or {})
    shared = [*TINY, "launcher.kind=none", "jobs=jobs"]
    compare.run(compose_compare(shared))
    compare.run(compose_compare([*shared, "dir=second", "evaluate=['sampler.structured=grounded']"]))
    compare.run(compose_compare([*shared, "dir=third", "train=['optim.lr=0.5']"]))
    first, second, third = ([j for j in jobs if j.documents] for jobs in planned)
    assert first[0].trained == second[0].trained != third[0].trained
    assert len({first[0].folder, second[0].folder, third[0].folder}) == 3


def test_unequal_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compare, "report_on", lambda *_: {})
    compare.run(compose_compare([*TINY, "launcher.kind=none"]))
    with pytest.raises(DataError, match=r"runs/compare: holds a comparison over other data \(train was"):
        compare.run(compose_compare([*TINY, "launcher.kind=none", "docs.train=20"]))
    done = {}
    for name, documents in (("sft-8", "aa"), ("distill-8", "bb"), ("sft-16", "cc")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"documents": documents}))
        size = int(name.partition("-")[2])
        done[compare.Job("sft", size, 0, tmp_path / name, name, tmp_path / name)] = {}
    with pytest.raises(DataError, match=r"distill-8 and sft-8 saw different documents \(bb, aa\)"):
        compare.check_equal_data(done)


def test_what_is_done_is_reported_without_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[int] = []
    monkeypatch.setattr(compare, "report_on", lambda config, folder, data, jobs: told.append(len(jobs)) or {})
    compare.run(compose_compare([*TINY, "launcher.kind=none"]))
    assert told == [2] and "2 of 2 jobs are not done and left out" in capsys.readouterr().err


def test_where_nothing_was_trained_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compare, "run_here", lambda *_: ["sft-14-s0: train: 9 documents with a label, fewer than 16"])
    with pytest.raises(InfraError, match=r"1 of 2 jobs failed, .*nothing to compare.*fewer than 16"):
        compare.run(compose_compare(TINY))


def test_a_failed_job_is_told_at_once_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = tmp_path / "worker.sh"
    worker.write_text(
        '#!/bin/sh\ncase "$3" in *bad) echo "offramp: error: bad: no memory" >&2; exit 5;; esac\n'
        'echo \'{"key": "k"}\' > "$3/done.json"\n'
    )
    worker.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(worker))
    folders = [tmp_path / name for name in ("bad", "good")]
    for folder in folders:
        folder.mkdir()
    jobs = [compare.Job("sft", 8, seed, folder, "k", folder) for seed, folder in enumerate(folders)]
    assert compare.run_here(jobs, parallel=1, retries=1) == ["bad: no memory"]
    assert "[1/2] failed: bad: no memory" in capsys.readouterr().err
    assert job.finished(folders[1], "k") is not None
    compare.run_here(jobs, parallel=1, retries=0)
    assert "2 jobs, 1 done before\n[1/1] bad" in capsys.readouterr().err  # the failed one alone


def test_a_comparison_that_is_told_to_end_ends_its_job(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    sleeper = tmp_path / "sleeper.sh"
    sleeper.write_text(
        f"#!/bin/sh\necho $$ >> {tmp_path}/starts\n"
        f"echo $$ > {pid_file}.part && mv {pid_file}.part {pid_file}\nexec sleep 60\n"
    )
    sleeper.chmod(0o755)
    script = (
        "import sys; from pathlib import Path;"
        "from launch.compare import run_here; from launch.compare_jobs import Job;"
        f"sys.executable = {str(sleeper)!r};"
        f"folder = Path({str(tmp_path)!r}); run_here([Job('sft', 1, 0, folder, 'key', folder)], parallel=1, retries=1)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 180
    while not pid_file.exists() and time.monotonic() < until:
        time.sleep(0.05)
    child = int(pid_file.read_text())
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(120) == 128 + signal.SIGTERM
    assert (tmp_path / "starts").read_text().split() == [str(child)]  # and not tried again
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError(f"the job {child} still runs")
