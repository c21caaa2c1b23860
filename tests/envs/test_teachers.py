"""Teachers: what they say, what errors they make, and that a labelling survives being cut."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from envs import faulty, synthetic
from envs.documents import read_traces, write_documents
from envs.faulty import FaultyTeacher
from envs.teachers import OpenaiTeacher, Unusable, tidy
from launch.cli import run
from launch.compose import CONFIGS
from rewards import endpoint as endpoint_module
from rewards.document import Document
from rewards.errors import ConfigError, DataError
from rewards.task import load_task
from tests.endpoint_stub import Stub, serving, settings, wait_for

TASK = load_task("receipt")
VALIDATOR = jsonschema_rs.validator_for(TASK.schema)


def teacher(**changes: Any) -> FaultyTeacher:
    raw = yaml.safe_load((CONFIGS / "teacher" / "faulty.yaml").read_text())
    return FaultyTeacher.model_validate_json(json.dumps(raw | changes))


def mixes(systematic: float, random: float) -> dict[str, Any]:
    raw = yaml.safe_load((CONFIGS / "teacher" / "faulty.yaml").read_text())
    return {"systematic": raw["systematic"] | {"rate": systematic}, "random": raw["random"] | {"rate": random}}


@pytest.fixture(scope="module")
def pages() -> list[Document]:
    return [synthetic.draw("receipt", 5, i, "all", 0.5) for i in range(120)]


def test_random_errors_come_at_their_rate_and_are_repeatable(pages: list[Document]) -> None:
    config = teacher(**mixes(0.0, 0.3))
    answers = [faulty.answer(config, TASK, page, 0) for page in pages]
    assert [faulty.answer(config, TASK, page, 0) for page in reversed(pages)] == answers[::-1]
    wrong = [TASK.canonical(page.gold or {}) != text for page, (text, _) in zip(pages, answers, strict=True)]
    assert wrong == [bool(faults) for _, faults in answers]
    assert 0.15 < sum(wrong) / len(pages) < 0.45
    assert len(Counter(name for _, faults in answers for name in faults)) == 4
    assert all(VALIDATOR.is_valid(json.loads(text)) for text, _ in answers)
    other_sample = [faulty.answer(config, TASK, page, 1) for page in pages]
    assert sum(a != b for a, b in zip(answers, other_sample, strict=True)) > 25
    other_seed = [faulty.answer(teacher(seed=1, **mixes(0.0, 0.3)), TASK, page, 0) for page in pages]
    assert other_seed != answers


def test_systematic_errors_hang_on_the_layout(pages: list[Document]) -> None:
    config = teacher(**mixes(0.3, 0.0))
    by_layout: dict[str, list[bool]] = {}
    for page in pages:
        text, faults = faulty.answer(config, TASK, page, 0)
        assert faulty.answer(config, TASK, page, 7) == (text, faults)
        by_layout.setdefault(faulty.layout_of(page)[1], []).append(bool(faults))
    shares = [sum(found) / len(found) for found in by_layout.values()]
    touched = [share for share in shares if share > 0]
    assert round(0.3 * len(synthetic.families("receipt", "all"))) >= len(touched) >= 3
    assert min(touched) > 0.8  # nearly every document of such a layout, and none of the others
    assert 0.2 < sum(map(sum, by_layout.values())) / len(pages) < 0.4


def test_each_kind_of_error() -> None:
    lines = ["KEDAI MAJU", "NO 5 JALAN BESAR", "DATE 03/04/2018", "MILK 1L  13.00", "BREAD  4.00"]
    text = "\n".join([*lines, "SUB TOTAL 17.00", "TAX 1.00", "TOTAL 18.00", "CASH 20.00"])
    rows = [{"name": "MILK 1L", "amount": "13.00"}, {"name": "BREAD", "amount": "4.00"}]
    gold = {
        "vendor": "KEDAI MAJU",
        "date": "2018-04-03",
        "items": rows,
        "tax": "1.00",
        "rounding": None,
        "total": "18.00",
    }
    wants: list[tuple[dict[str, Any], str, Any]] = [
        ({"kind": "other_line", "field": "total", "words": ["cash"]}, "total", "20.00"),
        ({"kind": "other_line", "field": "total", "words": ["sub total"]}, "total", "17.00"),
        ({"kind": "swap_day_month", "field": "date", "words": []}, "date", "2018-03-04"),
        ({"kind": "second_line", "field": "vendor", "words": []}, "vendor", "NO 5 JALAN BESAR"),
        ({"kind": "leave_out", "field": "tax", "words": []}, "tax", None),
        ({"kind": "drop_row", "field": "items", "words": []}, "items", rows[:1]),
    ]
    for error, key, want in wants:
        config = teacher(by="group", systematic={"rate": 1.0, "errors": [error]}, random={"rate": 0.0, "errors": []})
        faulty.check(config, TASK)
        completion, faults = faulty.answer(config, TASK, Document("x", text, "g", gold), 0)
        assert json.loads(completion) == gold | {key: want} and faults == (f"systematic/{error['kind']}/{key}",)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ({"kind": "other_line", "field": "totl", "words": ["cash"]}, "did you mean 'total'"),
        ({"kind": "other_line", "field": "total", "words": []}, "other_line needs some"),
        ({"kind": "swap_day_month", "field": "total", "words": []}, "needs a field of kind date"),
    ],
)
def test_errors_that_cannot_happen(error: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        faulty.check(teacher(random={"rate": 0.1, "errors": [error]}), TASK)


def test_what_faulty_needs() -> None:
    with pytest.raises(DataError, match="has no gold"):
        faulty.answer(teacher(by="group"), TASK, Document("x", "A\nB", "g", None), 0)
    with pytest.raises(DataError, match=r"teacher\.by=group"):
        faulty.answer(teacher(), TASK, Document("x", "A\nB", "g", {"vendor": "A"}), 0)


ANSWER = '{"vendor":"A","date":null,"items":[],"tax":null,"rounding":null,"total":"1.00"}'


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (ANSWER, ANSWER),
        (f"```json\n{ANSWER}\n```", ANSWER),
        (f"  {ANSWER}\n", ANSWER),
        (ANSWER[:-1] + ',"discount":null,"service_charge":null}', ANSWER),  # the strict form of the schema
        (ANSWER[:-1] + ',"comment":null}', ANSWER),
        (ANSWER[:-1] + ',"comment":"x"}', None),
        (ANSWER.replace('"1.00"', "1.0"), None),
        (f"Here it is: {ANSWER}", None),
        (ANSWER[:-5], None),
    ],
)
def test_tidy(text: str, want: str | None) -> None:
    found = tidy(text, TASK, VALIDATOR)
    assert isinstance(found, Unusable) and found.reason if want is None else found == want


def test_shipped_settings_of_openai_are_whole() -> None:
    raw = yaml.safe_load((CONFIGS / "teacher" / "openai.yaml").read_text())
    raw["endpoint"] |= {"model": "m", "prompt_price": 1.0, "completion_price": 2.0}
    config = OpenaiTeacher.model_validate_json(json.dumps(raw))
    assert config.endpoint.key_env == "OPENAI_API_KEY" and config.endpoint.max_cost == 10.0


# The command, against the stub.


def text_of(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"].rsplit("\n\n", 1)[1])


def copies(body: dict[str, Any]) -> str:
    """The vendor is the document's first line."""
    vendor = text_of(body).split("\n")[0] + f" {body['seed']}"
    return json.dumps({"vendor": vendor, "date": None, "items": [], "tax": None, "rounding": None, "total": "1.00"})


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    path = tmp_path / "docs.jsonl"
    write_documents(path, [Document(f"r{n}", f"SHOP {n}\nTOTAL 1.00", f"g{n}", None) for n in range(40)])
    return path


