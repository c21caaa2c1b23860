"""Checks the engine arguments of a config against the installed vLLM without importing it (which takes seconds)."""

import ast
import difflib
import functools
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from rewards.errors import ConfigError, InfraError

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
