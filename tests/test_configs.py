"""Every configuration that ships composes and validates, and its JSON says the same."""

import json
from pathlib import Path

import pytest

from launch.compose import CONFIGS, compose_compare, compose_evaluate, compose_pretrain, compose_run
from launch.faults import known_keys
from rewards.errors import ConfigError
from rl.compare_config import CompareConfig
from rl.config import TrainConfig, read_config


def choices(group: str) -> list[str]:
    return sorted(
        file.relative_to(CONFIGS / group).with_suffix("").as_posix() for file in (CONFIGS / group).rglob("*.yaml")
    )


GIVEN = ["docs.path=documents.jsonl"]
NEEDS = {
    "model=custom": ["model.path=some/model"],
    "method=distill": ["method.traces=[a.jsonl]"],
    "method=graded_sft": ["method.traces=[a.jsonl]"],
    "method=on_policy_distill": ["method.teacher=some/model"],
}


@pytest.mark.parametrize("name", choices("experiment"))
def test_experiment(name: str) -> None:
    needs_path = "docs: jsonl" in (CONFIGS / "experiment" / f"{name}.yaml").read_text()
    config = compose_run([f"experiment={name}", *(GIVEN if needs_path else [])])
    assert read_config(config.model_dump_json()) == config


@pytest.mark.parametrize("choice", [f"{g}={c}" for g in ("method", "model", "sampler", "launch") for c in choices(g)])
def test_group(choice: str) -> None:
    given = NEEDS.get(choice, [])
    config = compose_run([choice, *given])
    assert read_config(config.model_dump_json()) == config
    if choice.startswith("method="):
        assert f"method={config.method.kind}" == choice


@pytest.mark.parametrize("choice", choices("docs"))
def test_docs(choice: str) -> None:
    given = [] if choice == "synthetic" else GIVEN
    assert compose_run([f"docs={choice}", *given]).docs.kind == choice
    assert compose_evaluate([f"docs={choice}", *given]).docs.kind == choice


def test_pretrain() -> None:
    assert compose_pretrain(["steps=3"]).steps == 3


def test_smoke_takes_its_overrides() -> None:
    config = compose_run(["experiment=smoke", "run.steps=3", "run.name=mine", "run.resume=never"])
    assert (config.run.steps, config.run.name, config.run.resume) == (3, "mine", "never")
    assert config.run.dir == "runs/mine"


def test_task_is_a_name_or_a_path() -> None:
    assert compose_run(["task=invoice"]).task == "invoice"
    config = compose_run(["task=./my tasks/payslip.yaml"])
    assert (config.task, config.run.name) == ("./my tasks/payslip.yaml", "payslip-grpo")


@pytest.mark.parametrize("path", ["some/model", "./my model", "/models/a=b"])
def test_model_takes_a_path(path: str) -> None:
    assert compose_run([f"model={path}"]).model.path == path


def test_model_of_a_run_keeps_how_it_was_used(tmp_path: Path) -> None:
    run = compose_run(["model=Qwen/Qwen3-0.6B", "model.dtype=float32"])
    (tmp_path / "config.json").write_text(run.model_dump_json())
    config = compose_evaluate([f"model={tmp_path}", *GIVEN])
    assert config.model == run.model.model_copy(update={"path": str(tmp_path)})


def test_starter_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = compose_run([])
    if (CONFIGS.parent / "results" / "starter").is_dir():
        assert Path(config.model.path).is_dir()


def test_rerun_from_json(tmp_path: Path) -> None:
    config = compose_run(["experiment=smoke", "run.seed=7"])
    file = tmp_path / "config.json"
    file.write_text(config.model_dump_json())
    assert compose_run([str(file)]) == config
    again = compose_run([str(file), "run.name=again", "optim.lr=2.0e-5"])
    assert (again.run.name, again.run.dir, again.optim.lr) == ("again", "runs/again", 2e-5)
    assert again.docs == config.docs


def test_the_config_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    config = compose_run(["experiment=smoke", "run.seed=7"])
    values = json.loads(config.model_dump_json())
    del values["run"]["driver"], values["sampler"]["structured"], values["sampler"]["drafting"]
    assert read_config(json.dumps(values)) == config
    file = tmp_path / "config.json"
    file.write_text(json.dumps(values))
    assert compose_run([str(file)]) == config


def test_only_what_samples_as_it_trains_can_be_ahead() -> None:
    with pytest.raises(ConfigError, match=r"run\.driver=ahead: method=sft does not sample as it trains"):
        compose_run(["method=sft", "run.driver=ahead"])
    assert compose_run(["run.driver=ahead"]).run.driver == "ahead"


def test_user_configs(tmp_path: Path) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "mine.yaml").write_text("# @package _global_\noptim:\n  lr: 3e-6\n")
    assert compose_run(["experiment=mine"], config_dir=str(tmp_path)).optim.lr == 3e-6


def test_no_key_has_a_default() -> None:
    def models(annotation: object) -> None:
        for field in getattr(annotation, "model_fields", {}).values():
            assert field.is_required()
            models(field.annotation)

    models(TrainConfig)
    assert {"run.steps", "docs.path", "optim.lr", "record.wandb.enabled"} <= set(known_keys(TrainConfig))


@pytest.mark.parametrize("name", choices("study"))
def test_study(name: str) -> None:
    config = compose_compare([f"study={name}"])
    assert CompareConfig.model_validate_json(config.model_dump_json()) == config


def test_compare_takes_the_grammar_of_sweeps() -> None:
    config = compose_compare([*GIVEN, "methods=sft,distill+grpo", "seeds=range(0,3)", "documents=30,100,all"])
    assert config.methods == ("sft", "distill+grpo")
    assert config.seeds == (0, 1, 2)
    assert config.documents == (30, 100, None)
    assert compose_compare([*GIVEN, "methods=sft"]).methods == ("sft",)
