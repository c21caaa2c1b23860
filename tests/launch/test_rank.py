"""Of several ranks each has a GPU of its own."""

import os

import pytest

from launch.rank import own_device
from rewards.errors import ConfigError


@pytest.mark.parametrize(
    ("ranks", "visible", "own"),
    [("1", None, None), ("1", "4,5", "4,5"), ("4", None, "1"), ("2", "4,5", "5"), ("2", "", ""), ("2", "-1", "-1")],
)
def test_a_rank_sees_its_own_gpu(
    ranks: str, visible: str | None, own: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1" if ranks != "1" else "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    own_device()
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == own


def test_more_ranks_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    with pytest.raises(ConfigError, match="rank 1 has no GPU, CUDA_VISIBLE_DEVICES=4 names 1"):
        own_device()
