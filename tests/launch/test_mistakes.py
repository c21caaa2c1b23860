"""Mistakes that users make: one line each, with the key and the fix, and the right exit code, before torch is there."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.cli import run
from rewards.task import TASK_FOLDER

GOOD_LINE = json.dumps({"id": "a", "text": "SHOP\nTOTAL 1.00", "group": "shop", "gold": None})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with documents, a model folder, task files and configs, some of them wrong."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "good.jsonl").write_text(GOOD_LINE + "\n")
    (tmp_path / "no_text.jsonl").write_text('{"id": "a", "txt": "SHOP"}\n')
    (tmp_path / "empty.jsonl").write_text("")
    one_group = [{"id": f"r{i}", "text": f"SHOP {i}\nTEA {i}.50\nTOTAL {i}.50", "group": "shop"} for i in range(4)]
    (tmp_path / "one_group.jsonl").write_text("".join(json.dumps(row) + "\n" for row in one_group))
    (tmp_path / "torn.jsonl").write_text(GOOD_LINE + "\n" + GOOD_LINE[:20])
    (tmp_path / "latin1.jsonl").write_bytes(b'{"id": "a", "text": "caf\xe9"}\n')
    (tmp_path / "twice.jsonl").write_text(GOOD_LINE + "\n" + GOOD_LINE + "\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "qwen3"}')
    (tmp_path / "hollow").mkdir()
    task: dict[str, Any] = yaml.safe_load((TASK_FOLDER / "receipt.yaml").read_text())
    task["relations"] = {"total": ["sum(items[].amount) == totl"]}
    (tmp_path / "bad_relation.yaml").write_text(yaml.safe_dump(task))
    (tmp_path / "bad_task.yaml").write_text("name: [unclosed\n")
    experiments = tmp_path / "mine" / "experiment"
    experiments.mkdir(parents=True)
    (experiments / "typo.yaml").write_text("# @package _global_\noptim:\n  learning_rate: 1.0e-5\n")
    (experiments / "broken.yaml").write_text("# @package _global_\noptim: {lr: 1\n")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "metrics.jsonl").write_text("{}\n")
    return tmp_path


CONFIG, DATA = 2, 3
COMPARE = "compare docs=synthetic docs.train=16 docs.test=4 methods=sft launcher.kind=script"
MISTAKES: list[tuple[str, int, list[str]]] = [
    # what is typed after `offramp`, the exit code, and what the line must say
    ("trian", CONFIG, ["trian", "train"]),
    ("train optim.learning_rate=1e-5", CONFIG, ["optim.learning_rate", "did you mean optim.lr"]),
    ("train +optim.lrr=1e-5", CONFIG, ["optim.lrr", "did you mean optim.lr"]),
    ("train metod=grpo", CONFIG, ["metod", "did you mean method"]),
    ("train group_size=4", CONFIG, ["group_size", "did you mean batch.group_size"]),
    ("train --config-dir=mine experiment=typo", CONFIG, ["optim.learning_rate", "did you mean optim.lr"]),
    ("train --config-dir=mine experiment=broken", CONFIG, ["broken.yaml line", "not valid YAML"]),
    ("train --config-dir=nowhere", CONFIG, ["--config-dir=nowhere", "no such folder"]),
    ("train method=grop", CONFIG, ["method=grop", "did you mean grpo", "rloo"]),
    ("train experiment=smok", CONFIG, ["experiment=smok", "did you mean smoke"]),
    ("train model=startr", CONFIG, ["model=startr", "did you mean starter"]),
    (
        "train model.gradient_checkpointing=product",
        CONFIG,
        ["model.gradient_checkpointing=product:", "did you mean products? allowed: true, false, products"],
    ),
    (f"{COMPARE} --resolve", CONFIG, ["--resolve: not for compare"]),
    ("train run.steps=many", CONFIG, ["run.steps=many", "a whole number"]),
    ("train run.steps=1.5", CONFIG, ["run.steps=1.5", "a whole number"]),
    ("train run.steps", CONFIG, ["run.steps", "run.steps=VALUE"]),
    ("train run.steps=1,2", CONFIG, ["run.steps=1,2", "--multirun"]),
    ("train run.threads=none", CONFIG, ["run.threads", "null"]),
    ("train batch.group_size=1", CONFIG, ["batch.group_size=1", "at least 2"]),
    ("train optim.lr=-1", CONFIG, ["optim.lr=-1", "more than 0"]),
    ("train sampler.top_p=1.5", CONFIG, ["sampler.top_p=1.5", "at most 1"]),
    ("train sampler.temperature=nan", CONFIG, ["sampler.temperature", "finite"]),
    ("train sampler.max_tokens=4096", CONFIG, ["sampler.max_tokens=4096", "model.max_positions=4096"]),
    ("train model.dtype=fp16", CONFIG, ["model.dtype=fp16", "bfloat16, float32"]),
    ("train method.kind=gspo", CONFIG, ["method.kind=gspo", "method=gspo"]),
    ("train ~optim.lr", CONFIG, ["optim.lr", "missing key"]),
    ("train run.name=a/b", CONFIG, ["run.name=a/b", "letters"]),
    ("train --run.steps=5", CONFIG, ["--run.steps=5", "write run.steps=5"]),
    ("train --multrun run.steps=5", CONFIG, ["--multrun", "--multirun"]),
    ("train launch.processes=2", CONFIG, ["launch", "launch=torchrun"]),
    ("train run.world_size=2", CONFIG, ["run.world_size=2", "launch.processes=1"]),
    ("train run.dir=old run.resume=never", CONFIG, ["run.resume=never", "run.resume=auto"]),
    ("train run.dir=new run.resume=must", CONFIG, ["run.resume=must", "run.resume=auto"]),
    ("train task=recept", CONFIG, ["task", "recept", "receipt"]),
    ("train task=bad_relation.yaml", CONFIG, ["relations.total", "totl", "total"]),
    ("train task=bad_task.yaml", CONFIG, ["bad_task.yaml"]),
    ("train task=nowhere.yaml", CONFIG, ["nowhere.yaml"]),
    ("train model=./nowhere", CONFIG, ["model.path=./nowhere", "no such folder"]),
    ("train model=./hollow", CONFIG, ["model.path=./hollow", "no config.json"]),
    ("train model=some/model", CONFIG, ["model.path=some/model", "HF_HUB_OFFLINE"]),
    ("train docs.path=good.jsonl", CONFIG, ["docs.path=good.jsonl", "docs=jsonl"]),
    ("train docs=good.jsonl", CONFIG, ["docs=good.jsonl", "docs=jsonl docs.path=good.jsonl"]),
    ("train docs=jsonl", CONFIG, ["docs.path", "docs.path=VALUE"]),
    ("train docs=jsonl docs.path=god.jsonl", DATA, ["docs.path=god.jsonl", "no such file", "good.jsonl"]),
    ("train docs=jsonl docs.path=model", DATA, ["docs.path=model", "folder"]),
    ("train docs=jsonl docs.path=no_text.jsonl", DATA, ["no_text.jsonl line 1", "no 'text'", "'txt'"]),
    ("train docs=jsonl docs.path=empty.jsonl", DATA, ["empty.jsonl", "empty"]),
    ("train docs=jsonl docs.path=torn.jsonl", DATA, ["torn.jsonl line 2", "torn"]),
    ("train docs=jsonl docs.path=latin1.jsonl", DATA, ["latin1.jsonl line 1", "UTF-8"]),
    ("train docs=jsonl docs.path=twice.jsonl", DATA, ["twice.jsonl line 2", "duplicate id 'a'", "line 1"]),
    ("train nowhere/config.json", CONFIG, ["nowhere/config.json", "no such file"]),
    ("evaluate", CONFIG, ["docs.path", "docs.path=VALUE"]),
    ("evaluate docs.path=good.jsonl run.steps=2", CONFIG, ["run.steps", "unknown key"]),
    ("evaluate docs.path=good.jsonl model=./nowhere", CONFIG, ["model.path=./nowhere", "no such folder"]),
    ("evaluate docs.path=good.jsonl seen=nowhere", CONFIG, ["seen=nowhere", "seen=null"]),
    ("evaluate docs.path=good.jsonl baseline=nowhere", DATA, ["baseline=nowhere", "output=FILE"]),
    (
        "train lora={rank:4,alpha:8.0,dropout:0.1,targets:[all-linear]}",
        CONFIG,
        ["lora.dropout=0.1", "lora.dropout=0.0"],
    ),
    ("pretrain layer=3", CONFIG, ["layer", "did you mean layers"]),
    ("score task=receipt", CONFIG, ["docs.path", "docs.path=VALUE"]),
    ("score task=receipt doc.path=good.jsonl", CONFIG, ["doc.path", "did you mean docs.path"]),
    ("explain task=receipt docs.path=good.jsonl id=b completion={}", DATA, ["id=b", "there is a"]),
    ("evaluate docs.path=good.jsonl output=model", CONFIG, ["output=model", "is a folder"]),
    (f"{COMPARE} teacher.traces=[nowhere]", DATA, ["teacher.traces=nowhere", "no such"]),
    (f"{COMPARE} methods=distill", CONFIG, ["methods=distill", "teacher.traces=[FILE]"]),
    (f"{COMPARE} baseline=stater", CONFIG, ["baseline=stater", "starter, sft"]),
    (f"{COMPARE} metric=heder_exact", CONFIG, ["metric=heder_exact", "header_exact"]),
    (f"{COMPARE} metric=omission", CONFIG, ["metric=omission", "the lower the better"]),
    (f"{COMPARE} starter=./nowhere", CONFIG, ["starter=./nowhere", "no such folder"]),
    (f"{COMPARE} recipes.grop.run.steps=1", CONFIG, ["recipes.grop", "did you mean grpo"]),
    (f"{COMPARE} recipes.sft@8.run.steps=1", CONFIG, ["recipes.sft@8", "recipes.sft"]),
    (f"{COMPARE} train.docs.path=good.jsonl", CONFIG, ["docs.path is the same for all methods"]),
    (f"{COMPARE} recipes.sft.model.path=./model", CONFIG, ["recipes.sft.model.path=./model", "starter"]),
    (f"{COMPARE} train.sampler.temperature=0.5 train.+sampler.engine.speculative_config=1", CONFIG, ["temperature"]),
    (
        "compare docs.path=one_group.jsonl docs.test_path=good.jsonl metric=reward",
        DATA,
        ["select_fraction=0.1", "group"],
    ),
    ("compare docs=synthetic methd=[sft]", CONFIG, ["methd", "did you mean method"]),
    ("doctor --quik", CONFIG, ["--quik", "--quick"]),
]


@pytest.mark.parametrize(("words", "code", "says"), MISTAKES, ids=[mistake[0] for mistake in MISTAKES])
def test_mistake_is_one_line(
    words: str, code: int, says: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words.split(" ")) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("offramp: error: ")
    for part in says:
        assert part in lines[0]


def test_several_faults_are_a_line_each(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "run.steps=0", "batch.group_size=1", "optim.lr=0"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line.split()[2].split("=")[0] for line in lines] == ["run.steps", "optim.lr", "batch.group_size"]


def test_json_ends_a_mistake_with_one_object(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "batch.group_size=1", "--json"]) == 2
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["exit_code"] == 2
    assert last["error"].startswith("batch.group_size=1")


def test_bad_lines_within_bounds_are_let_through(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["train", "docs=jsonl", "docs.path=torn.jsonl", "docs.max_bad=1", "model=./nowhere"]
    assert run(args) == 2  # the model is what is left to complain about
    assert "model.path" in capsys.readouterr().err


def test_wrong_world_size(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert run(["train", "model=./model"]) == 2
    line = capsys.readouterr().err
    assert "run.world_size=1: 2 processes were started" in line
    assert "launch.processes=2" in line


@pytest.mark.parametrize(
    "words", [["--help"], ["train", "--help"], ["train", "method=grop"], ["train", "task=recept"], ["nonsense"]]
)
def test_answers_without_torch(words: list[str], folder: Path) -> None:
    code = "import sys; from launch.cli import run; run(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_help_imports_neither_hydra_nor_pydantic() -> None:
    code = (
        "import sys; from launch.cli import run; run(['--help']);"
        "sys.exit(bool({'hydra', 'pydantic', 'yaml', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout


def test_command_ends_with_the_exit_code(folder: Path) -> None:
    command = [sys.executable, "-m", "launch.cli", "train", "method=grop", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 2
    assert json.loads(done.stdout.splitlines()[-1])["exit_code"] == 2
    assert done.stderr.count("\n") == 1
