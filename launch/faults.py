"""Turns the faults of Hydra, OmegaConf and pydantic into one line each: dotted key, value, what is allowed, the fix."""

import difflib
import json
import re
import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from rewards.errors import ConfigError

# What other trainers call the same thing.
ELSEWHERE = {
    "learning_rate": "optim.lr",
    "max_steps": "run.steps",
    "num_train_steps": "run.steps",
    "num_generations": "batch.group_size",
    "batch_size": "batch.documents_per_step",
    "per_device_train_batch_size": "batch.documents_per_step",
    "beta": "method.kl_coef",
    "epsilon": "method.clip_low",
    "epsilon_high": "method.clip_high",
    "loss_type": "method.kind",
    "model_name_or_path": "model.path",
    "output_dir": "run.dir",
    "max_completion_length": "sampler.max_tokens",
    "max_new_tokens": "sampler.max_tokens",
    "warmup": "optim.warmup_steps",
    "num_workers": "rewards.workers",
    "dataset": "docs.path",
    "dataset_name": "docs.path",
    "workers": "rewards.workers",
}


class ConfigFaults(ConfigError):
    """All faults found in a configuration, one line each."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(" ".join(fault.split()) for fault in faults)
        super().__init__("\n".join(self.faults))


def show(value: object, limit: int = 60) -> str:
    """The value as the user would write it, cut to `limit` characters."""
    if isinstance(value, str):
        text = value if re.fullmatch(r"[\w./:@${}+-]+", value) else repr(value)
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Annotated, Union, types.UnionType):
        for part in get_args(annotation):
            yield from _models(part)


def known_keys(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Every dotted key of a configuration, sections included, with the first sentence of its description."""
    keys: dict[str, str] = {}
    for name, field in model.model_fields.items():
        keys[prefix + name] = (field.description or "").split(". ")[0].strip().rstrip(".")
        for section in _models(field.annotation):
            keys.update(known_keys(section, f"{prefix}{name}."))
    return keys


def kinds_with(model: type[BaseModel], key: str) -> list[str]:
    """The choices of a group (docs=jsonl, docs=hf) under which the key exists."""
    section, _, rest = key.partition(".")
    found = []
    field = model.model_fields.get(section)
    for variant in _models(field.annotation) if field else ():
        kind = variant.model_fields.get("kind")
        if kind is not None and rest in known_keys(variant):
            found += [str(choice) for choice in get_args(kind.annotation) if get_origin(kind.annotation) is Literal]
    return found


def nearest(key: str, known: Sequence[str]) -> str | None:
    """The known key that the user most likely meant."""
    leaf = key.rsplit(".", 1)[-1]
    section = key.rpartition(".")[0]
    siblings = {name.rsplit(".", 1)[-1]: name for name in known if name.rpartition(".")[0] == section}
    if close := difflib.get_close_matches(leaf, siblings, 1, 0.7):
        return siblings[close[0]]
    same_leaf = [name for name in known if name.rsplit(".", 1)[-1] == leaf and name != key]
    if same_leaf:
        return min(same_leaf, key=lambda name: (name.count("."), name))
    if leaf in ELSEWHERE and ELSEWHERE[leaf] in known:
        return ELSEWHERE[leaf]
    close = difflib.get_close_matches(key, known, 1, 0.6)
    return close[0] if close else None


def unknown_key(key: str, value: object, model: type[BaseModel]) -> str:
    known = known_keys(model)
    start = f"{key}={show(value)}: unknown key" if value is not None else f"{key}: unknown key"
    section = key.partition(".")[0]
    if key in known and (kinds := kinds_with(model, key)):
        choices = " or ".join(f"{section}={kind}" for kind in kinds)
        return f"{start} here; it belongs to {choices}: add that choice"
    if guess := nearest(key, list(known)):
        return f"{start}; did you mean {guess}?"
    parent = key.rpartition(".")[0]
    siblings = [name.rsplit(".", 1)[-1] for name in known if name.rpartition(".")[0] == parent]
    while not siblings and parent:
        parent = parent.rpartition(".")[0]
        siblings = [name.rsplit(".", 1)[-1] for name in known if name.rpartition(".")[0] == parent]
    return f"{start}; known {'in ' + parent if parent else 'at the top'}: {', '.join(siblings)}"


