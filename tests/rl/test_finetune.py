"""TRL's trainers behind our record: each method runs, keeps a model folder, repeats, and learns what it is told."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import rl.finetune
from envs.labels import Label
from rewards.errors import ConfigError, DataError
from rewards.task import load_task
from rl.config import TrainConfig
from rl.finetune import spent, tensors_for_sampler, train
from rl.lora import merged_state, wrap
from tests.rl.fakes import VALUES, TorchSampler, ToyPool, write_receipts

pytestmark = pytest.mark.slow
METHODS: dict[str, dict[str, Any]] = {
    "sft": {"kind": "sft", "passes": 4.0, "holes": "fill"},
    "distill": {"kind": "distill", "passes": 4.0, "traces": ["traces.jsonl"]},
    "graded_sft": {
        "kind": "graded_sft",
        "passes": 4.0,
        "traces": ["traces.jsonl"],
        "own_samples": 1,
        "min_reward": 0.0,
        "weight_power": 1.0,
        "prune": False,
    },
    "dpo": {
        "kind": "dpo",
        "passes": 4.0,
        "traces": ["traces.jsonl"],
        "own_samples": 1,
        "pairs_per_document": 1,
        "min_margin": 0.01,
        "beta": 0.1,
        "sft_coef": 0.2,
    },
    "on_policy_distill": {"kind": "on_policy_distill", "passes": 4.0, "teacher": "", "divergence": 1.0},
}


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rl.finetune, "RewardPool", ToyPool)
    monkeypatch.setattr(rl.finetune, "Sampler", TorchSampler)
    monkeypatch.chdir(tmp_path)
    write_receipts(tmp_path / "documents.jsonl")
    with (tmp_path / "traces.jsonl").open("w") as file:
        for i in range(15):
            answer = {"vendor": f"SHOP {i}", "date": None, "items": [], "tax": None, "rounding": None, "total": "3.20"}
            for extractor in ("bad", "good"):
                answer["total"] = "3.20" if extractor == "good" else "9.99"
                row = {"id": f"d{i}", "extractor": extractor, "completion": json.dumps(answer)}
                file.write(json.dumps(row) + "\n")


def config(model: Path, name: str, **changes: Any) -> TrainConfig:
    values = json.loads(json.dumps(VALUES))
    values["model"]["path"] = str(model)
    values["run"] |= {"dir": f"runs/{name}", "name": name, "steps": 3}
    values["docs"]["path"] = "documents.jsonl"
    values["method"] = dict(METHODS[changes.pop("method", name)])
    if "teacher" in values["method"]:
        values["method"]["teacher"] = str(model)
    for key, value in changes.items():
        place, names = values, key.split("__")
        for part in names[:-1]:
            place = place[part]
        place[names[-1]] = value
    return TrainConfig.model_validate_json(json.dumps(values))


@pytest.mark.parametrize("method", METHODS)
def test_each_method_leaves_the_folder_of_a_run(method: str, tiny_model_dir: Path) -> None:
    result = train(config(tiny_model_dir, method))
    run = Path("runs") / method
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(e["step"], e["kind"]) for e in lines] == [
        (0, "eval"), (1, "train"), (2, "train"), (2, "eval"), (3, "train"), (3, "eval"),
    ]  # fmt: skip
    for line in lines:
        if line["kind"] == "train":
            assert math.isfinite(line["loss"]) and line["tokens/trained"] > 0 and line["lr"] > 0
    assert result["steps"] == 3 and result["evaluation"]["n"] == lines[-1]["n"]
    # What comes before the first update (own answers, a reference's log-probabilities) is paid for, once.
    assert [line["step"] for line in lines if line.get("seconds/prepare")] == [1]
    spent = sum(line["seconds/total"] for line in lines if line["kind"] == "train")
    assert result["cost"]["seconds_training"] == pytest.approx(spent, abs=0.01)
    assert result["cost"]["tokens_trained"] == sum(e.get("tokens/trained", 0) for e in lines)
    assert (run / "evaluations" / "step_000003.jsonl").is_file()
    facts = json.loads((run / "run.json").read_text())
    assert facts["documents"] and facts["cost"] == result["cost"]
    AutoModelForCausalLM.from_pretrained(run / "best")
    # A run that has ended gives its result back, and no other run may take its place.
    before = (run / "metrics.jsonl").read_text()
    assert train(config(tiny_model_dir, method)) == json.loads(json.dumps(result))
    assert (run / "metrics.jsonl").read_text() == before
    with pytest.raises(ConfigError, match="holds another run"):
        train(config(tiny_model_dir, method, run__seed=5))


def test_a_run_repeats_and_learns(tiny_model_dir: Path) -> None:
    states = []
    for name in ("one", "two"):
        train(config(tiny_model_dir, name, method="distill", run__steps=12, optim__lr=3e-3, eval__every_steps=0))
        run = Path("runs") / name
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses = [line["loss"] for line in lines if line["kind"] == "train"]
        assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
        states.append(losses)
    assert states[0] == states[1]


def test_lora_trains_adapters_and_keeps_a_plain_model(tiny_model_dir: Path) -> None:
    lora = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": ["all-linear"]}
    result = train(config(tiny_model_dir, "lora", method="distill", lora=lora, optim__lr=1e-2, eval__at_start=False))
    best = AutoModelForCausalLM.from_pretrained("runs/lora/best", dtype=torch.float32).state_dict()
    first = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32).state_dict()
    assert best.keys() == first.keys()
    changed = {name for name in first if not torch.equal(first[name], best[name])}
    assert changed and all("proj" in name for name in changed)
    assert result["best"]["step"] > 0


def test_merging_adapters_is_the_sum(tiny_model_dir: Path) -> None:
    from rl.config import LoraConfig

    plain = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    names = set(plain.state_dict())
    model = wrap(plain, LoraConfig(rank=2, alpha=4.0, dropout=0.0, targets=("q_proj",)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.5)
    ids = torch.tensor([[1, 5, 9, 2]])
    wanted = model(input_ids=ids).logits
    state = merged_state(model)
    assert set(state) == names
    assert torch.equal(model(input_ids=ids).logits, wanted)  # and apart again
    other = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    other.load_state_dict(state)
    assert torch.allclose(other(input_ids=ids).logits, wanted, atol=1e-4)
    assert "lm_head.weight" not in dict(tensors_for_sampler(state, torch.float32))  # tied


def test_what_gold_does_not_know_has_no_loss(tiny_model_dir: Path) -> None:
    from rl.sft import IGNORED, encode_label

    tokenizer, task = AutoTokenizer.from_pretrained(tiny_model_dir), load_task("receipt")
    items = [{"name": "MILK", "amount": "3.20"}]
    value = {"vendor": "A", "date": None, "items": items, "tax": None, "rounding": None, "total": "3.20"}
    ids, labels = encode_label(task, tokenizer, Label("a", value, "gold", unknown=("items", "tax", "rounding")))
    learned = tokenizer.decode([token for token in labels if token != IGNORED])
    assert tokenizer.decode(ids).startswith(task.canonical(value))
    assert '"vendor":"A"' in learned and '"total":"3.20"' in learned
    assert "MILK" not in learned and "items" not in learned and "tax" not in learned
    whole_ids, whole_labels = encode_label(task, tokenizer, Label("a", value, "gold"))
    assert whole_ids == ids == whole_labels


def test_weights_count_in_the_loss(tiny_model_dir: Path) -> None:
    """Two rows, one with weight 0: the update is that of the other alone."""
    from rl.sft import Collator

    batch = Collator(0)(
        [
            {"input_ids": [1, 2, 3], "labels": [-100, 2, 3], "weight": 2.0},
            {"input_ids": [1, 4], "labels": [-100, 4], "weight": 0.0},
        ]
    )
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[-100, 2, 3], [-100, 4, -100]]
    assert batch["weight"].tolist() == [2.0, 0.0]


def test_a_budget_ends_a_run(tiny_model_dir: Path) -> None:
    one = config(tiny_model_dir, "budget", method="distill", run__max_tokens=50, eval__at_start=False)
    assert train(one)["steps"] == 1
    assert spent(one, 0.0, 25) == 0.5


def test_mistakes_are_named(tiny_model_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.resume=must"):
        train(config(tiny_model_dir, "must", method="distill", run__resume="must"))
    Path("none.jsonl").write_text(json.dumps({"id": "x", "extractor": "e", "completion": "{}"}) + "\n")
    with pytest.raises(DataError, match="0 documents with a label"):
        train(config(tiny_model_dir, "none", method="distill", method__traces=["none.jsonl"]))


def test_documents_may_lie_elsewhere(tmp_path: Path) -> None:
    for name, text in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).write_text(text)
    of = {name: {"docs": {"path": str(tmp_path / name), "test_path": None}, "seed": 0} for name in "abc"}
    assert rl.finetune._same_run(of["a"], of["b"])
    assert not rl.finetune._same_run(of["a"], of["c"])
    assert not rl.finetune._same_run(of["a"], of["b"] | {"seed": 1})
