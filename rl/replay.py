"""What a step that went wrong leaves behind, so that it can be run again: weights, batches and settings, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rl.batching import Batch, make_batch
from rl.losses import Totals
from rl.rollouts import Group, Rollout


def write(
    folder: Path, weights: Mapping[str, Tensor], batches: Sequence[Batch], totals: Totals, facts: Mapping[str, Any]
) -> Path:
    """Write weights.safetensors, advantages.safetensors and replay.json into `folder`; the path of replay.json."""
    folder.mkdir(parents=True, exist_ok=True)
    # Tied weights share memory, which safetensors refuses: each is written as its own copy.
    save_file({name: tensor.detach().cpu().clone() for name, tensor in weights.items()}, folder / "weights.safetensors")
    save_file(
        {f"batch_{i:03d}": batch.advantages_N.cpu() for i, batch in enumerate(batches)},
        folder / "advantages.safetensors",
    )
    path = folder / "replay.json"
    groups = [[asdict(group) for group in batch.groups] for batch in batches]
    path.write_text(json.dumps({**facts, "totals": asdict(totals), "batches": groups}), encoding="utf-8")
    return path


def read(path: Path) -> tuple[dict[str, Tensor], list[Batch], Totals, dict[str, Any]]:
    """What `write` wrote: weights, batches, denominators, and the other facts."""
    facts = json.loads(path.read_text(encoding="utf-8"))
    advantages = load_file(path.parent / "advantages.safetensors")
    made = []
    for i, rows in enumerate(facts.pop("batches")):
        groups = [_group(row) for row in rows]
        made.append(make_batch(groups, _rows(advantages[f"batch_{i:03d}"], groups), facts["method"]["truncated"]))
    return load_file(path.parent / "weights.safetensors"), made, Totals(**facts.pop("totals")), facts


def _group(row: dict[str, Any]) -> Group:
    rollouts = []
    for values in row["rollouts"]:
        lists = {name: tuple(values[name]) for name in ("completion_ids", "sampler_logprobs")}
        rollouts.append(Rollout(**{**values, **lists}))
    return Group(row["document_id"], tuple(row["prompt_ids"]), tuple(rollouts))


def _rows(advantages_N: Tensor, groups: Sequence[Group]) -> Tensor:
    """[N] back to [P, G], short groups filled up with zeros at their end."""
    rows = torch.split(advantages_N, [len(group.rollouts) for group in groups])
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
