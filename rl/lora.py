"""Low-rank adapters through PEFT: what trains in place of all weights, and one plain model out of both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rewards.errors import ConfigError
from rl.config import LoraConfig

ADAPTER = "default"


def peft_settings(lora: LoraConfig) -> Any:
    """PEFT's own configuration."""
    from peft import LoraConfig as PeftLora

    return PeftLora(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets[0] if lora.targets == ("all-linear",) else list(lora.targets),
        task_type="CAUSAL_LM",
    )


def wrap(model: Any, lora: LoraConfig | None) -> Any:
    """`model` as a PeftModel, which TRL's trainers know, or as it is. Raises ConfigError for unknown modules."""
    if lora is None:
        return model
    from peft import get_peft_model

    try:
        return get_peft_model(model, peft_settings(lora))
    except ValueError as error:
        raise ConfigError(f"lora.targets: {str(error).splitlines()[0]}") from error


def adapt(model: Any, lora: LoraConfig | None, seed: int) -> None:
    """Put adapters into `model` itself and freeze its other weights. One seed gives the same ones again."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wrap(model, lora)


def adapters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a state_dict, what belongs to adapters; empty where there are none."""
    return {name: tensor for name, tensor in state.items() if ".lora_" in name}


def merged_state(model: Any) -> dict[str, Tensor]:
    """Weights under the names of the model's own checkpoint, adapters added; the model itself is left as it is."""
    return {name: tensor for name, _, tensor in merged(model)}


@torch.no_grad()
def merged(model: Any) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(name in the model's own checkpoint, the weight alone, the weight with its adapter), one at a time."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    adapted = {name: module for name, module in base.named_modules() if hasattr(module, "lora_A")}
    for name, tensor in base.state_dict().items():
        if ".lora_" in name:
            continue
        alone = tensor
        owner, _, leaf = name.rpartition(".base_layer.")
        if owner in adapted and leaf == "weight":
            tensor = tensor + adapted[owner].get_delta_weight(ADAPTER).to(tensor.dtype)
        yield name.replace(".base_layer.", "."), alone, tensor.detach()
