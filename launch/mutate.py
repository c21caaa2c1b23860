"""offramp mutate: known-worse edits of gold must score below it. The kill rate of a rubric, by kind, and its misses."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

from launch.score import known_documents, number_of, read_completions, read_keys
from launch.validate import bare_path, share_of, with_gold
from rewards.document import Document
from rewards.errors import ConfigError, DataError, RewardError
from rewards.mutate import EQUAL, KINDS, Mutant, equals, mutants
from rewards.mutate_shared import INVISIBLE
from rewards.parse import Attempt, parse
from rewards.rubric import Rubric
from rewards.schema import valid
from rewards.task import Task, load_task, nearest

KEYS = {
    "task": "a name in configs/task, or a task file",
    "docs.path": "documents with gold, JSON lines; a bare word will do. synthetic: made in code",
    "completions": "answers to take for gold where documents have none: JSON lines of id and completion",
    "least": "take only golds that the rubric gives this much (0): what it doubts it cannot defend",
    "kinds": "only these kinds of edits, with commas between (all)",
    "min_kill": "the share of mutants that must score below gold (0.97)",
    "min_kind": "the same of each kind that is not listed as invisible without gold (0.90)",
    "misses": "how many misses of each kind are listed (5)",
    "mutant_seed": "of the edits (0)",
    "count": "how many synthetic documents (200)",
    "seed": "of the synthetic documents (0)",
    "max_bad": "bad lines tolerated (0)",
}


def run(args: list[str], as_json: bool) -> dict[str, Any] | None:
    """kill_rate, the same by kind and by field, and the misses. Exit code 4 where a threshold fails."""
    values = read_keys("mutate", bare_path(args), KEYS, required=("task", "docs.path"))
    if values is None:
        return None
    task = load_task(values["task"])
    limits = {key: share_of(values, key, default) for key, default in (("min_kill", 0.97), ("min_kind", 0.9))}
    least = share_of(values, "least", 0.0)
    listed = number_of(values, "misses", 5, int)
    kinds = _kinds(values)
    seed = values.get("mutant_seed", "0")
    if not seed.isdigit():
        raise ConfigError(f"mutant_seed={seed}: must be a whole number")
    documents = _with_answers(task, values) if values.get("completions") else with_gold(task, values)
    rubric = Rubric(task)
    killed: Counter[tuple[str, str]] = Counter()
    made: Counter[tuple[str, str]] = Counter()
    same: Counter[str] = Counter()
    misses: dict[str, list[dict[str, Any]]] = defaultdict(list)
    used = 0
    for document in documents:
        assert document.gold is not None
        worse = list(mutants(task, document, int(seed), kinds))
        equal = list(equals(task, document, int(seed)))
        completions = [task.canonical(document.gold), *(m.completion for m in worse), *(m.completion for m in equal)]
        gold, *scores = rubric.score_group(document, completions)
        if any(score.status == "error" for score in (gold, *scores)):
            error = next(score.error for score in (gold, *scores) if score.status == "error")
            raise RewardError(f"{document.id}: the rubric failed: {error}")
        if gold.total < least:
            continue
        used += 1
        for mutant, score in zip(worse, scores[: len(worse)], strict=True):
            made[mutant.kind, mutant.path] += 1
            if score.total < gold.total - EPSILON:
                killed[mutant.kind, mutant.path] += 1
            elif len(misses[mutant.kind]) < listed:
                misses[mutant.kind].append(_miss(document, mutant, gold.total, score.total))
        for mutant, score in zip(equal, scores[len(worse) :], strict=True):
            same[mutant.kind] += abs(score.total - gold.total) <= EPSILON
    if not made:
        raise DataError(f"docs.path={values['docs.path']}: nothing to edit, of {used} golds")
    result: dict[str, Any] = {
        "task": task.name,
        "documents": used,
        "mutants": sum(made.values()),
        "kill_rate": sum(killed.values()) / sum(made.values()),
        "kinds": {kind: _kind(kind, made, killed) for kind in kinds if any(k == kind for k, _ in made)},
        "equal": {kind: same[kind] / used for kind in EQUAL},
        "misses": {kind: misses[kind] for kind in kinds if misses[kind]},
    }
    result["failures"] = _failures(result, limits["min_kill"], limits["min_kind"])
    _print(result)
    return result | ({"exit_code": RewardError.exit_code} if result["failures"] else {})


EPSILON = 1e-12  # of two totals that differ by rounding only


def _kinds(values: dict[str, str]) -> dict[str, Any]:
    names = [name.strip() for name in values.get("kinds", "").split(",") if name.strip()]
    for name in names:
        if name not in KINDS:
            raise ConfigError(f"kinds={name}: no such kind{nearest(name, list(KINDS))}")
    return {name: KINDS[name] for name in names or KINDS}


def _with_answers(task: Task, values: dict[str, str]) -> list[Document]:
    """The documents that have a schema-valid answer in `completions`, with that for gold."""
    max_bad = number_of(values, "max_bad", 0, int)
    answers = dict(read_completions(values["completions"], max_bad))
    rubric = Rubric(task)
    found = []
    for document in known_documents(values["docs.path"], max_bad):
        attempt = parse(answers.get(document.id, ""))
        if isinstance(attempt, Attempt) and valid(rubric.plan, attempt.value):
            found.append(Document(document.id, document.text, document.group, attempt.value))
    if not found:
        raise DataError(f"completions={values['completions']}: no valid answer to a document of {values['docs.path']}")
    return found


def _kind(kind: str, made: Counter[tuple[str, str]], killed: Counter[tuple[str, str]]) -> dict[str, Any]:
    fields = {path: (killed[kind, path], count) for (name, path), count in sorted(made.items()) if name == kind}
    count = sum(n for _, n in fields.values())
    entry: dict[str, Any] = {
        "mutants": count,
        "kill_rate": sum(k for k, _ in fields.values()) / count,
        "fields": {path: {"mutants": n, "killed": k} for path, (k, n) in fields.items()},
    }
    return entry | ({"invisible": INVISIBLE[kind]} if kind in INVISIBLE else {})


def _miss(document: Document, mutant: Mutant, gold: float, score: float) -> dict[str, Any]:
    """A miss; of an array only the rows that differ."""
    assert document.gold is not None
    top = mutant.path.partition("[]")[0].partition(".")[0]
    before, after = document.gold.get(top), mutant.value.get(top)
    if isinstance(before, list) and isinstance(after, list):
        before, after = [row for row in before if row not in after], [row for row in after if row not in before]
    return {"id": document.id, "path": mutant.path, "gold": before, "mutant": after, "gold_score": gold, "score": score}


def _failures(result: dict[str, Any], min_kill: float, min_kind: float) -> list[str]:
    found = []
    if result["kill_rate"] < min_kill:
        found.append(f"kill_rate {result['kill_rate']:.4f} is below min_kill {min_kill}")
    for kind, entry in result["kinds"].items():
        if entry["kill_rate"] < min_kind and "invisible" not in entry:
            found.append(f"{kind}: kill rate {entry['kill_rate']:.4f} is below min_kind {min_kind}")
    for kind, share in result["equal"].items():
        if share < 1.0:
            found.append(f"{kind}: changes nothing, and yet the score of {1.0 - share:.4f} of the documents")
    return found


def _print(result: dict[str, Any]) -> None:
    count, kinds = result["mutants"], result["kinds"]
    print(
        f"kill rate {result['kill_rate']:.4f}: {count} mutants of {len(kinds)} kinds, {result['documents']} documents\n"
    )
    for kind, entry in kinds.items():
        note = f"  invisible without gold: {entry['invisible']}" if "invisible" in entry else ""
        print(f"{kind:28} {entry['kill_rate']:.4f}  {entry['mutants']:6}{note}")
    for kind, share in result["equal"].items():
        print(f"{kind:28} {share:.4f}  the same answer, the same score")
    for kind, entries in result["misses"].items():
        for miss in entries:
            before, after = (json.dumps(miss[key], ensure_ascii=False)[:140] for key in ("gold", "mutant"))
            print(f"\n{kind}  {miss['id']}  {miss['path']}  {miss['gold_score']:.3f} -> {miss['score']:.3f}")
            print(f"  gold    {before}\n  mutant  {after}")
    print()
    for failure in result["failures"]:
        print(f"FAILED {failure}")
    if not result["failures"]:
        print("passed")