def command(stub: Stub, docs: Path, out: Path, *more: str) -> list[str]:
    plain = {k: v for k, v in settings(stub.url).items() if k not in ("extra", "cache")}
    keys = [f"teacher.endpoint.{k}={'null' if v is None else v}" for k, v in plain.items()]
    cache = f"teacher.endpoint.cache={out.parent}/cache.sqlite"
    return ["label", "teacher=openai", f"docs.path={docs}", f"out={out}", cache, *keys, *more, "--json"]


def finish(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = run(words)
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(endpoint_module, "LONGEST_BACKOFF_S", 0.04)


def test_label_openai(docs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "traces.jsonl"
    hows = ["ok", "429", "ok", "half json", "wrong schema", "ok", "reset"]
    with serving(copies, lambda number, body: hows[number % len(hows)] if number < 80 else "ok") as stub:
        words = command(
            stub, docs, out, "teacher.endpoint.attempts=12", "teacher.endpoint.prompt_price=1.0",
            "teacher.endpoint.completion_price=4.0", "teacher.endpoint.max_cost=1.0",
        )  # fmt: skip
        code, result = finish(words, capsys)
        assert code == 0 and (result["labelled"], result["documents"], result["failed"]) == (40, 40, 0)
        assert result["prompt_tokens"] > 1000 and 0.0 < result["cost"] < 1.0
        traces = read_traces(out, max_bad=0, quarantine=None)
        assert [trace.id for trace in traces] == [f"r{n}" for n in range(40)]
        assert traces[7].extractor == "stub" and json.loads(traces[7].completion)["vendor"] == "SHOP 7 0"
        asked = len(stub.bodies)
        code, again = finish(words, capsys)
        assert (code, again["labelled_before"], len(stub.bodies)) == (0, 40, asked)  # nothing is asked twice
        code, samples = finish([*words, "samples=3", "teacher.temperature=0.7", f"out={tmp_path}/three.jsonl"], capsys)
        assert code == 0 and samples["labelled"] == 120
    rows = [json.loads(line) for line in (tmp_path / "three.jsonl").read_text().splitlines()]
    assert [row["sample"] for row in rows[:4]] == [0, 1, 2, 0] and len({row["completion"] for row in rows[:3]}) == 3


@pytest.mark.slow
def test_label_goes_on_after_kill(docs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "traces.jsonl"
    with serving(copies, lambda number, body: "ok" if number < 12 or number > 15 else "hang") as stub:
        words = command(stub, docs, out, "teacher.endpoint.concurrency=4", "teacher.endpoint.timeout_s=300.0")
        process = subprocess.Popen([sys.executable, "-m", "launch.cli", *words], stdout=subprocess.DEVNULL)
        try:
            wait_for(lambda: out.exists() and out.read_bytes().count(b"\n") >= 12, 120.0)
            wait_for(lambda: len(stub.bodies) >= 16, 120.0)  # the four that hang have arrived as well
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        with out.open("ab") as file:
            file.write(b'{"id": "r39", "extr')  # as a write that was cut
        before = len(stub.bodies)
        code, result = finish(words, capsys)
        assert code == 0 and result["labelled"] == 40 and 12 <= result["labelled_before"] < 40
        assert len(stub.bodies) - before == 40 - result["labelled_before"]
    assert [t.id for t in read_traces(out, max_bad=0, quarantine=None)] == [f"r{n}" for n in range(40)]


def test_label_stops_where_it_makes_no_sense(docs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(copies, lambda number, body: "500" if number % 2 else "ok") as stub:
        code, result = finish(command(stub, docs, tmp_path / "a.jsonl", "teacher.endpoint.attempts=1"), capsys)
        assert code == 5 and "the same command goes on" in result["error"]
        assert 8 <= len(read_traces(tmp_path / "a.jsonl", max_bad=0, quarantine=None)) < 20
    with serving(copies, lambda number, body: "401") as stub:
        code, result = finish(command(stub, docs, tmp_path / "b.jsonl", "teacher.endpoint.concurrency=1"), capsys)
        assert (
            code == 5 and "key_env" in result["error"] and len(stub.bodies) < 20
        )  # what is not fatal is asked of 20 documents
    with serving(copies) as stub:
        cap = ["teacher.endpoint.max_total_tokens=9000", "teacher.max_tokens=100"]
        code, result = finish(command(stub, docs, tmp_path / "c.jsonl", *cap), capsys)
        assert code == 5 and "max_total_tokens" in result["error"]
        code, result = finish(command(stub, docs, tmp_path / "c.jsonl", "teacher.max_tokens=100"), capsys)
        assert code == 0 and 0 < result["labelled_before"] < 40 == result["labelled"]
    with serving(copies, lambda number, body: "wrong schema" if "SHOP 3" in text_of(body) else "ok") as stub:
        words = command(stub, docs, tmp_path / "d.jsonl", "teacher.endpoint.attempts=2")
        code, result = finish(words, capsys)
        assert code == 0 and (result["labelled"], result["failures"]) == (29, {"content": 11})  # 3 and 30 to 39
        failed = [json.loads(line) for line in (tmp_path / "d.jsonl.failed.jsonl").read_text().splitlines()]
        assert len(failed) == 11 and failed[0]["kind"] == "content" and "not the schema" in failed[0]["reason"]


def test_label_refuses_what_would_mix(docs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "traces.jsonl"
    with serving(copies) as stub:
        words = command(stub, docs, out)
        assert finish([*words, "documents=3"], capsys)[0] == 0
        code, result = finish([*words, "teacher.max_tokens=77"], capsys)
        assert code == 2 and "teacher.max_tokens" in result["error"] and "choose another out" in result["error"]
        assert finish([*words, "teacher.endpoint.concurrency=2", "documents=5"], capsys)[0] == 0
        code, result = finish([*words, "samples=2", f"out={tmp_path}/x.jsonl"], capsys)
        assert code == 2 and "teacher.temperature" in result["error"]
        code, result = finish([*words, f"out={docs}"], capsys)
        assert code == 2 and "not made by offramp label" in result["error"] and docs.read_text().count("\n") == 40
        code, result = finish([*words, "teacher.endpoint.key_env=NO_SUCH_KEY"], capsys)
        assert code == 2 and "NO_SUCH_KEY: not set" in result["error"]
        code, result = finish([*words, "teacher.endpoint.atempts=3"], capsys)
        assert code == 2 and "teacher.endpoint.attempts" in result["error"]


def test_label_recorded_and_faulty(docs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    traces = tmp_path / "given.jsonl"
    rows = [{"id": f"r{n // 2}", "extractor": f"e{n % 2}", "completion": str(n)} for n in range(20)]
    traces.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["label", "teacher=recorded", f"teacher.path={traces}", f"docs.path={docs}", "--json"]
    code, result = finish([*words, f"out={tmp_path}/a.jsonl"], capsys)
    assert code == 0 and (result["labelled"], result["failures"]) == (10, {"missing": 30})
    code, result = finish([*words, "teacher.extractor=e1", f"out={tmp_path}/b.jsonl"], capsys)
    assert code == 0 and [t.completion for t in read_traces(tmp_path / "b.jsonl", max_bad=0, quarantine=None)][:2] == [
        "1",
        "3",
    ]
    gold = tmp_path / "gold.jsonl"
    write_documents(gold, [synthetic.draw("receipt", 5, i, "held_out", 0.5) for i in range(60)])
    words = ["label", "teacher=faulty", f"docs.path={gold}", f"out={tmp_path}/f.jsonl", "--json"]
    code, result = finish(words, capsys)
    assert code == 0 and result["labelled"] == 60 and 5 <= result["faulty_documents"] <= 35
    made = (tmp_path / "f.jsonl").read_bytes()
    (tmp_path / "f.jsonl").write_bytes(b"".join(made.splitlines(keepends=True)[10:]))
    assert finish(words, capsys)[0] == 0 and (tmp_path / "f.jsonl").read_bytes() == made


def test_no_secret_is_left(docs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-planted-0123456789")
    with serving(copies, lambda number, body: "403" if number % 5 == 4 else "ok") as stub:
        run(command(stub, docs, tmp_path / "t.jsonl", "teacher.endpoint.key_env=SOME_KEY"))
    shown = capsys.readouterr()
    assert "sk-planted" not in shown.out + shown.err
    for folder, _, files in os.walk(tmp_path):
        for name in files:
            assert b"sk-planted" not in (Path(folder) / name).read_bytes(), name
