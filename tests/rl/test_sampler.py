"""The sampler against vLLM itself: log-probabilities, seeds, versions, weights, the cache. One engine at a time."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from rewards.errors import ConfigError, DataError, InfraError
from rl.config import SamplerConfig
from rl.engine_arguments import check_engine_arguments, check_sampling
from rl.rollouts import Group
from rl.sampler import Sampler, logprob_gap, rollout_seed
from rl.weights import checkpoint_names

MAX_GAP = {"float32": 1e-4, "bfloat16": 1e-2}
RANDOM = random.Random(0)
PROMPTS = [
    (f"document-{i}", [RANDOM.randrange(3, 320) for _ in range(length)]) for i, length in enumerate([40, 150, 90, 33])
]


def sampler_config(**changes: object) -> SamplerConfig:
    values: dict[str, object] = {
        "engine": {"max_num_batched_tokens": 256, "max_num_seqs": 32},  # so small that prompts are read in pieces
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 24,
        "logprob_gap_max": 0.01,
        "structured": "text",
        "drafting": None,
    }
    return SamplerConfig.model_validate(values | changes)


def load_model(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def perturbed(path: Path) -> Any:
    model = load_model(path)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3 * parameter.abs().mean())
    return model


@torch.no_grad()
def gap_to(model: Any, groups: list[Group], dtype: str, temperature: float = 1.0) -> float:
    """Mean gap between the rollouts' own log-probabilities and those of a plain transformers forward."""
    ours: list[float] = []
    theirs: list[torch.Tensor] = []
    for group in groups:
        for rollout in group.rollouts:
            ids = torch.tensor([group.prompt_ids + rollout.completion_ids])
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                logits = model(input_ids=ids).logits[0, len(group.prompt_ids) - 1 : -1].float()
            drawn = ids[0, len(group.prompt_ids) :, None]
            theirs.append((logits / temperature).log_softmax(-1).gather(1, drawn)[:, 0])
            ours.extend(rollout.sampler_logprobs)
    return logprob_gap(ours, torch.cat(theirs))


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def sampler(request: pytest.FixtureRequest, tiny_model_dir: Path) -> Iterator[Sampler]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads := 2)  # another count than vLLM's
    state = torch.get_rng_state()
    sampler = Sampler(tiny_model_dir, sampler_config(), max_model_len=256, dtype=request.param, threads=1, seed=0)
    assert torch.get_num_threads() == threads, "vLLM's thread count stays its own"
    assert torch.equal(torch.get_rng_state(), state), "and so do its random numbers"
    yield sampler
    sampler.close()
    sampler.close()
    torch.set_num_threads(2)
    assert torch.get_num_threads() == 2, "torch.set_num_threads is torch's own again"
    torch.set_num_threads(before)
    assert not torch.distributed.is_initialized()


@pytest.fixture
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["sampler"])


@pytest.mark.slow
def test_rollouts_are_what_was_asked_for(sampler: Sampler) -> None:
    groups = sampler.rollout(PROMPTS, 5, run_seed=7, step=2)
    assert [group.document_id for group in groups] == [document_id for document_id, _ in PROMPTS]
    for group, (document_id, prompt_ids) in zip(groups, PROMPTS, strict=True):
        assert group.prompt_ids == tuple(prompt_ids) and len(group.rollouts) == 5
        for index, rollout in enumerate(group.rollouts):
            assert rollout.document_id == document_id
            assert rollout.seed == rollout_seed(7, 2, document_id, index)
            assert rollout.policy_version == sampler.version
            assert len(rollout.completion_ids) == len(rollout.sampler_logprobs) <= 24
            ended = rollout.completion_ids[-1] == sampler.tokenizer.eos_token_id
            assert rollout.finish_reason == ("stop" if ended else "length")
            assert ended or len(rollout.completion_ids) == 24
            assert rollout.text == sampler.tokenizer.decode(rollout.completion_ids, skip_special_tokens=True)
    completions = {rollout.completion_ids for group in groups for rollout in group.rollouts}
    assert len(completions) == 20, "every sample has its own random numbers"
    before = torch.get_rng_state()
    assert sampler.rollout([], 5, run_seed=7, step=2) == []
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_seeds_make_a_rollout_again(sampler: Sampler, dtype: str) -> None:
    groups = sampler.rollout(PROMPTS, 5, run_seed=7, step=2)
    assert sampler.rollout(PROMPTS, 5, run_seed=7, step=2) == groups
    assert sampler.rollout(PROMPTS, 5, run_seed=7, step=3) != groups
    assert sampler.rollout(PROMPTS, 5, run_seed=8, step=2) != groups
    # Another order and other company: the random numbers are the same, and in float32 so is every token.
    alone = [sampler.replay(PROMPTS[i], sample, run_seed=7, step=2) for i in range(4) for sample in (0, 4)]
    first = [groups[i].rollouts[sample] for i in range(4) for sample in (0, 4)]
    assert [rollout.seed for rollout in alone] == [rollout.seed for rollout in first]
    same = [a.completion_ids == b.completion_ids for a, b in zip(alone, first, strict=True)]
    assert all(same) if dtype == "float32" else sum(same) >= 6
    turned = sampler.rollout(PROMPTS[::-1], 5, run_seed=7, step=2)[::-1]
    if dtype == "float32":
        for a, b in zip(turned, groups, strict=True):
            assert [r.completion_ids for r in a.rollouts] == [r.completion_ids for r in b.rollouts]


