"""The command `offramp`: runs a command, turns errors into one line and an exit code; imports nothing heavy.

Exit codes: 0 ok, 2 usage or configuration, 3 data, 4 reward, 5 infrastructure; 128 + n when stopped by signal n.
With --json any command ends with one JSON object on its last line, errors too: {"error": ..., "exit_code": ...}.
"""

from __future__ import annotations

import difflib
import importlib
import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from rewards.errors import ConfigError, OfframpError

Command = Callable[[list[str], bool], dict[str, Any] | None]

COMMANDS = {
    "demo": ("launch.commands:demo", "set up nothing, train the starter on layouts it has never seen, compare"),
    "train": ("launch.commands:train", "GRPO on your documents: offramp train task=receipt docs=jsonl docs.path=FILE"),
    "evaluate": ("launch.commands:evaluate", "greedy answers on held-out documents, scored, with 95 % intervals"),
    "advise": ("launch.advise:advise", "when leaving the frontier model pays, by which method, from which volume on"),
    "compare": (
        "launch.compare:compare",
        "methods x seeds x numbers of documents, on one split: which one won, at what cost",
    ),
    "score": ("launch.score:score", "score completions that are in a file: task=, docs.path=, completions="),
    "explain": ("launch.explain:explain", "one completion's score as a tree, with its evidence; html=FILE as a page"),
    "validate": (
        "launch.validate:run",
        "is a rubric honest on documents with gold: gold, and wholesale hacks beside it",
    ),
    "mutate": ("launch.mutate:run", "known-worse edits of gold must score below it: the kill rate by kind, the misses"),
    "profile": (
        "launch.profile:profile",
        "what a rubric costs and can tell apart: time, abstentions, spread, correlation",
    ),
    "replay": ("launch.replay:replay", "a run's rollouts under another rubric: ranks, advantages, disagreements"),
    "grade": ("launch.grade:run", "the rubric as judge: what it accepts, doubts and why; with gold, how right it is"),
    "label": ("launch.label:label", "a teacher's answers as traces: label teacher=openai docs.path=FILE out=FILE"),
    "pretrain": ("launch.commands:pretrain", "make the starter policy from synthetic documents"),
    "bench": (
        "launch.bench:bench",
        "speed beside TRL and the limit, memory, shares of a step, rewards: bench --help lists the parts",
    ),
    "study": ("launch.study:study", "what the project publishes, made again: honesty, monitor"),
    "doctor": ("launch.doctor:doctor", "check this machine and this installation"),
}

USAGE = """usage: offramp COMMAND [key=value ...] [--json]

Trains a small open model to extract structured data from your documents, rewarded by rules instead of labels.

commands:
{commands}

options:
  --json      end with one JSON object on the last line
  --help      this text; offramp COMMAND --help tells more
  --version   the version

examples:
  offramp train experiment=smoke
  offramp train task=receipt docs=jsonl docs.path=receipts.jsonl run.name=mine
  offramp evaluate model=runs/mine task=receipt docs.path=held_out.jsonl --json
"""


def usage() -> str:
    width = max(len(name) for name in COMMANDS)
    return USAGE.format(commands="\n".join(f"  {name:{width}}  {about}" for name, (_, about) in COMMANDS.items()))


def run(args: Sequence[str]) -> int:
    """Runs one command line and returns its exit code."""
    as_json = "--json" in args
    words = [word for word in args if word != "--json"]
    try:
        result = dispatch(words, as_json)
    except OfframpError as error:
        for line in str(error).splitlines():
            print(f"offramp: error: {line}", file=sys.stderr)
        return finish(as_json, {"error": str(error), "exit_code": error.exit_code}, error.exit_code)
    except KeyboardInterrupt:
        print("offramp: stopped", file=sys.stderr)
        return finish(as_json, {"error": "stopped", "exit_code": 130}, 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else getattr(error, "exit_code", None)
        if not isinstance(code, int):
            raise
        if not isinstance(error, SystemExit):  # argparse has said it
            print(f"offramp: {error}", file=sys.stderr)
        message = "usage" if isinstance(error, SystemExit) else str(error)
        return finish(as_json, {"error": message, "exit_code": code}, code)
    result = {} if result is None else dict(result)
    return finish(as_json, result, int(result.pop("exit_code", 0)))


def dispatch(words: list[str], as_json: bool) -> dict[str, Any] | None:
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return None
    if words[0] in ("--version", "-V"):
        from importlib.metadata import version

        print(f"offramp {version('offramp')}")
        return {"version": version("offramp")}
    name = words[0]
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, 1, 0.5)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ConfigError(f"{name}: unknown command; {hint}commands: {', '.join(COMMANDS)}")
    speak(os.environ.get("OFFRAMP_LOG", "INFO"), "%(message)s")
    module, function = COMMANDS[name][0].split(":")
    command: Command = getattr(importlib.import_module(module), function)
    return command(words[1:], as_json)


def speak(level: str, form: str) -> None:
    """Our own log lines on stderr; of the libraries only what a user can do something about."""
    logging.basicConfig(level=level, format=form, stream=sys.stderr)
    for noisy in ("httpx", "httpcore", "urllib3", "filelock", "fsspec", "matplotlib", "datasets", "wandb"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for noisy in ("vllm", "torch", "transformers", "deepspeed"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=noisy)
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=noisy)


def finish(as_json: bool, result: dict[str, Any], code: int) -> int:
    sys.stderr.flush()
    if as_json:
        print(json.dumps(plain(result), ensure_ascii=False), flush=True)
    sys.stdout.flush()
    return code


def plain(value: Any) -> Any:
    """The value as JSON can say it: NaN and infinity become null, tuples lists, other objects text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    return plain(value.item()) if hasattr(value, "item") else str(value)


def main() -> None:
    # Torch's CPU blocks in huge pages of their own: in glibc's heap they leave holes, half as much again at the peak.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
