"""Checkpoints: whole or not there. safetensors and JSON only, so that loading one runs no code from it.

    <run>/checkpoints/step_000020/{policy,optimizer,rng}.safetensors  state.json  manifest.json  (older.safetensors)

Everything is written into a folder aside, synced, and renamed; manifest.json, written last, holds size and SHA-256
of every other file. `latest` checks them, says what it ignores and why, and takes the newest whole one. An older one
goes only after a newer one is in place.
"""

import hashlib
import json
import logging
import os
import random
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rewards.errors import InfraError

log = logging.getLogger(__name__)

FOLDER = "checkpoints"
MANIFEST = "manifest.json"
PARTS = ("policy", "optimizer", "rng")
OLDER = "older"
FORMAT = 1


class BrokenCheckpoint(Exception):
    """Why a checkpoint cannot be used, in one line."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One whole checkpoint, in memory on the CPU.

    Example: Checkpoint(path=Path("runs/demo/checkpoints/step_000020"), step=20, policy_state={...},
                        optimizer_state={"state": {...}, "param_groups": [...]}, extra={"position": 320}, rng={...})
    """

    path: Path
    step: int
    policy_state: dict[str, Tensor]
    """As `Policy.state_to_save` gave it, tied tensors included."""
    optimizer_state: dict[str, Any]
    """As the optimizer's `state_dict()` gave it, bit for bit; a scheduler's state may stand in `extra`."""
    extra: dict[str, Any]
    rng: dict[str, Any]
    older: dict[str, Tensor] | None = None
    """The weights that sampled one step ahead, as the sampler gets them; see rl/ahead.py."""

    def restore_rng(self) -> None:
        """Set the global generators of torch, numpy and Python to where they stood."""
        set_rng_state(self.rng)


def save(
    run_dir: str | Path,
    step: int,
    policy_state: Mapping[str, Tensor],
    optimizer_state: Mapping[str, Any],
    extra: Mapping[str, Any],
    *,
    keep: int = 2,
    protect: Collection[int] = (),
    older: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write the checkpoint of `step`, then delete all but the newest `keep` and those of the steps in `protect`.

    `extra` is plain data (JSON). The states of the global random generators are saved too. Returns the folder.
    Raises InfraError when it cannot be written; what was there before is then untouched.
    """
    root = Path(run_dir) / FOLDER
    final, aside = root / f"step_{step:06d}", root / f".step_{step:06d}.part"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for stale in root.glob(".step_*"):
            shutil.rmtree(stale)
        aside.mkdir()
        structure: dict[str, Any] = {}
        values: dict[str, Any] = dict(zip(PARTS, (policy_state, optimizer_state, rng_state()), strict=True))
        if older is not None:
            values[OLDER] = older
        for part, value in values.items():
            structure[part], tensors = _pack(value)
            save_file(tensors, aside / f"{part}.safetensors")
        state = {"format": FORMAT, "step": step, "extra": dict(extra), **structure}
        (aside / "state.json").write_text(json.dumps(state), encoding="utf-8")
        files = sorted(aside.iterdir())
        manifest = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files}
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for path in (*aside.iterdir(), aside):
            _sync(path)
        if final.exists():  # of a run that was resumed from further back, or broken
            final.rename(root / f".step_{step:06d}.old")
        aside.rename(final)
        _sync(root)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise InfraError(f"checkpoint {final} cannot be written: {error}; free space there and resume") from error
    shutil.rmtree(root / f".step_{step:06d}.old", ignore_errors=True)
    # A newer one is left over from before a resume: it is no successor of this one.
    old = [path for path in _folders(run_dir) if _step(path) < step][max(keep - 1, 0) :]
    for path in old:
        if _step(path) not in protect:
            shutil.rmtree(path, ignore_errors=True)
    return final


def latest(run_dir: str | Path) -> Checkpoint | None:
    """The newest whole checkpoint, or None. Broken ones are left where they are and named in a warning."""
    for path in _folders(run_dir):
        try:
            return load(path)
        except BrokenCheckpoint as error:
            log.warning("ignored checkpoint %s: %s", path, error)
    return None


def load(path: str | Path) -> Checkpoint:
    """Check a checkpoint against its manifest and load it. Raises BrokenCheckpoint with the file and what is wrong."""
    path = Path(path)
    check(path)
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if state["format"] != FORMAT:
            raise BrokenCheckpoint(f"format {state['format']}, this version reads {FORMAT}")
        parts = [part for part in (*PARTS, OLDER) if part in PARTS or part in state]
        values = {part: _unpack(state[part], load_file(path / f"{part}.safetensors")) for part in parts}
        policy, optimizer, rng = (values[part] for part in PARTS)
        return Checkpoint(path, state["step"], policy, optimizer, state["extra"], rng, values.get(OLDER))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BrokenCheckpoint(f"{type(error).__name__}: {error}") from error


def check(path: Path) -> None:
    """Raises BrokenCheckpoint unless every file is there with the size and the hash of the manifest."""
    try:
        manifest: dict[str, dict[str, Any]] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenCheckpoint(f"no readable {MANIFEST}, so it was never finished ({type(error).__name__})") from error
    wanted = {f"{part}.safetensors" for part in PARTS} | {"state.json"}
    if not wanted <= expected.keys():
        raise BrokenCheckpoint(f"{MANIFEST} does not name {sorted(wanted - expected.keys())[0]}")
    wanted |= {f"{OLDER}.safetensors"} & expected.keys()
    for name in sorted(wanted):
        size, digest = expected[name]
        file = path / name
        if not file.is_file():
            raise BrokenCheckpoint(f"{name} is missing")
        if file.stat().st_size != size:
            raise BrokenCheckpoint(f"{name} has {file.stat().st_size} bytes, not {size}")
        found = _sha256(file)
        if found != digest:
            raise BrokenCheckpoint(f"{name} has sha256 {found[:12]}, not {str(digest)[:12]}: its content changed")


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes of all tensors, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_model_dir(
    policy_state: Mapping[str, Tensor], model_path: str | Path, folder: str | Path, dtype: torch.dtype = torch.bfloat16
) -> Path:
    """Write weights as a model folder that transformers and vLLM load; config and tokenizer come from `model_path`.

    Replaces `folder` as a whole. Returns it.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(folder)
    aside, before = folder.with_name(f".{folder.name}.part"), folder.with_name(f".{folder.name}.old")
    for stale in (aside, before):
        shutil.rmtree(stale, ignore_errors=True)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype)
    model.load_state_dict(policy_state)  # casts
    model.save_pretrained(aside)
    AutoTokenizer.from_pretrained(model_path).save_pretrained(aside)
    for path in (*aside.iterdir(), aside):
        _sync(path)
    if folder.exists():
        folder.rename(before)
    aside.rename(folder)
    shutil.rmtree(before, ignore_errors=True)
    return folder


