"""Supervised fine-tuning: on human labels, on a teacher's answers, or on the best answers as the rubric grades.

One thin file over TRL's SFTTrainer: rows of token ids, the prompt without loss, a weight for each document.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import SFTConfig, SFTTrainer

from envs.documents import Trace
from envs.labels import (
    Label,
    canonical_value,
    graded_labels,
    labels_from_gold,
    labels_from_traces,
    traces_by_document,
)
from rewards.rubric import Rubric
from rewards.task import Task
from rl import config as c
from rl import lora
from rl.finetune import FineTune, Keeper, arguments, check_rows, completion_ids, fit, optimizers, steps_of

log = logging.getLogger(__name__)

IGNORED = -100
"""Label of a token without loss."""


def run(tune: FineTune) -> dict[str, Any]:
    """Train `tune.model` on the labels of its method. Returns what they were, for the record."""
    config = tune.config
    labels, facts = find_labels(tune)
    check_rows(config, labels, "documents with a label")
    rows = make_rows(tune, labels)
    longest = max(len(row["input_ids"]) for row in rows)
    steps = steps_of(config, len(rows))
    log.info("%s: %d labelled documents, %d updates", config.method.kind, len(rows), steps)
    tune.model = lora.wrap(tune.model, config.lora)
    trainer = WeightedSftTrainer(
        tune,
        model=tune.model,
        args=SFTConfig(
            **arguments(config, steps, longest, tune.dir),
            max_length=None,
            remove_unused_columns=False,
            train_sampling_strategy="group_by_length",
            length_column_name="length",
        ),
        train_dataset=Dataset.from_list(rows),
        data_collator=Collator(tune.tokenizer.pad_token_id or tune.tokenizer.eos_token_id),
        processing_class=tune.tokenizer,
        optimizers=optimizers(tune, steps),
        callbacks=[Keeper(tune, steps)],
    )
    fit(tune, trainer)
    return facts


def find_labels(tune: FineTune) -> tuple[list[Label], dict[str, Any]]:
    """The labels of the method, and in numbers where they come from."""
    method, task, documents = tune.config.method, tune.task, tune.train_set.documents
    traces: Mapping[str, Sequence[Trace]] = {}
    if isinstance(method, c.SftConfig):
        labels = labels_from_gold(task, documents)
        holes = [label for label in labels if label.unknown]
        if holes and method.holes == "skip":
            labels = [label for label in labels if not label.unknown]
        elif holes:
            labels = fill_holes(tune, labels)
    else:
        assert isinstance(method, (c.DistillConfig, c.GradedSftConfig))
        traces = traces_by_document(method.traces)
        if isinstance(method, c.DistillConfig):
            labels = labels_from_traces(task, documents, traces)
        else:
            if method.own_samples:
                own = tune.own_answers(method.own_samples)
                traces = {d.id: [*traces.get(d.id, ()), *own[d.id]] for d in documents}
            labels = graded_labels(
                Rubric(task),
                documents,
                traces,
                min_reward=method.min_reward,
                weight_power=method.weight_power,
                prune=method.prune,
            )
    sources: dict[str, int] = {}
    for label in labels:
        sources[label.source] = sources.get(label.source, 0) + 1
    return labels, {
        "labels": {
            "documents": len(documents),
            "labelled": len(labels),
            "sources": sources,
            "incomplete": sum(bool(label.unknown) for label in labels),
            "human": sum(label.source == "gold" for label in labels),
        }
    }


def fill_holes(tune: FineTune, labels: Sequence[Label]) -> list[Label]:
    """What a label does not know is taken from the policy's own answer; it is context there and has no loss.

    A gap in its place would be learned (a model trained on receipts without items stops writing items).
    """
    missing = {label.document_id for label in labels if label.unknown}
    places = [i for i, document in enumerate(tune.train_set.documents) if document.id in missing]
    part = tune.train_set.take(places)
    own = {
        rollout.document_id: canonical_value(tune.task, rollout.text) or {}
        for rollout in tune.sampler.greedy(part.prompts, tune.config.sampler.max_tokens)
    }
    return [
        replace(label, value=label.value | {k: own[label.document_id].get(k, label.value[k]) for k in label.unknown})
        if label.unknown
        else label
        for label in labels
    ]


def make_rows(tune: FineTune, labels: Sequence[Label]) -> list[dict[str, Any]]:
    """A row of token ids, loss labels and weight for each label that fits; weights have the mean 1."""
    prompts = dict(tune.train_set.prompts)
    kept = []
    for label in labels:
        ids, wanted = encode_label(tune.task, tune.tokenizer, label)
        if len(prompts[label.document_id]) + len(ids) <= tune.config.model.max_positions:
            kept.append((label, ids, wanted))
    mean = sum(label.weight for label, _, _ in kept) / max(1, len(kept))
    return [
        {
            "input_ids": [*prompts[label.document_id], *ids],
            "labels": [IGNORED] * len(prompts[label.document_id]) + wanted,
            "weight": label.weight / mean if mean else 1.0,
            "length": len(prompts[label.document_id]) + len(ids),
        }
        for label, ids, wanted in kept
    ]


def encode_label(task: Task, tokenizer: Any, label: Label) -> tuple[list[int], list[int]]:
    """(token ids, loss labels) of a label's completion: tokens that write an unknown value have no loss."""
    text = task.canonical(label.value)
    if not label.unknown:
        ids = completion_ids(tokenizer, text)
        return ids, list(ids)
    spans = [span for key, span in key_spans(text).items() if key in label.unknown]
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = [*encoded["input_ids"], tokenizer.eos_token_id]
    wanted = [
        IGNORED if any(start < high and low < end for low, high in spans) else token
        for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]
    return ids, [*wanted, tokenizer.eos_token_id]


def key_spans(text: str) -> dict[str, tuple[int, int]]:
    """Where each top-level key and its value stand in a compact JSON object, as (start, end) in characters."""
    spans: dict[str, tuple[int, int]] = {}
    start, before = 1, {}
    for key, value in json.loads(text).items():
        before[key] = value
        end = len(json.dumps(before, ensure_ascii=False, separators=(",", ":"))) - 1
        spans[key] = (start, end)
        start = end + 1
    return spans


class Collator:
    """Rows to tensors, padded on the right: input_ids, attention_mask and labels [N, L], weight [N]."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)

        def padded(key: str, filler: int) -> Tensor:
            return torch.tensor([[*row[key], *[filler] * (longest - len(row[key]))] for row in rows])

        mask = [[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows]
        return {
            "input_ids": padded("input_ids", self.pad_token_id),
            "attention_mask": torch.tensor(mask),
            "labels": padded("labels", IGNORED),
            "weight": torch.tensor([row["weight"] for row in rows]),
        }


class WeightedSftTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with a weight for each row: sum(weight x -log p) over the tokens of the step, over their number."""

    def __init__(self, tune: FineTune, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._tune = tune

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        weight_N = inputs.pop("weight")
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        logprobs_NT = outputs.log_probs  # 0 where there is no label
        tokens = outputs.label_mask.sum() if num_items_in_batch is None else num_items_in_batch
        loss = -(logprobs_NT * weight_N[:, None]).sum() / torch.as_tensor(tokens).clamp(min=1)
        self._tune.tokens += int(inputs["attention_mask"].sum())
        known = outputs.label_mask.sum().clamp(min=1)
        self._metrics["train"]["mean_token_accuracy"].append((outputs.is_top1.sum() / known).item())
        self._metrics["train"]["entropy"].append((outputs.entropy.detach().sum() / known).item())
        return (loss, outputs) if return_outputs else loss