@pytest.mark.slow
def test_sampling_follows_the_policy(sampler: Sampler) -> None:
    """The mean surprise of 400 first tokens is the entropy of their distribution, within four standard errors."""
    groups = [sampler.rollout(PROMPTS[:1], 100, run_seed=0, step=step)[0] for step in range(4)]
    logprobs = np.array([rollout.sampler_logprobs[0] for group in groups for rollout in group.rollouts])
    model = load_model(Path(sampler.model_path))
    with torch.no_grad():
        distribution = model(input_ids=torch.tensor([PROMPTS[0][1]])).logits[0, -1].float().log_softmax(-1)
    entropy = -(distribution.exp() * distribution).sum().item()
    spread = (distribution.exp() * (distribution + entropy) ** 2).sum().sqrt().item()
    assert abs(-logprobs.mean() - entropy) < 4 * spread / np.sqrt(len(logprobs))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["with the tied head", "without"])
def test_logprobs_agree_with_transformers_before_and_after_a_load(
    sampler: Sampler, dtype: str, tiny_model_dir: Path, head: str
) -> None:
    original, other = load_model(tiny_model_dir), perturbed(tiny_model_dir)
    sampler.load(original.state_dict().items(), version=0)
    before = sampler.rollout(PROMPTS, 4, run_seed=0, step=0)
    assert gap_to(original, before, dtype) <= MAX_GAP[dtype]
    try:
        state = {k: v for k, v in other.state_dict().items() if head == "with the tied head" or k != "lm_head.weight"}
        sampler.load(state.items(), version=3)
        # The same prompts again: keys and values that the old weights left in the prefix cache would show here.
        after = sampler.rollout(PROMPTS, 4, run_seed=0, step=0)
        assert {rollout.policy_version for group in after for rollout in group.rollouts} == {3}
        assert gap_to(other, after, dtype) <= MAX_GAP[dtype]
        assert gap_to(original, after, dtype) > 5 * MAX_GAP[dtype], "the weights differ, so this test can fail"
    finally:
        sampler.load(original.state_dict().items(), version=0)
    assert sampler.rollout(PROMPTS, 4, run_seed=0, step=0) == before, "bit for bit what it was"


@pytest.mark.slow
def test_a_stale_prefix_cache_would_be_noticed(sampler: Sampler, dtype: str, tiny_model_dir: Path) -> None:
    """Load behind the adapter's back, without the reset: the gap shows what the reset is for."""
    original, other = load_model(tiny_model_dir), perturbed(tiny_model_dir)
    sampler.load(original.state_dict().items(), version=0)
    engine = sampler._llm
    resets = []
    reset, engine.reset_prefix_cache = engine.reset_prefix_cache, lambda: resets.append(1)
    try:
        sampler.rollout(PROMPTS, 4, run_seed=0, step=0)
        sampler.load(other.state_dict().items(), version=1)
        stale = sampler.rollout(PROMPTS, 4, run_seed=0, step=0)
        assert gap_to(other, stale, dtype) > 2 * MAX_GAP[dtype]
        assert len(resets) == 3, "one a rollout, one a load"
    finally:
        engine.reset_prefix_cache = reset
        sampler.load(original.state_dict().items(), version=0)


