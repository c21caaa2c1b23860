"""In which dtype this machine is fast. By rule, not by measurement: the same machine always computes the same."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


@functools.cache
def has_bfloat16() -> bool:
    """Whether the GPU, or the processor where there is none, has instructions for bfloat16.

    Without them it is emulated: on an AMD EPYC with AVX2 alone a matrix product takes six times as long as in float32.
    vLLM refuses it on GPUs before Ampere.
    """
    capability = _gpu_capability()
    if capability is not None:
        return capability >= 8
    flags = cpu_info().get("flags")
    return flags is None or bool({"amx_bf16", "avx512_bf16"} & set(flags.split()))  # others: not measured


@functools.cache
def multiplies_bfloat16_faster() -> bool:
    """Whether the processor multiplies bfloat16 matrices faster than float32 ones.

    AMD's do from AVX512-BF16 on (200 against 105 GFLOP/s on two cores), Intel's only with AMX (without it 160 against
    260).
    """
    info = cpu_info()
    if "flags" not in info:
        return True  # not measured
    flags = info["flags"].split()
    return "amx_bf16" in flags or ("avx512_bf16" in flags and info.get("vendor_id") != "GenuineIntel")


def _gpu_capability() -> float | None:
    """Compute capability of the first GPU; None without one, or where all are hidden. 8.0 is Ampere."""
    if shutil.which("nvidia-smi") is None or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):  # none for us
        return None
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        return float(subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.split()[0])
    except (OSError, subprocess.TimeoutExpired, IndexError, ValueError):
        return None


def cpu_info() -> dict[str, str]:
    """Of the first core, as Linux has it: {"vendor_id": "AuthenticAMD", "flags": "fpu vme ..."}; {} elsewhere."""
    try:
        first, _, _ = CPU_INFO.read_text(encoding="utf-8").partition("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
