"""The example file of custom rewards works as its docstring says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rewards.document import Document
from rewards.errors import ConfigError
from rewards.pool import RewardPool
from rewards.rubric import Rubric
from rewards.task import TASK_FOLDER, load_task, task_from_dict

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


HOUSE = """
from house_words import WORDS

def kind(document, attempt, task):
    return 1.0 if attempt["vendor"] in WORDS else 0.0
"""


def _house(folder: Path, module: str, **files: str) -> Path:
    """A task file that names `module:kind`, and the modules beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = yaml.safe_load((TASK_FOLDER / "receipt.yaml").read_text(encoding="utf-8"))
    raw["rubric"] |= {"rewards": {f"{module}:kind": 1.0}, "allow": [f"{module}:kind"]}
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_a_module_beside_the_task_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    words = "WORDS = {'KEDAI MAJU SDN BHD'}"
    path = _house(tmp_path / "beside", "house_beside", house_beside=HOUSE, house_words=words)
    assert Rubric(load_task(path)).score(DOCUMENT, json.dumps(ATTEMPT)).total == 1.0
    # Or in the working directory.
    path = _house(tmp_path / "elsewhere", "house_here")
    _house(tmp_path / "here", "house_here", house_here=HOUSE)
    monkeypatch.chdir(tmp_path / "here")
    with RewardPool(load_task(path), workers=1, deadline_s=60) as pool:
        assert pool.score([(DOCUMENT, [json.dumps(ATTEMPT)])])[0][0].total == 1.0


@pytest.mark.parametrize(
    ("module", "text", "says"),
    [
        ("house_lost", None, r"no module 'house_lost' is installed, or stands in .*tasks or "),
        ("house_lacks", "import no_such_package", "No module named 'no_such_package'"),
        ("house_broken", "def kind(:", "SyntaxError: invalid syntax"),
        ("house_raises", "raise SystemExit('no')", "SystemExit: no"),
        ("house_other", "def kin(document, attempt, task): return 1.0", "has no 'kind'; did you mean 'kin'?"),
        ("json", HOUSE, r"another module 'json' is in the way of .*tasks/json\.py"),
    ],
)
def test_a_module_that_cannot_serve_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, text: str | None, says: str
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = _house(tmp_path / "tasks", module, **({} if text is None else {module: text}))
    with pytest.raises(ConfigError, match=says) as caught:
        Rubric(load_task(path))
    assert "\n" not in str(caught.value)