@pytest.mark.slow
def test_greedy_takes_the_most_likely_token(sampler: Sampler, dtype: str, tiny_model_dir: Path) -> None:
    rollouts = sampler.greedy(PROMPTS, max_tokens=8)
    assert [rollout.document_id for rollout in rollouts] == [document_id for document_id, _ in PROMPTS]
    assert rollouts == sampler.greedy(PROMPTS, max_tokens=8)
    if dtype == "float32":
        model = load_model(tiny_model_dir)
        for (_, prompt_ids), rollout in zip(PROMPTS, rollouts, strict=True):
            ids = torch.tensor([[*prompt_ids, *rollout.completion_ids]])
            with torch.no_grad():
                best = model(input_ids=ids).logits[0, len(prompt_ids) - 1 : -1].argmax(-1)
            assert tuple(best.tolist()) == rollout.completion_ids


@pytest.mark.slow
def test_what_cannot_work_is_refused(sampler: Sampler, tiny_model_dir: Path) -> None:
    with pytest.raises(DataError, match=r"document long: 240 prompt tokens and 24 to complete do not fit"):
        sampler.rollout([("long", [5] * 240)], 2, run_seed=0, step=0)
    with pytest.raises(DataError, match=r"document empty: 0 prompt tokens"):
        sampler.greedy([("empty", [])], 8)
    state = load_model(tiny_model_dir).state_dict()
    tensors = [(name, tensor) for name, tensor in state.items() if "layers.1" not in name]
    with pytest.raises(InfraError, match=r"lack 11 of 24 tensors of its checkpoint, model\.layers\.1\."):
        sampler.load(tensors, version=1)
    assert sampler.version == 0


def test_seed_of_a_sample() -> None:
    assert rollout_seed(0, 1, "a", 3) == rollout_seed(0, 1, "a") + 3
    seeds = {rollout_seed(*key) for key in [(0, 1, "a"), (1, 0, "a"), (0, 11, "a"), (0, 1, "b"), (0, 1, "a/1")]}
    assert len(seeds) == 5 and max(seeds) < 2**62
    assert rollout_seed(0, 0, "\ud800") != rollout_seed(0, 0, "?")


def test_gap() -> None:
    assert logprob_gap([-1.0, -2.0], torch.tensor([-1.5, -2.0])) == pytest.approx(0.25)
    assert logprob_gap([], []) == 0.0
    assert np.isnan(logprob_gap([float("nan")], [-1.0]))
    with pytest.raises(ValueError, match="do not compare"):
        logprob_gap([-1.0], [-1.0, -2.0])


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"enforce_eagre": True}, r"sampler\.engine\.enforce_eagre: .* did you mean enforce_eager\?"),
        ({"model": "x"}, r"sampler\.engine\.model: set by model\.path"),
        ({"max_model_len": 7}, r"sampler\.engine\.max_model_len: set by model\.max_positions"),
        ({"zzzz": 7}, r"sampler\.engine\.zzzz: .* see vLLM's engine arguments"),
    ],
)
def test_engine_arguments_are_checked(engine: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        check_engine_arguments(engine)
    assert "\n" not in str(error.value)


def test_known_engine_arguments_pass() -> None:
    check_engine_arguments({"enforce_eager": True, "gpu_memory_utilization": 0.5, "speculative_config": {}})


def test_settings_of_two_distributions_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"sampler\.top_p=0\.9"):
        check_sampling(sampler_config(top_p=0.9))
    with pytest.raises(ConfigError, match=r"sampler\.temperature=0\.7: .* speculative"):
        check_sampling(sampler_config(temperature=0.7, engine={"speculative_config": {"method": "ngram"}}))


def test_names_of_a_checkpoint(tiny_model_dir: Path, tmp_path: Path) -> None:
    names = checkpoint_names(tiny_model_dir)
    assert names is not None and "model.embed_tokens.weight" in names
    assert checkpoint_names("Qwen/Qwen3-0.6B") is None and checkpoint_names(tmp_path) is None


@pytest.mark.slow
def test_another_temperature_and_a_refused_engine_argument(tiny_model_dir: Path) -> None:
    """Last in this file: it needs engines of its own."""
    with pytest.raises(ConfigError, match=r"^sampler\.engine: vLLM refuses") as refused:
        Sampler(tiny_model_dir, sampler_config(engine={"block_size": 7}), max_model_len=256, dtype="float32", threads=1)
    assert "\n" not in str(refused.value)
    config = sampler_config(temperature=0.7, engine={})
    sampler = Sampler(tiny_model_dir, config, max_model_len=256, dtype="float32", threads=1)
    groups = sampler.rollout(PROMPTS, 4, run_seed=0, step=0)
    assert sampler.rollout(PROMPTS, 4, run_seed=0, step=0) == groups
    assert gap_to(load_model(tiny_model_dir), groups, "float32", temperature=0.7) <= MAX_GAP["float32"]
    sampler.close()
