"""Pre-training: what is trained on, and that a starter comes out that transformers can load."""

import json
from pathlib import Path

import pytest
import yaml

pytest.importorskip("torch")
import torch

from envs.synthetic import documents
from rewards.task import load_task
from rl.config import PretrainConfig
from rl.pretrain import IGNORE, batches, completion_logits, encode, exactness, pad, pretrain, rate
from rl.tokenizer import train_tokenizer

ROOT = Path(__file__).resolve().parents[2]


def tiny(out: Path, **changes: object) -> PretrainConfig:
    raw = yaml.safe_load((ROOT / "configs" / "pretrain.yaml").read_text())
    raw |= {"out": str(out), "vocabulary": 400, "tokenizer_documents": 50, "minutes": 5.0, "threads": None}
    raw |= {"layers": 1, "hidden": 64, "intermediate": 64, "heads": 2, "key_value_heads": 2}
    raw |= {"steps": 4, "tokens_per_step": 2048, "pool_documents": 16, "short_tokens": 900, "warmup_steps": 1}
    raw |= {"evaluate_documents": 2}
    return PretrainConfig.model_validate(raw | changes)


@pytest.fixture(scope="module")
def tokenizer():  # type: ignore[no-untyped-def]
    return train_tokenizer((d.text for d in documents("receipt", 60, 1)), 400, 1024)


def test_tokenizer_keeps_digits_single_and_words_alike_wherever_they_stand(tokenizer) -> None:  # type: ignore[no-untyped-def]
    for text in ("TOTAL RM 12.50\n", 'Café "x"\t€ 1.234,50', "\u202e漢字 \x00"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    pieces = tokenizer.convert_ids_to_tokens(tokenizer.encode("12.50"))
    assert pieces == ["1", "2", ".", "5", "0"]
    alone, quoted = tokenizer.encode("QWERTYUI"), tokenizer.encode('"QWERTYUI"')
    assert quoted[1:-1] == alone


def test_loss_is_on_the_completion_and_its_end_mark_alone(tokenizer) -> None:  # type: ignore[no-untyped-def]
    task, [document] = load_task("receipt"), documents("receipt", 1, 1)
    assert document.gold is not None
    example = encode(tokenizer, task, document.text, document.gold, "till")
    ids_BS, labels_BS = pad([example], tokenizer.pad_token_id)
    kept = labels_BS[0] != IGNORE
    assert tokenizer.decode(ids_BS[0][kept]) == task.canonical(document.gold) + "<|im_end|>"
    assert int(kept.nonzero()[0]) == example.prompt_length
    assert document.text in tokenizer.decode(ids_BS[0][~kept])


def test_batches_hold_their_budget_and_their_cap(tmp_path: Path, tokenizer) -> None:  # type: ignore[no-untyped-def]
    config = tiny(tmp_path)
    tasks = {name: load_task(name) for name in config.tasks}
    stream = batches(config, tokenizer, tasks, [900])
    drawn = [next(stream) for _ in range(12)]
    again = batches(config, tokenizer, tasks, [900])
    assert [e.ids for batch in drawn for e in batch] == [e.ids for _ in range(12) for e in next(again)]
    for batch in drawn:
        assert max(len(e.ids) for e in batch) <= 900
        assert len(batch) == 1 or len(batch) * max(len(e.ids) for e in batch) <= config.tokens_per_step


def test_rate_is_flat_then_falls_to_zero(tmp_path: Path) -> None:
    config = tiny(tmp_path, decay_share=0.25)
    assert rate(0.0, config) == rate(0.75, config) == 1.0
    assert rate(0.875, config) == pytest.approx(0.5)
    assert rate(1.0, config) == 0.0


@pytest.mark.slow
def test_pretraining_lowers_the_loss_and_leaves_a_model(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = tiny(tmp_path / "a", steps=40, decay_share=0.0)
    pretrain(config)
    lines = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 40 and lines[-1]["loss"] < 0.7 * 5.99  # ln(400) = 5.99 is the loss of knowing nothing
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a", dtype="auto")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "a")
    assert model.dtype == torch.bfloat16 and model.config.architectures == ["Qwen3ForCausalLM"]
    assert loaded.eos_token_id == model.config.eos_token_id
    more = pretrain(tiny(tmp_path / "b", steps=1, init=str(tmp_path / "a")))
    assert float(str(more["loss"])) < 1.2 * lines[-1]["loss"]
    stages = json.loads((tmp_path / "b" / "recipe.json").read_text())["stages"]
    assert [stage["last"]["step"] for stage in stages] == [40, 1]


def test_exactness_is_greedy_exactness(tokenizer) -> None:  # type: ignore[no-untyped-def]
    """A model that knows the answer by heart is exact; one that knows another document's is not."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    task = load_task("receipt")
    a, b = (encode(tokenizer, task, d.text, d.gold or {}, "till") for d in documents("receipt", 2, 1))
    config = Qwen3Config(
        vocab_size=400, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=32, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    ids_BS, labels_BS = pad([a], tokenizer.pad_token_id)
    for _ in range(600):
        logits_TV, targets_T = completion_logits(model, ids_BS, labels_BS)
        loss = torch.nn.functional.cross_entropy(logits_TV, targets_T)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.01:
            break
    assert exactness(model, tokenizer, [a], bf16=False)["all"] == 1.0
    assert exactness(model, tokenizer, [a, b], bf16=False)["all"] == 0.5
