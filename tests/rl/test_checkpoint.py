"""Checkpoints are whole or ignored, and bring everything back bit for bit."""

import json
import logging
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rewards.errors import InfraError
from rl import checkpoint


def trained(seed: int = 0, steps: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model with tied weights, and AdamW with two groups after a few steps."""
    torch.manual_seed(seed)
    model = nn.ModuleDict({"embed": nn.Embedding(7, 4), "norm": nn.LayerNorm(4), "head": nn.Linear(4, 7, bias=False)})
    model["head"].weight = model["embed"].weight
    matrices, vectors = [model["embed"].weight], list(model["norm"].parameters())
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))
    for _ in range(steps):
        update(model, optimizer)
    return model, optimizer


def update(model: Any, optimizer: torch.optim.Optimizer) -> None:
    loss = model["head"](model["norm"](model["embed"](torch.arange(7)))).square().mean() + torch.rand(()) * 0
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def save(run_dir: Path, step: int, **kwargs: Any) -> Path:
    model, optimizer = trained(step)
    return checkpoint.save(run_dir, step, model.state_dict(), optimizer.state_dict(), {"position": step * 16}, **kwargs)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and bool(a == b)


def test_round_trip_is_bit_exact(tmp_path: Path) -> None:
    model, optimizer = trained()
    extra = {"position": 48, "best_value": 0.1 + 0.2, "best": None, "name": "é"}
    checkpoint.save(tmp_path, 3, model.state_dict(), optimizer.state_dict(), extra)
    found = checkpoint.latest(tmp_path)
    assert found is not None and found.step == 3 and found.extra == extra
    assert equal(found.policy_state, dict(model.state_dict()))
    assert equal(found.optimizer_state, optimizer.state_dict())
    assert checkpoint.weights_hash(found.policy_state) == checkpoint.weights_hash(model.state_dict())

    again, optimizer_again = trained(seed=1)
    again.load_state_dict(found.policy_state)
    optimizer_again.load_state_dict(found.optimizer_state)
    for _ in range(3):
        update(model, optimizer)
        update(again, optimizer_again)
    assert checkpoint.weights_hash(again.state_dict()) == checkpoint.weights_hash(model.state_dict())
    assert equal(optimizer_again.state_dict(), optimizer.state_dict())


def test_random_generators_come_back(tmp_path: Path) -> None:
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    random.gauss(0, 1), np.random.standard_normal()  # each leaves a second number waiting
    save_here = checkpoint.rng_state()
    before = random.gauss(0, 1), np.random.standard_normal(), torch.rand(2).tolist()
    checkpoint.set_rng_state(save_here)
    checkpoint.save(tmp_path, 1, {}, {}, {})
    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    found.restore_rng()
    assert (random.gauss(0, 1), np.random.standard_normal(), torch.rand(2).tolist()) == before


def test_only_safetensors_and_json(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".json", *[".safetensors"] * 3]
    with pytest.raises(TypeError, match="plain data, not object"):
        checkpoint.save(tmp_path, 2, {}, {"state": object()}, {})


FILES = ["policy.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json", "manifest.json"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("fault", ["missing", "truncated", "empty", "flipped bit"])
def test_a_broken_checkpoint_is_ignored_and_named(
    tmp_path: Path, file: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1, keep=2)
    broken = save(tmp_path, 2, keep=2) / file
    content = bytearray(broken.read_bytes())
    if fault == "missing":
        broken.unlink()
    elif fault == "truncated":
        broken.write_bytes(content[: len(content) // 2])
    elif fault == "empty":
        broken.write_bytes(b"")
    else:
        # In the manifest a bit of a digest, elsewhere a bit in the middle (of the weights themselves).
        at = content.rindex(b'sha256": "') + 12 if file == "manifest.json" else len(content) * 2 // 3
        content[at] ^= 1
        broken.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        found = checkpoint.latest(tmp_path)
    assert found is not None and found.step == 1
    assert "step_000002" in caplog.text
    assert broken.parent.is_dir(), "a broken checkpoint is evidence: it stays"


def test_killed_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the process dies, the previous checkpoint loads, and a later one is written over what was left."""
    save(tmp_path, 1, keep=1)
    calls = 0

    class Killed(BaseException):
        pass

    for fatal in range(1, 12):
        calls = 0

        def dying(path: Path, real: Any = checkpoint._sync, fatal: int = fatal) -> None:
            nonlocal calls
            calls += 1
            if calls == fatal:
                raise Killed
            real(path)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "_sync", dying)
            try:
                save(tmp_path, 2, keep=1)
            except Killed:
                found = checkpoint.latest(tmp_path)
                assert found is not None and found.step in (1, 2)
                if calls < 7:  # the rename comes after the sixth: five files and their folder
                    assert found.step == 1
                    assert [path.name for path in tmp_path.glob("checkpoints/step_*")] == ["step_000001"]
            else:
                break
    found = checkpoint.latest(tmp_path)
    assert found is not None and found.step == 2
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_000002"]


def test_keeps_the_newest_and_the_protected(tmp_path: Path) -> None:
    for step in range(1, 6):
        save(tmp_path, step, keep=2, protect=(2,))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step_000002", "step_000004", "step_000005"]


def test_the_same_step_twice(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 2) / "state.json").unlink()
    save(tmp_path, 2)
    found = checkpoint.latest(tmp_path)
    assert found is not None and found.step == 2


def test_a_full_disk_leaves_the_previous_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(InfraError, match="No space left"):
        save(tmp_path, 2)
    assert os.listdir(tmp_path / "checkpoints") == ["step_000001"]


def test_nothing_there(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    (tmp_path / "checkpoints" / "step_000001").mkdir(parents=True)
    assert checkpoint.latest(tmp_path) is None


def test_a_manifest_cannot_leave_its_folder(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["policy.safetensors"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(checkpoint.BrokenCheckpoint, match=r"does not name policy\.safetensors"):
        checkpoint.load(folder)


def test_weights_hash_sees_every_bit_and_no_order() -> None:
    state = {"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.zeros(3)}
    assert checkpoint.weights_hash(state) == checkpoint.weights_hash(dict(reversed(state.items())))
    assert checkpoint.weights_hash(state) != checkpoint.weights_hash(state | {"b": torch.tensor([0.0, -0.0, 0.0])})
    assert checkpoint.weights_hash(state) != checkpoint.weights_hash(state | {"b": torch.zeros(3, 1)})


def test_export_as_a_model_folder(tmp_path: Path, tiny_model_dir: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    for _ in range(2):  # the second time in the place of the first
        folder = checkpoint.save_model_dir(model.state_dict(), tiny_model_dir, tmp_path / "best")
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.dtype == torch.bfloat16
    assert equal(dict(loaded.state_dict()), dict(model.to(torch.bfloat16).state_dict()))
    assert AutoTokenizer.from_pretrained(folder).eos_token == "<|im_end|>"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
