"""The bench: its settings, its sides in their own processes, and the GPU part on the CPU."""

import json
from pathlib import Path
from typing import Any

import pytest

from rewards.errors import ConfigError, InfraError
from rl import bench, bench_sides
from rl.bench_step import shares
from rl.bench_update import random_groups


def test_settings_come_as_flags_or_as_keys() -> None:
    flags = bench.read_settings("update", ["--prompt", "2000", "--tokens-per-batch", "9"], bench.SETTINGS)
    keys = bench.read_settings("update", ["prompt=2000", "tokens_per_batch=9"], bench.SETTINGS)
    assert flags == keys and flags["prompt"] == 2000 and flags["tokens_per_batch"] == 9 and flags["group"] == 8
    with pytest.raises(ConfigError, match="--group 0: must be at least 1"):
        bench.read_settings("update", ["--group", "0"], bench.SETTINGS)
    with pytest.raises(SystemExit):
        bench.read_settings("update", ["--promt", "1"], bench.SETTINGS)


def test_large_groups_are_checkpointed() -> None:
    assert bench.read_settings("update", [], bench.SETTINGS)["checkpointing"] is False
    large = ["--prompt", "2000", "--completion", "150", "--group", "16"]
    assert bench.read_settings("update", large, bench.SETTINGS)["checkpointing"] is True
    told = [*large, "--checkpointing", "false"]
    assert bench.read_settings("update", told, bench.SETTINGS)["checkpointing"] is False
    with pytest.raises(ConfigError, match="--checkpointing yes: must be true, false or auto"):
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


def test_the_gpu_part_runs_on_the_cpu() -> None:
    result = bench.main(
        ["gpu", "device=cpu", "shapes=tiny", "prompts=40", "completion=8", "group=4", "rounds=1", "threads=1"]
    )
    shared, plain = result["rows"]
    assert (shared["ran"], plain["ran"]) == ("shared_prefix", "plain")
    assert (shared["tokens"], plain["tokens"]) == (40 + 4 * 7, 4 * 47)
    assert shared["seconds"] > 0 and plain["plain_over_this"] == 1.0
    with pytest.raises(ConfigError, match="--shapes big: unknown shape"):
        bench.main(["gpu", "device=cpu", "shapes=big"])


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


def test_a_side_that_dies_is_one_line() -> None:
    with pytest.raises(InfraError, match="the side nonsense ended with exit code 1"):
        bench_sides.Worker("nonsense", {"threads": 1})
