"""New weights into a running vLLM engine.

In process, on CPU and GPU alike, one call hands over all tensors: `reload_weights` on the workers. It is the only way
that works on the CPU, where vLLM packs its weights and looping `model.load_weights` over single tensors fails. It was
run on the CPU only; vLLM's source has the same call for GPUs. For engines in another process vLLM has a weight-transfer
interface (`LLM.init_weight_transfer_engine`, `start_weight_update`, `update_weights`, `finish_weight_update`, over NCCL
or CUDA IPC). That has no backend for the CPU, and an engine in this process gains nothing from it: it is not used here.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from rewards.errors import InfraError


def checkpoint_names(model_path: str | Path) -> frozenset[str] | None:
    """Names of the tensors in the safetensors files of a model folder; None for a hub name or other formats."""
    files = sorted(Path(model_path).glob("*.safetensors")) if Path(model_path).is_dir() else []
    names: set[str] = set()
    for file in files:
        with safe_open(file, framework="numpy") as tensors:
            names.update(tensors.keys())
    return frozenset(names) or None


def load_weights(llm: Any, named_tensors: Iterable[tuple[str, Tensor]], expected: frozenset[str] | None) -> None:
    """Load all tensors, named as in the model's checkpoint, into every worker of `llm` and forget cached prefixes.

    The engine casts to its own dtype. Raises InfraError when `expected` names are missing: vLLM itself would only warn
    and go on sampling from a half-loaded policy. Tied output embeddings (lm_head) may be left out.
    """
    tensors = dict(named_tensors)
    missing = sorted((expected or frozenset()) - tensors.keys() - {"lm_head.weight"})
    if missing:
        raise InfraError(
            f"weights for the sampler lack {len(missing)} of {len(expected or ())} tensors of its checkpoint, "
            f"{missing[0]} first; load the policy and the sampler from the same model"
        )
    llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(tensors.items())})
    if not torch.cuda.is_available():
        llm.collective_rpc(_repack_tied_head)
    llm.reset_prefix_cache()


def _repack_tied_head(worker: Any) -> None:
    """Pack the output head anew. A head that is tied to the embeddings gets no weights of its own in a reload, so vLLM
    leaves the packed copy that its CPU kernels read as it was: the sampler would go on with the first policy's head."""
    head: Any = getattr(worker.model_runner.get_model(), "lm_head", None)
    if head is not None and hasattr(head, "quant_method"):
        head.quant_method.process_weights_after_loading(head)
