"""Offline reinforcement learning on ranked pairs: Rafailov et al. 2023, DPO (arXiv:2305.18290), over TRL's DPOTrainer.

The rubric ranks the recorded answers to a document, and the policy's own; nothing is sampled after the start.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from trl import DPOConfig as DpoArguments
from trl import DPOTrainer

from envs.documents import Trace
from envs.labels import Pair, ranked_pairs, traces_by_document
from rewards.rubric import Rubric
from rl import config as c
from rl import lora
from rl.finetune import FineTune, Keeper, arguments, check_rows, completion_ids, fit, optimizers, steps_of

log = logging.getLogger(__name__)


def run(tune: FineTune) -> dict[str, Any]:
    """Train `tune.model` on pairs. Returns how many there were, for the record."""
    config, method = tune.config, tune.config.method
    assert isinstance(method, c.DpoConfig)
    pairs = find_pairs(tune, method)
    check_rows(config, pairs, "pairs")
    rows = make_rows(tune, pairs)
    longest = max(len(r["prompt_ids"]) + max(len(r["chosen_ids"]), len(r["rejected_ids"])) for r in rows)
    steps = steps_of(config, len(rows))
    log.info("dpo: %d pairs, %d updates", len(rows), steps)
    tune.model = lora.wrap(tune.model, config.lora)
    losses = {"sigmoid": 1.0} | ({"sft": method.sft_coef} if method.sft_coef > 0 else {})
    trainer = PairTrainer(
        tune,
        model=tune.model,
        args=DpoArguments(
            **arguments(config, steps, 2 * longest, tune.dir),  # two sequences a row
            max_length=None,
            beta=method.beta,
            loss_type=list(losses),
            loss_weights=list(losses.values()),
            # The first policy's log-probabilities once, before the first update, in place of a second model.
            precompute_ref_log_probs=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tune.tokenizer,
        optimizers=optimizers(tune, steps),
        callbacks=[Keeper(tune, steps)],
    )
    fit(tune, trainer)
    margins = [pair.chosen_reward - pair.rejected_reward for pair in pairs]
    return {
        "pairs": {
            "documents": len({pair.document_id for pair in pairs}),
            "pairs": len(pairs),
            "margin_mean": round(sum(margins) / len(margins), 4),
        }
    }


def find_pairs(tune: FineTune, method: c.DpoConfig) -> list[Pair]:
    """Pairs from the traces and from the policy's own answers."""
    documents = tune.train_set.documents
    traces: Mapping[str, Sequence[Trace]] = traces_by_document(method.traces)
    if method.own_samples:
        own = tune.own_answers(method.own_samples)
        traces = {d.id: [*traces.get(d.id, ()), *own[d.id]] for d in documents}
    return ranked_pairs(
        Rubric(tune.task),
        documents,
        traces,
        min_margin=method.min_margin,
        pairs_per_document=method.pairs_per_document,
    )


def make_rows(tune: FineTune, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Token ids of prompt, chosen and rejected answer; pairs that do not fit the policy are left out."""
    prompts = dict(tune.train_set.prompts)
    rows = []
    for pair in pairs:
        prompt = list(prompts[pair.document_id])
        chosen, rejected = (completion_ids(tune.tokenizer, text) for text in (pair.chosen, pair.rejected))
        if len(prompt) + max(len(chosen), len(rejected)) <= tune.config.model.max_positions:
            rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    return rows


class PairTrainer(DPOTrainer):  # type: ignore[misc]
    """DPOTrainer on rows that are token ids already."""

    def __init__(self, tune: FineTune, **kwargs: Any) -> None:
        self._tune = tune
        super().__init__(**kwargs)

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        self._tune.tokens += int(inputs["attention_mask"].sum())
        return super().compute_loss(model, inputs, *args, **kwargs)
