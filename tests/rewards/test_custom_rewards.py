"""The example file of custom rewards works as its docstring says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rewards.document import Document
from rewards.errors import ConfigError
from rewards.rubric import Rubric
from rewards.task import TASK_FOLDER, task_from_dict

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NAMES = ("house_rewards:known_vendor", "house_rewards:no_round_total")
DOCUMENT = Document("r1", "KEDAI MAJU SDN BHD\n12/03/2018\nMILK  13.50\nTOTAL  13.50", "MAJU", {"total": "13.50"})
ATTEMPT = {
    "vendor": "KEDAI MAJU SDN BHD", "date": "2018-03-12", "items": [{"name": "MILK", "amount": "13.50"}],
    "tax": None, "rounding": None, "total": "13.50",
}  # fmt: skip


def _task(**changes: Any) -> Any:
    raw = yaml.safe_load((TASK_FOLDER / "receipt.yaml").read_text(encoding="utf-8"))
    raw["rubric"]["rewards"] |= dict.fromkeys(NAMES, 1.0)
    raw["rubric"]["allow"] = list(NAMES)
    raw["rubric"] |= changes
    return task_from_dict(raw, "mine.yaml")


def test_custom_rewards_stand_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    rubric = Rubric(_task())
    known = rubric.score(DOCUMENT, json.dumps(ATTEMPT))
    assert [known.parts[name] for name in NAMES] == [1.0, 1.0]
    stranger = rubric.score(DOCUMENT, json.dumps(ATTEMPT | {"vendor": "MILK"}))
    assert stranger.parts[NAMES[0]] == 0.0
    finding = next(f for f in known.findings if f.why == "in the master data")
    assert finding.span is not None and DOCUMENT.text[slice(*finding.span)] == "KEDAI MAJU SDN BHD"
    nobody = rubric.score(DOCUMENT, json.dumps(ATTEMPT | {"vendor": None}))
    assert nobody.status == "scored" and nobody.parts[NAMES[0]] is None


def test_code_runs_only_where_the_task_allows_it() -> None:
    with pytest.raises(ConfigError, match=r"house_rewards:no_round_total: runs code; add it to rubric\.allow"):
        _task(allow=[NAMES[0]])
    with pytest.raises(ConfigError, match="nowhere_to_be_found:reward: cannot be imported"):
        Rubric(_task(rewards={"nowhere_to_be_found:reward": 1.0}, allow=["nowhere_to_be_found:reward"]))
