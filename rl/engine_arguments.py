"""Checks a sampler's config, and its engine arguments against the installed vLLM, without importing vLLM."""

import ast
import difflib
import functools
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from rewards.errors import ConfigError, InfraError
from rl.config import SamplerConfig

SET_BY_OFFRAMP = {
    "model": "model.path",
    "tokenizer": "model.path",
    "dtype": "model.dtype",
    "max_model_len": "model.max_positions",
    "seed": "run.seed",
    "logprobs_mode": "sampler.temperature",
    "logits_processors": "sampler.temperature",
}
"""Engine arguments that Offramp sets itself, and the key of the config that decides them."""


@functools.cache
def known_engine_arguments() -> frozenset[str]:
    """Names of the fields of vLLM's EngineArgs, read from its source. Raises InfraError where vLLM is not installed."""
    spec = find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        raise InfraError("vllm is not installed: run `bash launch/setup.sh`")
    source = Path(spec.submodule_search_locations[0], "engine", "arg_utils.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == "EngineArgs":
            fields = [field.target for field in node.body if isinstance(field, ast.AnnAssign)]
            return frozenset(target.id for target in fields if isinstance(target, ast.Name))
    raise InfraError("vllm/engine/arg_utils.py has no EngineArgs: this vLLM version is not supported")


def check_engine_arguments(engine: Mapping[str, object]) -> None:
    """Raises ConfigError, one line with the dotted key and the fix, for an argument that cannot be passed on."""
    known = known_engine_arguments()
    for name in engine:
        if name in SET_BY_OFFRAMP:
            raise ConfigError(f"sampler.engine.{name}: set by {SET_BY_OFFRAMP[name]}; remove it here")
        if name not in known:
            nearest = difflib.get_close_matches(name, known - SET_BY_OFFRAMP.keys(), n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else "see vLLM's engine arguments"
            raise ConfigError(f"sampler.engine.{name}: no such engine argument of vLLM; {hint}")


def check_sampling(config: SamplerConfig) -> None:
    """Raises ConfigError for settings under which sampler and trainer would speak of different distributions."""
    if config.top_p != 1:
        raise ConfigError(
            f"sampler.top_p={config.top_p}: the trainer's log-probabilities are over all tokens, not a nucleus; set 1.0"
        )
    drafting = config.drafting is not None
    if config.temperature != 1 and (drafting or "speculative_config" in config.engine):
        remedy = "set sampler.drafting=null" if drafting else "remove sampler.engine.speculative_config"
        raise ConfigError(
            f"sampler.temperature={config.temperature}: vLLM's log-probabilities are wrong there with speculative "
            f"decoding; set sampler.temperature=1.0 or {remedy}"
        )
    if drafting and "speculative_config" in config.engine:
        raise ConfigError("sampler.engine.speculative_config: set by sampler.drafting; remove it here")
    if drafting and config.structured != "text":
        raise ConfigError(
            f"sampler.drafting: not tried together with sampler.structured={config.structured}; set one of them back"
        )
