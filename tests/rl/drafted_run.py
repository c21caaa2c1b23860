"""Real vLLM with or without drafts: greedy answers, and samples as the guard sees them, as JSON.

python -m tests.rl.drafted_run MODEL drafts|plain
"""

import json
import sys

from transformers import AutoTokenizer

import rl.sampler
from envs.synthetic import documents
from rewards.errors import ConfigError
from rewards.task import load_task
from rl import drafting
from rl.config import SamplerConfig
from rl.policy import load_policy
from rl.prepare import prepare

if __name__ == "__main__":
    path, drafts = sys.argv[1], sys.argv[2] == "drafts"
    config = SamplerConfig.model_validate(
        {
            "engine": {"max_num_seqs": 32},
            "temperature": 1.0,
            "top_p": 1.0,
            "max_tokens": 100,
            "logprob_gap_max": 0.01,
            "structured": "text",
            "drafting": {"tokens": 4, "shortest": 2, "longest": 4} if drafts else None,
        }
    )
    task, tokenizer = load_task("receipt"), AutoTokenizer.from_pretrained(path)
    prepared = prepare(
        documents("receipt", 4, seed=1), task, tokenizer, max_prompt_tokens=1500, schema_in_prompt=False, what="test"
    )
    sampler = rl.sampler.Sampler(path, config, max_model_len=2048, dtype="float32", threads=1, seed=0)
    refused = None
    try:
        sampler.rollout(prepared.prompts, 4, run_seed=0, step=0)
    except ConfigError as error:
        refused = str(error)
    rl.sampler.refuse_on_cpu = lambda what: None
    groups = sampler.rollout(prepared.prompts, 4, run_seed=0, step=0)
    print(
        json.dumps(
            {
                "refused": refused,
                "fault": drafting.fault(load_policy(path, "float32", "plain"), groups, gap_max=0.01),
                "greedy": [rollout.completion_ids for rollout in sampler.greedy(prepared.prompts, 100)],
            }
        )
    )
