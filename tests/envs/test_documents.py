"""Reading documents and traces: every kind of bad line is named by number and reason, set aside, and counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from envs.documents import Trace, read_documents, read_traces, write_documents
from rewards.document import Document
from rewards.errors import ConfigError, DataError


def line(**changes: Any) -> bytes:
    row = {"id": "a", "text": "SHOP\nTOTAL 1.00", "group": "shop", "gold": {"total": "1.00"}} | changes
    return json.dumps({key: value for key, value in row.items() if value is not ...}).encode()


def write(tmp_path: Path, *lines: bytes, end: bytes = b"\n") -> Path:
    path = tmp_path / "documents.jsonl"
    path.write_bytes(b"\n".join(lines) + end)
    return path


def test_good_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path, b"\xef\xbb\xbf" + line(), b"", line(id="b", gold=None, extra=1) + b"\r", line(id="c", gold=...)
    )
    documents = read_documents(path, max_bad=0, quarantine=None)
    assert documents == [
        Document("a", "SHOP\nTOTAL 1.00", "shop", {"total": "1.00"}),
        Document("b", "SHOP\nTOTAL 1.00", "shop", None),
        Document("c", "SHOP\nTOTAL 1.00", "shop", None),
    ]


@pytest.mark.parametrize("group", [None, "", ...])
def test_without_a_group_a_document_is_its_own(group: Any, tmp_path: Path) -> None:
    assert read_documents(write(tmp_path, line(group=group)), max_bad=0, quarantine=None)[0].group == "a"


def test_a_last_line_without_its_end_is_read(tmp_path: Path) -> None:
    assert len(read_documents(write(tmp_path, line(), line(id="b"), end=b""), max_bad=0, quarantine=None)) == 2


def test_limit(tmp_path: Path) -> None:
    path = write(tmp_path, *(line(id=str(i)) for i in range(5)))
    assert [d.id for d in read_documents(path, max_bad=0, quarantine=None, limit=2)] == ["0", "1"]


FAULTS = [
    (line(text=...), "no 'text'"),
    (line(text=..., txt="SHOP"), "no 'text'; is 'txt' meant?"),
    (line(id=...), "no 'id'"),
    (line(id=7), "id must be text, not a number"),
    (line(id=True), "id must be text, not a boolean"),
    (line(text=None), "text must be text, not null"),
    (line(text=["SHOP"]), "text must be text, not a list"),
    (line(text=" \n"), "text is empty"),
    (line(group=3), "group must be text, not a number"),
    (line(gold="1.00"), "gold must be an object or null, not text"),
    (line(gold=["1.00"]), "gold must be an object or null, not a list"),
    (line(text="A\ud800B"), r"text holds a lone surrogate (\ud800) at character 1"),
    (line(id="\udfff"), "id holds a lone surrogate"),
    (line(gold={"vendor": "\ud800"}), "gold holds a lone surrogate"),
    (line(gold={"total": float("nan")}), "NaN is no JSON number"),
    (b'{"id": "a", "text": "caf\xe9"}', "invalid UTF-8 at byte 24"),
    (b'["a", "SHOP"]', "must be an object, not a list"),
    (b'{"id": "a", "text": "SHOP", "text": "SHIP"}', "key 'text' stands twice"),
    (b'{"id": "a" "text": "SHOP"}', "not JSON: Expecting ',' delimiter at character 11"),
    (b'{"id": "a", "text": "SHOP", "gold": {"total": ' + b"9" * 5000 + b"}}", "not usable"),
    (b'{"id": "a", "text": "SHOP", "gold": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
    (line(id="good"), "duplicate id 'good', first on line 1"),
]


@pytest.mark.parametrize(("bad", "reason"), FAULTS, ids=[reason for _, reason in FAULTS])
def test_bad_line(bad: bytes, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path, line(id="good"), bad, line(id="better"))
    with pytest.raises(DataError) as caught:
        read_documents(path, max_bad=0, quarantine=None)
    message = str(caught.value)
    assert message.startswith(f"{path} line 2: ")
    assert reason in message
    assert "\n" not in message
    assert caught.value.exit_code == 3

    quarantine = tmp_path / "logs" / "bad.jsonl"
    documents = read_documents(path, max_bad=1, quarantine=quarantine)
    assert [document.id for document in documents] == ["good", "better"]
    (entry,) = [json.loads(text) for text in quarantine.read_text().splitlines()]
    assert entry["line"] == 2
    assert reason in entry["reason"]
    assert entry["raw"] == bad.decode("utf-8", "backslashreplace")


def test_torn_last_line(tmp_path: Path) -> None:
    path = write(tmp_path, line(), line(id="b")[:25], end=b"")
    with pytest.raises(DataError, match=r"line 2: torn last line \(the file ends inside it\): not JSON"):
        read_documents(path, max_bad=0, quarantine=None)


def test_above_max_bad_the_reading_stops(tmp_path: Path) -> None:
    path = write(tmp_path, line(), *[b"{"] * 50)
    quarantine = tmp_path / "bad.jsonl"
    with pytest.raises(DataError, match=r"3 bad lines, more than docs.max_bad=2; the first is line 2: .*bad\.jsonl"):
        read_documents(path, max_bad=2, quarantine=quarantine)
    assert len(quarantine.read_text().splitlines()) == 3


def test_an_old_quarantine_goes(tmp_path: Path) -> None:
    quarantine = tmp_path / "bad.jsonl"
    quarantine.write_text("old\n")
    read_documents(write(tmp_path, line()), max_bad=0, quarantine=quarantine)
    assert not quarantine.exists()


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envs.documents.LONGEST_LINE", 100)
    path = write(tmp_path, line(text="x" * 1000), line(id="b"))
    documents = read_documents(path, max_bad=1, quarantine=tmp_path / "bad.jsonl")
    assert [document.id for document in documents] == ["b"]
    entry = json.loads((tmp_path / "bad.jsonl").read_text())
    assert (entry["line"], entry["reason"]) == (1, "longer than 100 bytes")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "the file is empty"), (b"\n \n", "the file is empty"), (line().decode().encode("utf-16"), "UTF-16")],
)
def test_file_without_documents(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says):
        read_documents(path, max_bad=9, quarantine=None)


def test_only_bad_lines(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no good document among 2 bad lines; the first: line 1"):
        read_documents(write(tmp_path, b"{", b"["), max_bad=9, quarantine=None)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_documents(tmp_path / "nowhere.jsonl", max_bad=0, quarantine=None)
    with pytest.raises(DataError, match="is a folder"):
        read_documents(tmp_path, max_bad=0, quarantine=None)


def test_written_documents_read_back(tmp_path: Path) -> None:
    documents = [Document("a", "Café\u2028 1.00 €", "g", {"total": "1.00"}), Document("b", "x\\n\ty", "h", None)]
    path = tmp_path / "out.jsonl"
    assert write_documents(path, documents) == 2
    assert read_documents(path, max_bad=0, quarantine=None) == documents


def test_traces(tmp_path: Path) -> None:
    good = {"id": "a", "extractor": "some-model", "completion": ""}
    rows = [good, good | {"completion": '{"total": "1.00"}'}, good | {"completion": {"total": "1.00"}}, {"id": "a"}]
    path = write(tmp_path, *(json.dumps(row).encode() for row in rows))
    traces = read_traces(path, max_bad=2, quarantine=tmp_path / "bad.jsonl")
    assert traces == [Trace("a", "some-model", ""), Trace("a", "some-model", '{"total": "1.00"}')]
    reasons = [json.loads(text)["reason"] for text in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert reasons == ["completion must be text, not an object", "no 'extractor'"]
    with pytest.raises(DataError, match="line 3: completion must be text"):
        read_traces(path, max_bad=0, quarantine=None)


COLUMNS = {"id": "id", "text": "text", "group": "group", "gold": "gold"}


def test_datasets_round_trip(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    from envs.tables import from_datasets, to_datasets

    documents = [
        Document(
            "a", "SHOP 1.00", "shop", {"total": "1.00", "tax": None, "items": [{"name": "TEA", "amount": "1.00"}]}
        ),
        Document("b", "BAR 2.00", "bar", None),
    ]
    to_datasets(documents).save_to_disk(str(tmp_path / "table"))
    read = from_datasets(str(tmp_path / "table"), name=None, split="train", columns=COLUMNS, max_bad=0, quarantine=None)
    assert read == documents


def test_datasets_columns_and_faults(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from envs.tables import from_datasets

    table = datasets.Dataset.from_dict(
        {"number": [1, 2, 2], "body": ["SHOP", "BAR", "PUB"], "answer": [{"total": "1.00", "tax": None}] * 3}
    )
    datasets.DatasetDict({"train": table}).save_to_disk(str(tmp_path / "table"))
    columns = {"id": "number", "text": "body", "group": None, "gold": "answer"}

    def read(**changes: Any) -> list[Document]:
        arguments: dict[str, Any] = {"split": "train", "columns": columns, "max_bad": 1, "quarantine": None} | changes
        return from_datasets(str(tmp_path / "table"), name=None, **arguments)

    gold = {"total": "1.00"}
    assert read() == [Document("1", "SHOP", "1", gold), Document("2", "BAR", "2", gold)]
    assert [d.id for d in read(columns=columns | {"id": None})] == ["row-000001", "row-000002", "row-000003"]
    with pytest.raises(DataError, match="line 3: duplicate id '2'"):
        read(max_bad=0)
    with pytest.raises(ConfigError, match=r"docs.columns.text=txt: .* has number, body, answer"):
        read(columns=columns | {"text": "txt"})
    with pytest.raises(ConfigError, match=r"docs.split=test: .* has the splits train"):
        read(split="test")


def test_datasets_local_file_and_no_such_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    from envs.tables import from_datasets

    path = write(tmp_path, line(gold={"total": "1.00"}))
    read = from_datasets(str(path), name=None, split="train", columns=COLUMNS, max_bad=0, quarantine=None)
    assert read == [Document("a", "SHOP\nTOTAL 1.00", "shop", {"total": "1.00"})]
    with pytest.raises(ConfigError, match=r"docs.path=./nowhere: cannot be loaded"):
        from_datasets("./nowhere", name=None, split="train", columns=COLUMNS, max_bad=0, quarantine=None)