def rng_state() -> dict[str, Any]:
    """States of the global random generators of torch (all devices), numpy and Python."""
    version, internal, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)
    return {
        "python": [version, torch.tensor(internal, dtype=torch.int64), gauss],
        "numpy": numpy_state
        | {"state": {**numpy_state["state"], "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64))}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Undo `rng_state`. CUDA generators are left alone when the number of devices is another one."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss))
    numpy_state = state["numpy"]
    key = numpy_state["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state(numpy_state | {"state": numpy_state["state"] | {"key": key}})
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def _pack(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """Nested dicts, lists, tuples and plain values into JSON, the tensors in them into a flat dict.

    A tensor that occurs twice (tied weights) is stored once.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[tuple[Any, ...], str] = {}

    def pack(value: Any, name: str) -> Any:
        if isinstance(value, Tensor):
            identity = (value.data_ptr(), value.dtype, value.shape, value.stride())
            if value.numel() == 0 or identity not in names:
                names[identity] = name
                tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
            return {"tensor": names[identity]}
        if isinstance(value, Mapping):
            return {"dict": [[pack(k, ""), pack(v, f"{name}.{k}" if name else str(k))] for k, v in value.items()]}
        if isinstance(value, (list, tuple)):
            kind = "tuple" if isinstance(value, tuple) else "list"
            return {kind: [pack(v, f"{name}.{i}") for i, v in enumerate(value)]}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise TypeError(f"{name}: a checkpoint holds tensors and plain data, not {type(value).__name__}")

    return pack(value, ""), tensors


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    match kind:
        case "tensor":
            return tensors[content]
        case "dict":
            return {_unpack(k, tensors): _unpack(v, tensors) for k, v in content}
        case "list":
            return [_unpack(v, tensors) for v in content]
        case "tuple":
            return tuple(_unpack(v, tensors) for v in content)
    raise ValueError(f"state.json: unknown kind {kind!r}")


def _folders(run_dir: str | Path) -> list[Path]:
    """Checkpoints of a run, the newest first."""
    root = Path(run_dir) / FOLDER
    found = [path for path in root.iterdir() if re.fullmatch(r"step_\d{6,}", path.name)] if root.is_dir() else []
    return sorted(found, key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
