"""offramp compare from end to end on a tiny model: jobs through submitit's own executor, the report, what is kept."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.launchers import submit
from rewards.errors import ConfigError, InfraError

TRAIN = [
    "run.threads=1",
    "eval.documents=2",
    "eval.at_start=false",
    "sampler.max_tokens=16",
    "model.max_positions=1024",
    "record.wandb.enabled=false",
]
SETTINGS = f"""
dir=first docs=synthetic docs.train=16 docs.test=4 select_fraction=0.2 select_documents=2 methods=[sft,sft@2]
wandb=false train={TRAIN} +recipes.sft=['method.passes=1','batch.documents_per_step=4']
evaluate=['threads=1','sampler.max_tokens=16','model.max_positions=1024'] bootstrap=100
"""


def compare(folder: Path, starter: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    settings = SETTINGS.replace(", ", ",").split()
    command = [sys.executable, "-m", "launch.cli", "compare", f"starter={starter}", f"jobs={folder}/jobs", *settings]
    return subprocess.run([*command, *overrides], cwd=folder, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.slow
def test_jobs_of_a_scheduler_make_the_report_and_are_shared(tmp_path: Path, tiny_model_dir: Path) -> None:
    sent = compare(tmp_path, tiny_model_dir, "launcher.kind=submitit", "+launcher.parameters.cluster=local")
    assert sent.returncode == 0, sent.stderr
    assert "3 jobs are sent" in sent.stdout
    until = time.monotonic() + 500
    while len(list(tmp_path.glob("first/submitit/*_result.pkl"))) < 3 and time.monotonic() < until:
        time.sleep(0.5)

    done = compare(tmp_path, tiny_model_dir)
    assert done.returncode == 0, done.stderr
    assert "3 jobs, 3 done before" in done.stderr
    summary = json.loads((tmp_path / "first" / "summary.json").read_text())
    assert summary["methods"]["sft"]["seeds"] == summary["methods"]["sft@2"]["seeds"] == [0]
    assert summary["methods"]["sft@2"]["cost"]["updates"] == summary["methods"]["sft"]["cost"]["updates"] > 0
    assert summary["methods"]["sft@2"]["reward"]["value"] >= summary["methods"]["sft"]["reward"]["value"]
    assert set(summary["methods"]["sft"]["header_exact"]) == {"value", "ci95"}
    assert (tmp_path / "first" / "report.html").is_file()

    # The same documents in another folder: nothing is done again. Other documents: everything.
    again = compare(tmp_path, tiny_model_dir, "dir=second")
    assert "3 jobs, 3 done before" in again.stderr
    assert json.loads((tmp_path / "second" / "summary.json").read_text())["methods"] == summary["methods"]
    other = compare(tmp_path, tiny_model_dir, "dir=third", "docs.seed=9", "launcher.kind=script")
    assert "3 jobs are in" in other.stdout


def test_a_machine_without_slurm_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match=r"knows no Slurm; use launcher\.kind=local, or hand the lines of .*jobs\.sh"):
        submit(tmp_path, [tmp_path / "one"], {"slurm_partition": "gpu"})
    assert "launch.job" in (tmp_path / "jobs.sh").read_text()
    with pytest.raises(ConfigError, match=r"launcher\.parameters: submitit refuses them: .*gpus"):
        submit(tmp_path, [tmp_path / "one"], {"cluster": "local", "gpus": 8})
