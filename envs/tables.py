"""Documents from and to `datasets` tables: a hub name, a folder of save_to_disk, or local data files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from envs.documents import LineFault, Quarantine, document_of, nothing
from rewards.document import Document
from rewards.errors import ConfigError, DataError

READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".arrow": "arrow"}


def from_datasets(
    path: str,
    *,
    name: str | None,
    split: str,
    columns: Mapping[str, str | None],
    max_bad: int,
    quarantine: Path | None,
    limit: int | None = None,
) -> list[Document]:
    """The documents of a table.

    columns: id, text, group, gold -> the table's column, or None where it has none (an id is then made of the row's
    number). gold: a column of JSON text or of objects; in objects a null cannot be told from a key that is not there,
    and means that the value is unknown. Bad rows as in `read_documents`; the numbers count from 1.
    Raises ConfigError for a data set, split or column that is not there, DataError for its rows.
    """
    table = _load(path, name, split)
    wanted = {key: column for key, column in columns.items() if column is not None}
    for key, column in wanted.items():
        if column not in table.column_names:
            have = ", ".join(table.column_names)
            fix = "" if key == "text" else f", or docs.columns.{key}=null where there is none"
            raise ConfigError(f"docs.columns.{key}={column}: {path} has no such column; it has {have}{fix}")
    faults = Quarantine(path, max_bad, quarantine)
    first_row: dict[str, int] = {}
    documents: list[Document] = []
    for number, source in enumerate(table, start=1):
        row = {key: source[column] for key, column in wanted.items()}
        try:
            document = document_of(_as_line(row, number))
            if document.id in first_row:
                raise LineFault(f"duplicate id {document.id!r}, first on line {first_row[document.id]}")
        except LineFault as fault:
            faults.add(number, str(fault), json.dumps(row, default=str).encode())
            continue
        first_row[document.id] = number
        documents.append(document)
        if limit is not None and len(documents) >= limit:
            break
    if not documents:
        nothing(faults, "document")
    return documents


def to_datasets(documents: Iterable[Document]) -> Any:
    """A `datasets.Dataset` with id, text, group and gold (JSON text or null), which `from_datasets` reads back."""
    import datasets

    rows = [
        {
            "id": document.id,
            "text": document.text,
            "group": document.group,
            "gold": None if document.gold is None else json.dumps(document.gold, ensure_ascii=False),
        }
        for document in documents
    ]
    features = datasets.Features({key: datasets.Value("string") for key in ("id", "text", "group", "gold")})
    return datasets.Dataset.from_list(rows, features=features)


def _as_line(row: dict[str, Any], number: int) -> dict[str, Any]:
    line = dict(row)
    if "id" not in line:
        line["id"] = f"row-{number:06d}"
    for key in ("id", "group"):
        if isinstance(line.get(key), int) and not isinstance(line[key], bool):
            line[key] = str(line[key])
    gold = line.get("gold")
    if isinstance(gold, str):
        try:
            line["gold"] = json.loads(gold) if gold.strip() else None
        except ValueError as error:
            raise LineFault(f"gold is no JSON: {error}") from None
    elif isinstance(gold, dict):
        line["gold"] = _without_nulls(gold)
    return line


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _load(path: str, name: str | None, split: str) -> Any:
    import datasets

    local = Path(path).expanduser()
    try:
        if (local / "state.json").is_file() or (local / "dataset_dict.json").is_file():
            table = datasets.load_from_disk(str(local))
            if isinstance(table, datasets.DatasetDict):
                if split not in table:
                    raise ConfigError(f"docs.split={split}: {path} has the splits {', '.join(table)}")
                table = table[split]
            return table
        if local.is_file():
            if local.suffix not in READERS:
                raise ConfigError(f"docs.path={path}: unknown kind of file; known: {', '.join(READERS)}")
            return datasets.load_dataset(READERS[local.suffix], data_files=str(local), split="train")
        return datasets.load_dataset(path, name, split=split)
    except (ConfigError, DataError):
        raise
    except Exception as error:  # datasets raises a dozen kinds for a name, a split or a network that is not there
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"docs.path={path}: cannot be loaded as a data set ({reason}); check docs.path, docs.name and docs.split"
        ) from None
