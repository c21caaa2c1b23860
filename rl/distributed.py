"""Data parallelism over accelerate (gloo on the CPU, NCCL on GPUs): each rank samples and trains its shard.

Gradients are summed by hand, once a step, after all micro-batches: ranks may then have different numbers of
micro-batches (even none), and since every loss is already divided by the global token count, the sum is the
single-process gradient.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor

from rewards.errors import ConfigError

T = TypeVar("T")
_BUCKET_ELEMENTS = 1 << 24  # 64 MiB of fp32 at a time


def start(world_size: int, timeout_s: float) -> Accelerator:
    """The accelerator of this process.

    Raises ConfigError when the processes that were started are not `world_size`: some launchers quietly start one.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started == world_size:
        cpu = not torch.cuda.is_available()
        own = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        if cpu and started > 1 and own.isdigit() and shutil.which("nvidia-smi"):  # the others would wait for it
            raise ConfigError(
                f"launch.processes: this machine has no GPU {own} for rank {os.environ.get('RANK')}; start as many "
                "processes as there are GPUs, or hide them with CUDA_VISIBLE_DEVICES=-1"
            )
        process_group = InitProcessGroupKwargs(timeout=timedelta(seconds=timeout_s))
        accelerator = Accelerator(cpu=cpu, kwargs_handlers=[process_group])
        started = accelerator.num_processes
    if started != world_size:
        raise ConfigError(
            f"run.world_size: the config says {world_size} but {started} process(es) were started; "
            f"use torchrun --nproc-per-node {world_size} or set run.world_size={started}"
        )
    return accelerator


def shard(items: Sequence[T], accelerator: Accelerator) -> list[T]:
    """The items of this rank: every world-size-th one, so that long and short documents spread evenly."""
    return list(items[accelerator.process_index :: accelerator.num_processes])


def gather(items: Sequence[T], accelerator: Accelerator) -> list[T]:
    """The inverse of `shard`, on every rank: the shards put back into the order of the whole."""
    if accelerator.num_processes == 1:
        return list(items)
    shards: list[Any] = [None] * accelerator.num_processes
    torch.distributed.all_gather_object(shards, list(items))
    whole: list[T] = []
    for position in range(max(len(s) for s in shards)):
        whole.extend(s[position] for s in shards if position < len(s))
    return whole


def sum_numbers(numbers: dict[str, float], accelerator: Accelerator) -> dict[str, float]:
    """Each number summed over the ranks; a rank may lack some of the keys."""
    if accelerator.num_processes == 1:
        return numbers
    total: dict[str, float] = {}
    for part in gather([numbers], accelerator):
        for key, value in part.items():
            total[key] = total.get(key, 0.0) + value
    return total


def sum_gradients(parameters: Iterable[Tensor], accelerator: Accelerator) -> None:
    """Sum the gradients over the ranks, in place. A rank without any trainable group joins with zeros."""
    trained = [p for p in parameters if p.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    if accelerator.num_processes == 1:
        return
    bucket: list[Tensor] = []
    for index, parameter in enumerate(trained):
        assert parameter.grad is not None
        bucket.append(parameter.grad)
        if index == len(trained) - 1 or sum(g.numel() for g in bucket) >= _BUCKET_ELEMENTS:
            flat = torch.cat([g.reshape(-1) for g in bucket])
            torch.distributed.all_reduce(flat)
            for gradient, summed in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
                gradient.copy_(summed.view_as(gradient))
            bucket = []


def broadcast(value: T, accelerator: Accelerator) -> T:
    """The value of rank 0, on every rank."""
    if accelerator.num_processes == 1:
        return value
    box: list[Any] = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    result: T = box[0]
    return result
