"""The bench: its settings, its sides in their own processes, and the GPU part on the CPU."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rewards.errors import ConfigError, InfraError, OfframpError
from rl import bench, bench_gpu, bench_sides
from rl.bench_step import shares
from rl.bench_update import Ours, random_groups


def test_settings_come_as_flags_or_as_keys() -> None:
    flags = bench.read_settings("update", ["--prompt", "2000", "--tokens-per-batch", "9"], bench.SETTINGS)
    keys = bench.read_settings("update", ["prompt=2000", "tokens_per_batch=9"], bench.SETTINGS)
    assert flags == keys and flags["prompt"] == 2000 and flags["tokens_per_batch"] == 9 and flags["group"] == 8
    with pytest.raises(ConfigError, match="--group 0: must be at least 1"):
        bench.read_settings("update", ["--group", "0"], bench.SETTINGS)
    for words, says in (
        (["--promt", "1"], "unrecognized arguments: --promt 1"),
        (["--prompt"], "argument --prompt: expected one argument"),
        (["prompt=long"], "argument --prompt: invalid int value: 'long'"),
    ):
        with pytest.raises(ConfigError, match=f"bench update: {says}; --help lists the settings"):
            bench.read_settings("update", words, bench.SETTINGS)


def test_large_groups_are_checkpointed() -> None:
    assert bench.read_settings("update", [], bench.SETTINGS)["checkpointing"] is False
    large = ["--prompt", "2000", "--completion", "150", "--group", "16"]
    assert bench.read_settings("update", large, bench.SETTINGS)["checkpointing"] is True
    for told, means in (("false", False), ("true", True), ("products", "products")):
        assert (
            bench.read_settings("update", [*large, "--checkpointing", told], bench.SETTINGS)["checkpointing"] == means
        )
    with pytest.raises(ConfigError, match="--checkpointing yes: must be true, products, false or auto"):
        bench.read_settings("update", ["--checkpointing", "yes"], bench.SETTINGS)


def test_ratios_are_of_neighbours() -> None:
    found = {"a": [{"seconds": 2.0}, {"seconds": 9.0}], "b": [{"seconds": 1.0}, {"seconds": 3.0}]}
    assert bench_sides.ratios(found, "a", "b") == [2.0, 3.0]
    assert bench_sides.median(found["a"]) == 5.5
    one = {"seconds": 10.0, "sample": 4.0, "update": 5.0, "load": 0.2}
    assert shares([one]) == pytest.approx({"load_share": 0.02, "other_share": 0.08})


def test_sides_see_the_same_tokens() -> None:
    settings = {"prompt": 7, "completion": 5, "group": 3, "documents": 2, "seed": 4}
    groups = random_groups(settings, 320)
    assert groups == random_groups(settings, 320)
    assert [len(group.prompt_ids) for group in groups] == [7, 7]
    assert {len(rollout.completion_ids) for group in groups for rollout in group.rollouts} == {5}


@pytest.mark.slow
def test_the_gpu_part_runs_on_the_cpu() -> None:
    """In a process of its own, because it starts vLLM."""
    words = "device=cpu shapes=tiny prompts=40,48 completion=8 group=4 rounds=1 threads=1 --json".split()
    done = subprocess.run(
        [sys.executable, "-m", "launch.cli", "bench", "gpu", *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    result = json.loads(done.stdout.splitlines()[-1])
    shared, plain, *_ = result["rows"]
    assert (shared["ran"], plain["ran"]) == ("shared_prefix", "plain")
    assert (shared["tokens"], plain["tokens"]) == (40 + 4 * 7, 4 * 47)
    assert shared["seconds"] > 0 and plain["plain_over_this"] == 1.0
    assert [row["prompt"] for row in result["rollouts"]] == [40, 48]
    assert all(row["tokens_per_second"] > 0 for row in result["rollouts"])


def test_a_size_that_does_not_fit_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_gpu, "vllm_is_there", lambda: False)

    def measured(policy: Any, batch: Any, attention: str) -> tuple[float, int]:
        if attention == "plain" and len(batch.groups[0].prompt_ids) > 40:
            raise torch.OutOfMemoryError("full")
        return 1.0, 7

    monkeypatch.setattr(bench_gpu, "_measured", measured)
    settings = {"device": "cpu", "shapes": "tiny", "prompts": "40,48", "completion": 8, "group": 4, "rounds": 1}
    result = bench_gpu.gpu(settings | {"threads": torch.get_num_threads(), "seed": 0})
    assert [row.get("failed") for row in result["rows"]] == [None, None, None, "out of memory"]
    assert "plain_over_this" in result["rows"][0] and "plain_over_this" not in result["rows"][2]
    assert result["rollouts"] is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("gpu device=cpu shapes=big", "--shapes big: unknown shape"),
        ("gpu device=cpu shapes=tiny prompts=²", "--prompts ²: write whole numbers"),
        ("update keep=a/b", "--keep a/b: letters"),
        ("update model=configs", "--model configs: no model folder"),
        ("rollout model=configs", "--model configs: no model folder"),
        ("rollout task=votes", "--task votes: synthetic documents are there for receipt, invoice"),
        ("update attention=shared-prefix", "--attention shared-prefix: must be shared_prefix or plain"),
        ("update dtype=fp16", "--dtype fp16: must be bfloat16 or float32"),
        ("step group=1", "--group 1: must be at least 2"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(words: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        bench.main(words.split())


@pytest.mark.slow
def test_update_beside_trl(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each side computes the tokens that it should, and a result is kept with its machine."""
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "bench")
    words = "prompt=60 completion=9 group=4 documents=2 rounds=1 threads=1 tokens_per_batch=200 keep=tiny".split()
    result = bench.main(["update", f"model={tiny_model_dir}", *words])
    assert result["tokens"] == 2 * (60 + 4 * 8)
    for key in ("trl_over_ours", "ours_over_limit", "memory_ours_over_trl"):
        assert result[key] > 0
    kept: dict[str, Any] = json.loads((tmp_path / "bench" / "tiny.json").read_text())
    assert kept["machine"]["versions"]["torch"] and kept["settings"]["group"] == 4
    assert kept["ran"] == "shared_prefix"


def test_a_side_that_steps_aside_says_so(tiny_model_dir: Path) -> None:
    words = [f"model={tiny_model_dir}", "prompt=4", "completion=30", "group=2", "documents=1", "threads=1"]
    settings = bench.read_settings("update", words, bench.SETTINGS) | {"threads": torch.get_num_threads()}
    found = Ours(settings).run()
    assert found["ran"] == "plain" and found["tokens"] == 2 * 33


def test_a_place_that_cannot_be_written_is_told_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "file" / "bench")
    monkeypatch.setattr(bench_gpu, "gpu", lambda settings: pytest.fail("measured"))
    with pytest.raises(ConfigError, match=r"bench gpu: .*Not a directory"):
        bench.main(["gpu", "device=cpu", "shapes=tiny", "keep=x"])


def test_a_mistake_of_a_side_reaches_the_user(tiny_model_dir: Path) -> None:
    settings = bench.read_settings("step", [f"model={tiny_model_dir}", "prompt=20", "threads=1"], bench.SETTINGS)
    with pytest.raises(OfframpError, match=r"the side our_step: .*none of 4 fits in 20 prompt tokens") as caught:
        bench_sides.Worker("our_step", settings)
    assert caught.value.exit_code != 1


def test_a_side_that_dies_is_one_line() -> None:
    with pytest.raises(InfraError, match="the side nonsense ended with exit code 1"):
        bench_sides.Worker("nonsense", {"threads": 1})