_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list, as [a, b]",
    "list_type": "a list, as [a, b]",
    "dict_type": "a section of keys",
    "model_type": "a section of keys",
    "model_attributes_type": "a section of keys",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def _dotted(loc: Sequence[int | str], model: type[BaseModel]) -> str:
    """The path as the user writes it: without the tags that pydantic puts in for unions."""
    known = known_keys(model)
    parts: list[str] = []
    for part in loc:
        here = ".".join(parts)
        is_union_tag = here in known and ".".join([*parts, str(part)]) not in known and f"{here}.kind" in known
        if is_union_tag and len(parts) == 1 and isinstance(part, str) and part in _tags(model, parts[0]):
            continue
        if isinstance(part, str) and ("[" in part or part in ("none", "int", "float", "str", "constrained-str")):
            continue
        parts.append(str(part))
    return ".".join(parts)


def _tags(model: type[BaseModel], section: str) -> list[str]:
    field = model.model_fields.get(section)
    tags: list[str] = []
    for variant in _models(field.annotation) if field else ():
        if "kind" in variant.model_fields:
            tags += [str(tag) for tag in get_args(variant.model_fields["kind"].annotation)]
    return tags


def choice_fault(key: str, value: object, allowed: Sequence[str]) -> str:
    guess = difflib.get_close_matches(str(value), allowed, 1, 0.6)
    hint = f"did you mean {guess[0]}? " if guess else ""
    return f"{key}={show(value)}: not a choice; {hint}allowed: {', '.join(allowed)}"


def _choices(expected: object) -> list[str]:
    """What pydantic would have taken, as YAML writes it."""
    found = re.findall(r"'([^']*)'|\b(True|False)\b", str(expected))
    return [text or truth.lower() for text, truth in found]


def validation_faults(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line for each fault that pydantic found, in the order of the configuration."""
    known = known_keys(model)
    lines: list[str] = []
    for fault in error.errors(include_url=False):
        key = _dotted(fault["loc"], model)
        kind, value, context = fault["type"], fault.get("input"), fault.get("ctx", {})
        about = f" ({known[key]})" if known.get(key) else ""
        if kind == "extra_forbidden":
            lines.append(unknown_key(key, value, model))
        elif kind == "missing":
            lines.append(f"{key}: missing key; add it{about}")
        elif kind == "literal_error":
            lines.append(choice_fault(key, value, _choices(context.get("expected"))))
        elif kind == "union_tag_invalid":
            tag = context.get("tag")
            lines.append(choice_fault(f"{key}.kind", tag, _choices(context.get("expected_tags"))))
        elif kind == "union_tag_not_found":
            lines.append(f"{key}.kind: missing key; choose one of {', '.join(_tags(model, key))}, as {key}=CHOICE")
        elif kind in _BOUNDS:
            bound, words = _BOUNDS[kind]
            lines.append(f"{key}={show(value)}: out of range, must be {words} {context.get(bound)}{about}")
        elif kind in _EXPECTED:
            fix = f"; quote it twice, as {key}=\"'{value}'\"" if kind == "string_type" and value is not None else ""
            if isinstance(value, str) and value.lower() in ("none", "~", ""):
                fix = "; nothing at all is written null"
            lines.append(f"{key}={show(value)}: must be {_EXPECTED[kind]}{about}{fix}")
        elif kind == "string_pattern_mismatch":
            allowed = "only letters, digits and . _ = , + - are allowed"
            if key.startswith("methods") and "@" in str(value):
                allowed = "behind @ stands how many answers, 2 or more (sft@8)"
            lines.append(f"{key}={show(value)}: {allowed}{about}")
        elif kind in ("string_too_short", "too_short"):
            lines.append(f"{key}={show(value)}: must not be empty{about}")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            lines.append(f"{key}: {message}" if key else message)
    return lines
