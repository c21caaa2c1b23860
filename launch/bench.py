"""offramp bench: measure a part. The parts that score need no torch, no Hydra and no GPU."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable
from typing import Any

from launch.score import read_keys
from rewards.document import Document
from rewards.errors import ConfigError, DataError
from rewards.task import Task, load_task

PARTS = {
    "update": ("rl.bench:main", "our update phase beside TRL's, and beside the limit"),
    "memory": ("rl.bench:main", "peak memory of the update, ours and TRL's"),
    "step": ("launch.bench_steps:step", "whole steps beside TRL's, vLLM in both"),
    "load": ("launch.bench_steps:load", "what of our step goes to loading weights and to the rest"),
    "scaling": ("rl.bench:main", "seconds against documents, G and prompt length, beside the line"),
    "ahead": ("launch.bench_steps:ahead", "sampling a step ahead beside on policy: speed and reward by step"),
    "learning": ("launch.bench_steps:learning", "shared prefix beside plain: first gradient and curves over seeds"),
    "rollout": ("rl.bench:main", "the sampler beside bare LLM.generate, in turns"),
    "gpu": ("rl.bench:main", "update and memory on a CUDA device, with random weights"),
    "rewards": ("launch.bench:rewards", "completions a second a core through the whole rubric"),
    "hostile": ("launch.bench:hostile", "malformed completions and JSON bombs: a verdict for each, and how soon"),
    "pool": ("launch.bench:pool", "rewards that hang, beside others that must not notice"),
}
_DATA_KEYS = {
    "task": "a name in configs/task, or a task file (receipt)",
    "docs.path": "documents with gold, JSON lines (synthetic ones)",
    "documents": "how many (200)",
    "seed": "of the completions and of synthetic documents (0)",
}


def bench(args: list[str], as_json: bool) -> dict[str, Any] | None:
    """One of PARTS, by name."""
    if not args or args[0] in ("-h", "--help"):
        print("usage: offramp bench PART [key=value ...] [--json]\n\nparts:")
        for name, (_, about) in PARTS.items():
            print(f"  {name:10} {about}")
        return None
    if args[0] not in PARTS:
        close = difflib.get_close_matches(args[0], PARTS, 1, 0.5)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ConfigError(f"bench {args[0]}: unknown part; {hint}parts: {', '.join(PARTS)}")
    module, name = PARTS[args[0]][0].split(":")
    part: Callable[[list[str]], dict[str, Any] | None] = getattr(importlib.import_module(module), name)
    result = part(args if module == "rl.bench" else args[1:])
    return None if result is None else {"bench": args[0], **result}


def rewards(args: list[str]) -> dict[str, Any] | None:
    values = read_keys("bench rewards", args, _DATA_KEYS, required=())
    if values is None:
        return None
    from rewards.throughput import measure

    task, documents, seed = _data(values)
    result = measure(task, documents, seed)
    print(
        f"{result['completions_per_s_core']:,.0f} completions a second a core, {result['p50_ms']:.3f} ms each (p50), "
        f"{result['p99_ms']:.3f} ms (p99); {result['completions']} completions of {result['documents']} documents"
    )
    print(f"slowest: document {result['slowest']['document']}, {result['slowest']['ms']:.3f} ms a completion")
    return result


def hostile(args: list[str]) -> dict[str, Any] | None:
    keys = {**_DATA_KEYS, "n": "malformed completions (100000)"}
    values = read_keys("bench hostile", args, keys, required=())
    if values is None:
        return None
    from rewards import hostile

    task, documents, seed = _data(values)
    n = whole(values, "n", 100_000)
    bombs = hostile.measure_bombs(task, documents[0])
    for name, ms in list(bombs["ms"].items())[:5]:
        print(f"{ms:8.2f} ms  {name}: {bombs['verdicts'][name]}")
    result = hostile.measure(
        task, documents, n, seed, lambda done, digest: print(f"{done} of {n}  {digest}", file=sys.stderr, flush=True)
    )
    print(
        f"{result['n']} malformed completions, {result['raised']} raised, {result['seconds']:.1f} CPU seconds, "
        f"{result['completions_per_s_core']:,.0f} a second; verdicts {result['digest'][:16]}"
    )
    if result["first"]:
        print(f"the first: {result['first']}")
    bad = result["raised"] or bombs["over_limit"]
    python = ".".join(map(str, sys.version_info[:3]))
    return {**result, "python": python, "bombs": bombs, **({"exit_code": 4} if bad else {})}


def pool(args: list[str]) -> dict[str, Any] | None:
    keys = {
        "hangs": "rewards that hang (1000)",
        "deadline_ms": "after which each is killed (300)",
        "workers": "processes that score (2)",
    }
    values = read_keys("bench pool", args, keys, required=())
    if values is None:
        return None
    from envs.synthetic import documents
    from rewards.pool_bench import measure

    hangs = whole(values, "hangs", 1000, least=5)
    result = measure(
        documents("receipt", 100, 0),
        hangs,
        whole(values, "deadline_ms", 300, least=20) / 1000,
        whole(values, "workers", 2),
    )
    print(
        f"{result['hangs']} rewards hung and were stopped; the others kept {100 * result['ratio']:.1f} % of "
        f"{result['groups_per_s_alone']:,.0f} groups a second; {result['seconds']:.0f} s"
    )
    print(
        f"a hang costs {result['cpu_ms_a_hang']:.1f} ms of CPU; hangs of {result['deadline_s']:g} s, "
        f"one after the other, cost {100 * result['speed_for_hangs']:.1f} % of the speed of {result['workers']} workers"
    )
    print(
        f"grown by {result['memory_growth_mb']:.1f} MB, {result['open_files_growth']} open files, "
        f"{result['processes_growth']} processes"
    )
    return result


def _data(values: dict[str, str]) -> tuple[Task, list[Document], int]:
    """The task, its documents with gold, and the seed."""
    task, seed = load_task(values.get("task", "receipt")), whole(values, "seed", 0, least=0)
    count = whole(values, "documents", 200)
    if "docs.path" not in values:
        from envs.synthetic import documents

        try:
            return task, documents(task.name, count, seed), seed
        except ValueError as fault:
            raise ConfigError(f"task={task.name}: {fault}; give docs.path=FILE with gold") from None
    from envs.documents import read_documents

    found = [d for d in read_documents(values["docs.path"], max_bad=0, quarantine=None) if d.gold]
    if not found:
        raise DataError(f"docs.path={values['docs.path']}: none of its documents has gold")
    return task, [complete(task, document) for document in found[:count]], seed


def complete(task: Task, document: Document) -> Document:
    """The document with gold that keeps the schema: what is left out there is null, or no rows."""
    known: dict[str, Any] = {}
    for key in task.schema.get("required", ()):
        types = task.schema["properties"][key].get("type", ())
        known[key] = None if "null" in types else [] if "array" in types else ""
    return Document(document.id, document.text, document.group, {**known, **(document.gold or {})})


def whole(values: dict[str, str], key: str, default: int, least: int = 1) -> int:
    """A key's whole number. Raises ConfigError."""
    text = values.get(key, str(default))
    if not (text.isascii() and text.isdigit() and int(text[:18]) >= least):
        raise ConfigError(f"{key}={text}: must be a whole number of at least {least}")
    return int(text[:18])
