"""`offramp study`: the studies that the project publishes, each by one command that may be given again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launch import checks
from launch.compose import compose_run
from rewards.errors import ConfigError

USAGE = """usage: offramp study honesty [seeds=0,1,2] [runs=runs/honesty] [out=results/honesty] [key=value ...]
       offramp study monitor [seeds=0,1,2] [clean_steps=1000] [monitor.KEY=VALUE ...]
       offramp study monitor loophole=NAME [key=value ...]
       offramp study monitor runs=FOLDER,FOLDER [monitor.KEY=VALUE ...]

honesty   GRPO under a naive score and under the task's rubric, every seed; other keys go to each training run
monitor   toy policies under six rewards with a hole, and clean ones: loopholes found, false alarms
          loophole=  a real training run under one of the six;  runs=  the alarms that the metrics of runs give
"""


def study(args: list[str], as_json: bool) -> dict[str, Any] | None:
    name, rest = (args[0], args[1:]) if args else ("--help", [])
    if name in ("-h", "--help") or {"-h", "--help"} & set(rest):
        print(USAGE)
        return None
    if name == "honesty":
        return honesty(rest)
    if name == "monitor":
        return monitor(rest)
    raise ConfigError(f"{name}: no such study; known: honesty, monitor")


def honesty(args: list[str]) -> dict[str, Any]:
    own, overrides = _split(args, ("seeds", "runs", "out"))
    for rubric in ([], ["rubric=naive"]):  # a mistake shows before the first job
        checks.check_run(compose_run(["experiment=honesty", *rubric, *overrides]))
    from rl import honesty as study_of

    summary = study_of.study(
        overrides,
        seeds=_numbers("seeds", own.get("seeds", "0,1,2")),
        runs=Path(own.get("runs", "runs/honesty")),
        out=Path(own.get("out", "results/honesty")),
    )
    print(study_of.table(summary))
    print(f"the picture is {summary['picture']}")
    return summary


def monitor(args: list[str]) -> dict[str, Any]:
    from rl import monitor_study

    own, overrides = _split(args, ("seeds", "clean_steps", "loophole", "runs"))
    if "loophole" in own:
        return _train_holed(own["loophole"], overrides)
    config = compose_run(overrides).monitor
    if "runs" in own:
        found = [monitor_study.replayed(config, Path(folder)) for folder in own["runs"].split(",")]
        for one in found:
            print(
                f"{one['run']}: {one['steps']} steps, {one['fingerprints']} fingerprints, {len(one['alarms'])} alarms"
            )
        return {"study": "monitor", "runs": found, "alarms": sum(len(one["alarms"]) for one in found)}
    (clean_steps,) = _numbers("clean_steps", own.get("clean_steps", "1000"))
    result = monitor_study.bench(config, clean_steps=clean_steps, seeds=_numbers("seeds", own.get("seeds", "0,1,2")))
    for name, row in result["loopholes"].items():
        verdict = "found" if row["found"] else "MISSED"
        print(f"{name:18} {verdict}: alarms at steps {row['alarm_steps']}, onsets at {row['onset_steps']}")
    found, count = result["loopholes_found"], len(result["loopholes"])
    print(f"{found} of {count} loopholes found within {monitor_study.WITHIN} steps of their onset")
    print(f"{result['false_alarms']} false alarms in {result['clean_steps']} clean steps")
    return result


def _train_holed(name: str, overrides: list[str]) -> dict[str, Any]:
    """A real run under one of the six rewards; its alarms and its evaluations."""
    from launch.commands import train_config
    from rl.monitor_study import holed_task_file
    from rl.record import read_metrics

    path = holed_task_file(name, Path("runs/loopholes"))
    named = [] if any(o.startswith("run.name=") for o in overrides) else [f"run.name=loophole-{name}"]
    config = compose_run(["experiment=honesty", f"task={path}", *named, *overrides])
    checks.check_run(config)
    result = train_config(config)
    lines = list(read_metrics(config.run.dir))
    rewards = [line["reward/mean"] for line in lines if line["kind"] == "train"]
    alarms = [line for line in lines if line["kind"] == "alarm"]
    return result | {"loophole": name, "alarms": alarms, "reward": [rewards[0], rewards[-1]] if rewards else []}


def _split(args: list[str], names: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """(the study's own keys, overrides for the runs)."""
    own: dict[str, str] = {}
    overrides: list[str] = []
    for word in args:
        key, equals, value = word.partition("=")
        if key in names and equals and value:
            own[key] = value
        elif key in names:
            raise ConfigError(f"{word}: no value; write {key}=VALUE")
        else:
            overrides.append(word)
    return own, overrides


def _numbers(key: str, text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"{key}={text}: must be whole numbers with commas, such as {key}=0,1,2") from None
    if min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise ConfigError(f"{key}={text}: must be different numbers from 0 on")
    return numbers
