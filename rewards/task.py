"""A task file: its pydantic models, and load_task, which reads one and checks it against itself."""

from __future__ import annotations

import datetime
import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema_rs
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rewards.dates import DateFormat
from rewards.errors import ConfigError, DataError
from rewards.judge_settings import JudgeSpec, judge_fault
from rewards.relations import Relation, RelationFault, parse_relation

TASK_FOLDER = Path(__file__).resolve().parents[1] / "configs" / "task"
LARGEST_FILE = 2**20  # bytes of a task file

Kind = Literal["text", "code", "date", "money", "number", "count", "class"]
NUMERIC = ("money", "number", "count")

Weight = Annotated[float, Field(ge=0.0, le=1000.0, allow_inf_nan=False)]
Points = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Word = Annotated[str, Field(min_length=1, max_length=60)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FieldSpec(_Model):
    """How one leaf is normalised, grounded and compared. An optional key that is left out means: no such check.

    kind: text | code (an identifier: exact, a word of its own) | date | money | number | count (a whole number) |
    class (of the schema's enum).
    weight: share of this field in `grounded` (the leaves of one row share their array's weight).
    formats: printed forms of a date, in order of preference.
    cue: words that stand on the line of the value or just above it.  avoid: words that mark a line as something else.
    top: the value is expected within this many lines of the document's top.
    prefer: words of which the true value has one, where a line near the top has one (company forms).
    other: words that mark somebody else's name, on their own line and the next (bill to).
    last: the value is the last one beside its cue before the first line with a word of `stop` (a total after rounding).
    at_rate: the value is what a rate makes of another amount (a tax); one right behind 0 % is that other amount.
    adjusted_by: a field that is added to the labelled value to give the true one, where that is printed (rounding).
    day_first, month_first: printed words or currency marks that settle how 03/04/2018 is read; without them both ways.
    expected: when null is an abstention: "always", or "cued" = only where a cue line shows a value other than zero.
    words: for a class: value -> printed words that speak for it.
    """

    kind: Kind
    weight: Weight
    formats: list[DateFormat] | None = None
    cue: list[Word] | None = None
    avoid: list[Word] | None = None
    prefer: list[Word] | None = None
    top: Annotated[int, Field(ge=1, le=1000)] | None = None
    expected: Literal["always", "cued"] | None = None
    other: list[Word] | None = None
    last: bool | None = None
    stop: list[Word] | None = None
    at_rate: bool | None = None
    adjusted_by: str | None = None
    day_first: list[Word] | None = None
    month_first: list[Word] | None = None
    words: dict[str, list[Word]] | None = None


class RowSpec(_Model):
    """How the rows of one array stand in the document.

    weight: share of the rows in `grounded`.  name, amount: the leaves that identify a row and carry its net amount.
    heading: words of the table's heading line.
    end: words of the line that ends the table (totals).
    summary: words of the lines that are no rows: a line with one of these and no other words (discount, tax, payment).
    units: words beside a name that are no part of it (pcs, sr).
    """

    weight: Weight
    name: str
    amount: str
    heading: list[Word]
    end: list[Word]
    summary: list[Word]
    units: list[Word] | None = None


class RecordSpec(_Model):
    """How the rows of one array stand in a document that prints them as groups of labelled numbers (rewards.records).
    The cues of its number leaves are the labels; without any, a row is grounded where one line has all its numbers.

    weight: share of the records in `grounded`.  name: the leaf that says what the record is about.
    needs: the number leaf without which a group of numbers is no record.  covers: false: rows may be left out.
    other: labels of numbers that are no leaf (a column of totals).
    """

    weight: Weight
    name: str | None = None
    needs: str | None = None
    covers: bool = True
    other: list[Word] | None = None


class MentionSpec(_Model):
    """How the rows of one array stand in running text: each names something that is mentioned (rewards.mentions).

    weight: share of the mentions in `grounded`.  name: the leaf that is printed as it is.
    covers: whether names of the text that no row gives count against the attempt.
    ignore: capitalised words that are no name.
    """

    weight: Weight
    name: str
    covers: bool = True
    ignore: list[Word] | None = None


class Bounds(_Model):
    """Inclusive limits of a date (YYYY-MM-DD), of money or of a number."""

    min: datetime.date | int | float | None = None
    max: datetime.date | int | float | None = None


class RubricSpec(_Model):
    """gates: name -> the highest total of an attempt that fails there.  rewards: name -> weight.

    abstain: points of a null where a value was expected (a wrong value has 0, a right one 1).
    allow: custom rewards, "module:function", that `rewards` may name.
    """

    gates: dict[Literal["parses", "schema"], Points]
    rewards: dict[str, Weight]
    abstain: Points
    allow: list[str] | None = None


class TaskFile(_Model):
    """One file under configs/task/."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    prompt: Annotated[str, Field(min_length=1)]
    json_schema: Annotated[dict[str, Any], Field(alias="schema")]
    fields: dict[str, FieldSpec]
    rows: dict[str, RowSpec] = {}
    records: dict[str, RecordSpec] = {}
    mentions: dict[str, MentionSpec] = {}
    relations: dict[str, list[str]]
    plausible: dict[str, Bounds]
    rubric: RubricSpec
    judge: JudgeSpec | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A checked task file. `schema` is its JSON Schema; `relations` are parsed: name -> alternatives. `rows`, `records`
    and `mentions` say, array by array, how its rows are printed: as a table, as labelled numbers, in running text.
    `folder` is the file's: custom rewards may stand beside it."""

    name: str
    prompt: str
    schema: dict[str, Any]
    fields: dict[str, FieldSpec]
    rows: dict[str, RowSpec]
    relations: dict[str, tuple[Relation, ...]]
    plausible: dict[str, Bounds]
    rubric: RubricSpec
    records: dict[str, RecordSpec] = field(default_factory=dict)
    mentions: dict[str, MentionSpec] = field(default_factory=dict)
    judge: JudgeSpec | None = None
    folder: Path | None = None

    def canonical(self, gold: Mapping[str, Any]) -> str:
        """The completion that says `gold`: compact JSON, keys in the schema's order, required keys always, optional
        keys only where they have a value. Keys that the schema does not know are left out. Faults: DataError."""
        return json.dumps(_ordered(self.schema, gold, "gold"), ensure_ascii=False, separators=(",", ":"))


def _types(schema: Mapping[str, Any]) -> tuple[str, ...]:
    declared = schema.get("type", ())
    return (declared,) if isinstance(declared, str) else tuple(declared)


def _ordered(schema: Mapping[str, Any], value: Any, path: str) -> Any:
    types = _types(schema)
    if isinstance(value, Mapping) and "object" in types:
        required = schema.get("required", ())
        result: dict[str, Any] = {}
        for key, below in schema["properties"].items():
            given = value.get(key)
            if given is not None:
                result[key] = _ordered(below, given, f"{path}.{key}")
            elif key in required:
                if "null" in _types(below):
                    result[key] = None
                elif "array" in _types(below):
                    result[key] = []
                else:
                    raise DataError(f"{path}.{key}: missing, and the schema neither lets it be null nor be left out")
        return result
    if isinstance(value, list) and "array" in types:
        return [_ordered(schema["items"], row, f"{path}[{i}]") for i, row in enumerate(value)]
    return value


def leaves(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(path, schema) of every leaf, with [] for "each row": ("items[].amount", {...})."""
    types = _types(schema)
    if "object" in types:
        for key, below in schema.get("properties", {}).items():
            yield from leaves(below, f"{path}.{key}" if path else key)
    elif "array" in types:
        yield from leaves(schema.get("items", {}), f"{path}[]")
    else:
        yield path, schema


class _Loader(yaml.SafeLoader):
    pass


def _no_duplicates(loader: Any, node: Any) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            mark = key_node.start_mark
            raise ConfigError(f"{mark.name}: line {mark.line + 1}: the key {key!r} appears twice")
        seen.add(key)
    return dict(yaml.SafeLoader.construct_mapping(loader, node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _no_duplicates)


def nearest(name: str, known: Iterator[str] | list[str] | tuple[str, ...]) -> str:
    """ "; did you mean 'x'?" for the nearest known name, or the list of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def _task_path(name_or_path: str | Path) -> Path:
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in text or text.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
        if not path.is_file():
            raise ConfigError(f"task: no such file {text}; give a bare name or the path of a task file")
        return path
    path = TASK_FOLDER / f"{text}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in TASK_FOLDER.glob("*.yaml"))
        raise ConfigError(f"task: no task named {text!r}{nearest(text, known)}")
    return path


def load_task(name_or_path: str | Path) -> Task:
    """Reads and checks a task file: a bare name is configs/task/<name>.yaml. Faults: ConfigError, one line."""
    path = _task_path(name_or_path)
    where = path.name
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"{where}: larger than {LARGEST_FILE} bytes; this is no task file")
        loader = _Loader(path.read_text(encoding="utf-8"))
        loader.name = where
        try:
            raw = loader.get_single_data()
        finally:
            loader.dispose()
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{where}: cannot be read: {fault}") from None
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(fault, "problem", None) or "cannot be read"
        raise ConfigError(f"{where}: {line}not valid YAML: {problem}") from None
    except RecursionError:
        raise ConfigError(f"{where}: not usable: nested too deeply") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: must be a mapping with the keys {', '.join(_file_keys())}")
    return task_from_dict(raw, where, path.resolve().parent)


def _file_keys() -> list[str]:
    return [field.alias or name for name, field in TaskFile.model_fields.items()]


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Keys that the model at this place of a task file knows."""
    parents: dict[str, type[BaseModel]] = {
        "fields": FieldSpec,
        "rows": RowSpec,
        "records": RecordSpec,
        "mentions": MentionSpec,
        "plausible": Bounds,
        "rubric": RubricSpec,
    }
    if len(location) == 1:
        return _file_keys()
    model = parents.get(str(location[0]))
    return list(model.model_fields) if model else []


def task_from_dict(raw: Mapping[str, Any], where: str = "task", folder: Path | None = None) -> Task:
    """A Task from the content of a task file; `where` names it in faults (ConfigError). folder: of the file."""
    try:
        file = TaskFile.model_validate(raw)
    except ValidationError as faults:
        fault = faults.errors(include_url=False)[0]
        location = tuple(part for part in fault["loc"] if part != "[key]")
        key = ".".join(map(str, location))
        if fault["type"] == "extra_forbidden":
            hint = nearest(str(location[-1]), _known_keys(location))
            raise ConfigError(f"{where}: {key}: unknown key{hint}") from None
        given = "" if fault["type"] == "missing" else f", got {str(fault['input'])[:60]!r}"
        # YAML reads a bare no, yes, on and off as true and false.
        given += "; put it in quotes" if isinstance(fault["input"], bool) and "string" in fault["type"] else ""
        raise ConfigError(f"{where}: {key}: {fault['msg'][0].lower()}{fault['msg'][1:]}{given}") from None
    return replace(_checked(file, where), folder=folder)


def _checked(file: TaskFile, where: str) -> Task:
    schema = file.json_schema
    try:
        jsonschema_rs.validator_for(schema)
    except (ValueError, jsonschema_rs.ValidationError) as fault:
        raise ConfigError(f"{where}: schema: not a JSON Schema: {str(fault).splitlines()[0]}") from None
    if "object" not in _types(schema):
        raise ConfigError(f"{where}: schema.type: must be object")
    known = dict(leaves(schema))
    for path in file.fields:
        if path not in known:
            raise ConfigError(f"{where}: fields.{path}: not a leaf of the schema{nearest(path, list(known))}")
    for path, leaf in known.items():
        spec = file.fields.get(path)
        if spec is None:
            raise ConfigError(f"{where}: fields: the schema's leaf {path!r} has no entry; add fields.{path}.kind")
        if (spec.kind == "date") != (spec.formats is not None):
            raise ConfigError(f"{where}: fields.{path}.formats: a date needs it and no other kind takes it")
        if spec.kind == "class" and not leaf.get("enum"):
            raise ConfigError(f"{where}: fields.{path}.kind: a class needs an enum in the schema")
        if spec.adjusted_by is not None:
            step = file.fields.get(spec.adjusted_by)
            if step is None:
                hint = nearest(spec.adjusted_by, list(file.fields))
                raise ConfigError(f"{where}: fields.{path}.adjusted_by: no field {spec.adjusted_by!r}{hint}")
            if step.kind != "money" or step.adjusted_by is not None or "[]" in spec.adjusted_by:
                raise ConfigError(
                    f"{where}: fields.{path}.adjusted_by: must be a money field that is not adjusted itself"
                )
        for word in spec.words or ():
            if word not in leaf.get("enum", ()):
                raise ConfigError(f"{where}: fields.{path}.words.{word}: not in the schema's enum")
    arrays = {path.split("[]")[0] for path in known if "[]" in path}
    for array, rows in file.rows.items():
        if array not in arrays:
            raise ConfigError(f"{where}: rows.{array}: not an array of the schema{nearest(array, sorted(arrays))}")
        for role, leaf_name in (("name", rows.name), ("amount", rows.amount)):
            if f"{array}[].{leaf_name}" not in known:
                raise ConfigError(f"{where}: rows.{array}.{role}: no leaf {array}[].{leaf_name} in the schema")
    _check_records(file, known, arrays, where)
    for array in sorted(arrays - {*file.rows, *file.records, *file.mentions}):
        hint = "say how its rows stand in the document, under rows, records or mentions"
        raise ConfigError(f"{where}: rows.{array}: missing: {hint}")
    for path in file.plausible:
        if path not in known:
            raise ConfigError(f"{where}: plausible.{path}: not a leaf of the schema{nearest(path, list(known))}")
    relations: dict[str, tuple[Relation, ...]] = {}
    for name, alternatives in file.relations.items():
        if not alternatives:
            raise ConfigError(f"{where}: relations.{name}: must list at least one alternative")
        relations[name] = tuple(
            _relation(text, file, list(known), f"{where}: relations.{name}[{i}]") for i, text in enumerate(alternatives)
        )
    _check_rubric(file.rubric, where)
    if wrong := judge_fault(file.judge, file.rubric.rewards, file.fields, list(known)):
        raise ConfigError(f"{where}: {wrong}")
    return Task(
        name=file.name,
        prompt=file.prompt,
        schema=schema,
        fields=file.fields,
        rows=file.rows,
        relations=relations,
        plausible=file.plausible,
        rubric=file.rubric,
        records=file.records,
        mentions=file.mentions,
        judge=file.judge,
    )


def _check_records(file: TaskFile, known: Mapping[str, Any], arrays: set[str], where: str) -> None:
    sections: tuple[tuple[str, Mapping[str, RecordSpec | MentionSpec]], ...] = (
        ("records", file.records),
        ("mentions", file.mentions),
    )
    for section, specs in sections:
        for array, spec in specs.items():
            if array not in arrays:
                hint = nearest(array, sorted(arrays))
                raise ConfigError(f"{where}: {section}.{array}: not an array of the schema{hint}")
            if array in file.rows or (section == "mentions" and array in file.records):
                raise ConfigError(f"{where}: {section}.{array}: stands in another section too; keep one")
            leaves_ = [path.removeprefix(f"{array}[].") for path in known if path.startswith(f"{array}[].")]
            for role in ("name", "needs"):
                leaf = getattr(spec, role, None)
                if leaf is not None and leaf not in leaves_:
                    raise ConfigError(
                        f"{where}: {section}.{array}.{role}: no leaf {array}[].{leaf}{nearest(leaf, leaves_)}"
                    )
            if section == "records" and not any(file.fields[f"{array}[].{leaf}"].kind in NUMERIC for leaf in leaves_):
                raise ConfigError(f"{where}: records.{array}: has no number; name it under mentions instead")


def _relation(text: str, file: TaskFile, known: list[str], where: str) -> Relation:
    hint = ""
    try:
        relation = parse_relation(text)
        arrays = {path.split("[]")[0] for path in known if "[]" in path}
        operands = set(map(id, relation.operands))
        for path in relation.named():
            if id(path) not in operands and path.text in arrays:
                continue  # in a condition: whether there are rows
            if path.text not in known:
                hint = nearest(path.text, known)
                raise RelationFault(f"no field {path.text!r}", path.position)
            kind = file.fields[path.text].kind
            if id(path) in operands and kind not in NUMERIC:
                hint = f"; a relation takes {', '.join(NUMERIC)}"
                raise RelationFault(f"{path.text!r} is {kind}", path.position)
    except RelationFault as fault:
        at = f"at character {fault.position + 1} of {text!r}"
        raise ConfigError(f"{where}: {fault.reason} {at}{hint}") from None
    return relation


REWARDS = (
    "grounded",
    "reconciles",
    "covers",
    "plausible",
    "characters",
    "has_keys",
    "adds_up",
    "words_in_source",
    "judge",
)
_REFERENCE = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


def _check_rubric(rubric: RubricSpec, where: str) -> None:
    for name in rubric.rewards:
        if name in REWARDS:
            continue
        if not _REFERENCE.match(name):
            raise ConfigError(f"{where}: rubric.rewards.{name}: unknown reward{nearest(name, REWARDS)}")
        if name not in (rubric.allow or ()):
            raise ConfigError(f"{where}: rubric.rewards.{name}: runs code; add it to rubric.allow to let it")
    if not any(rubric.rewards.values()):
        raise ConfigError(f"{where}: rubric.rewards: at least one weight must be above 0")
