"""Sampling that keeps to the task's schema: what comes out, and whose log-probabilities come with it."""

from pathlib import Path

import jsonschema_rs
import pytest
import torch
from pydantic import ValidationError

from rewards.errors import ConfigError
from rewards.parse import Attempt, parse
from rl.batching import make_batch
from rl.policy import load_policy
from rl.sampler import Sampler
from tests.rl.fakes import make_config
from tests.rl.test_sampler import PROMPTS, sampler_config

SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["cash", "card"]}, "paid": {"type": ["boolean", "null"]}},
    "required": ["kind", "paid"],
    "additionalProperties": False,
}


def test_importance_weights_against_a_constrained_sampler_are_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"sampler\.structured=schema: .* set method\.tis_cap=null"):
        make_config(tiny_model_dir, tmp_path, sampler__structured="schema", method__tis_cap=2.0)
    config = make_config(tiny_model_dir, tmp_path, sampler__structured="schema", method__tis_cap=None)
    assert config.sampler.structured == "schema"


@pytest.mark.slow
def test_answers_keep_to_the_schema_and_logprobs_are_of_the_constrained_policy(tiny_model_dir: Path) -> None:
    config = sampler_config(structured="schema", max_tokens=60)
    constraint = {"json": SCHEMA}
    sampler = Sampler(
        tiny_model_dir, config, max_model_len=256, dtype="float32", threads=1, constraint=lambda _: constraint
    )
    try:
        groups = sampler.rollout(PROMPTS, 8, run_seed=0, step=0)
        assert sampler.rollout(PROMPTS, 8, run_seed=0, step=0) == groups
        greedy = sampler.greedy(PROMPTS, max_tokens=60)
        with pytest.raises(ConfigError, match=r"sampler\.structured=schema: vLLM refuses it"):
            constraint["json"] = {"type": "object", "properties": {"a": {"type": "nonsense"}}}
            sampler.greedy(PROMPTS, max_tokens=60)
    finally:
        sampler.close()

    validator = jsonschema_rs.validator_for(SCHEMA)
    whole = [r for r in (*greedy, *(r for group in groups for r in group.rollouts)) if r.finish_reason == "stop"]
    assert len(whole) >= 8, "a random policy ends some of its answers, where the schema leaves it no choice"
    for rollout in whole:
        attempt = parse(rollout.text)
        assert isinstance(attempt, Attempt) and validator.is_valid(attempt.value), rollout.text

    batch = make_batch(groups, torch.zeros(len(groups), 8))
    with torch.no_grad():
        free_T = load_policy(tiny_model_dir, "float32", "plain").logprobs(batch)
    above_T = batch.sampler_logprobs_T - free_T
    # Less mass to share: never less likely than without the schema, and mostly far more.
    assert above_T.min() > -1e-4
    assert above_T.median() > 1
    assert (batch.sampler_logprobs_T > -1e-6).any(), "certain, where the schema leaves one token"
