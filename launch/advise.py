"""`offramp advise`: is it worth leaving the frontier model, from which volume on, and by which method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from launch.commands import _help, split_flags
from launch.compose import compose_advise
from rewards.errors import ConfigError, DataError
from rl import advise as rules
from rl.compare_config import AdviseConfig


def advise(args: list[str], as_json: bool) -> dict[str, Any] | None:
    """offramp advise volume=50000 price_a_call=0.01 comparison=runs/receipts"""
    if _help("advise", args, AdviseConfig):
        return None
    overrides, flags, config_dir = split_flags(args)
    if flags:
        raise ConfigError(f"{flags[0]}: unknown option of advise")
    config = compose_advise(overrides, config_dir)
    summary = read_summary(config.comparison)
    result = rules.advise(config, summary)
    show(config, result)
    return result


def read_summary(path: str | None) -> dict[str, Any] | None:
    """The summary of a comparison, by its file or folder. Raises DataError."""
    if path is None:
        return None
    file = Path(path) / "summary.json" if Path(path).is_dir() else Path(path)
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"comparison={path}: no summary of offramp compare there: {error}") from None
    if not isinstance(summary, dict) or not {"metric", "methods"} <= summary.keys():
        raise DataError(f"comparison={path}: not the summary.json of offramp compare")
    return summary


def show(config: AdviseConfig, result: dict[str, Any]) -> None:
    """The tree, the options as a table, the recommendation."""
    for number, line in enumerate(result["reasons"], start=1):
        print(f"{number}. {line}")
    head = ("option", "quality", "before the first document", "a document", "pays from, a month", "in all")
    table = [
        head,
        ("frontier model", "-", "0", f"{config.price_a_call:.4f}", "-", f"{result['frontier']['total']:.2f}"),
    ]
    for o in result["options"]:
        quality = "-" if o["quality"] is None else f"{o['quality']:.3f} [{o['ci95'][0]:.3f}, {o['ci95'][1]:.3f}]"
        pays = "never" if o["break_even"] is None else f"{o['break_even']:g}"
        name = o["method"] + (" (not here)" if o["needs"] else "")
        table.append((name, quality, f"{o['once']:.2f}", f"{o['a_document']:.4f}", pays, f"{o['total']:.2f}"))
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    print()
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"\nover {config.months:g} months at {config.volume:g} documents a month: {result['recommendation']}")
