"""Documents of a config -> training and held-out documents -> prompts as token ids; what does not fit is named."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs import synthetic
from envs.documents import read_documents
from envs.prompts import messages
from envs.splits import Split, check_leak, near_duplicates, split
from envs.tables import from_datasets
from rewards.document import Document
from rewards.errors import ConfigError, DataError
from rewards.task import Task
from rl.config import DocsConfig, HfDocs, JsonlDocs, SyntheticDocs
from rl.stream import Stream

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Documents beside their prompts, and what was left out.

    Example: Prepared(documents=(document,), prompt_ids=((1, 88, 2),), left_out=(("receipt-0009", 5210),))
    """

    documents: tuple[Document, ...]
    """[N]"""
    prompt_ids: tuple[tuple[int, ...], ...]
    """[N] token ids of each prompt, chat template applied."""
    left_out: tuple[tuple[str, int], ...]
    """(document id, prompt tokens) of each document too long for the policy."""

    def __len__(self) -> int:
        return len(self.documents)

    def take(self, indexes: Sequence[int]) -> Prepared:
        return Prepared(
            tuple(self.documents[i] for i in indexes), tuple(self.prompt_ids[i] for i in indexes), self.left_out
        )

    @property
    def prompts(self) -> list[tuple[str, tuple[int, ...]]]:
        return [(document.id, ids) for document, ids in zip(self.documents, self.prompt_ids, strict=True)]

    @property
    def groups(self) -> frozenset[str]:
        return frozenset(document.group for document in self.documents)

    def fingerprint(self) -> str:
        """Changes with any id, text or prompt, and with their order: a resumed run must see the same documents."""
        digest = hashlib.sha256()
        for document, ids in zip(self.documents, self.prompt_ids, strict=True):
            digest.update(json.dumps([document.id, document.text, ids]).encode())
        return digest.hexdigest()[:16]


def load_documents(docs: DocsConfig, task: Task, logs: Path | None) -> Split:
    """The training and the held-out documents of a config, groups apart and without near-duplicates across.

    Bad lines, up to docs.max_bad a file, go to files in `logs`, or nowhere. Raises ConfigError and DataError.
    """
    if isinstance(docs, SyntheticDocs):
        return _synthetic(docs, task)
    if isinstance(docs, HfDocs):
        test_path = docs.test_split
        first = _table(docs, docs.split, logs)
    else:
        test_path = docs.test_path
        first = _file(docs, docs.path, logs)
    if test_path is None:
        parts = split(first, docs.test_fraction, docs.split_seed)
    else:
        held_out = _table(docs, test_path, logs) if isinstance(docs, HfDocs) else _file(docs, test_path, logs)
        parts = Split(tuple(first), tuple(held_out))
        check_leak(parts.train, parts.test)
    if isinstance(docs, JsonlDocs):
        if docs.extra:
            parts = join(parts, read_extra(docs, logs))
        parts = Split(at_most(parts.train, docs.train_documents, docs.split_seed), parts.test)
    return parts


def at_most(documents: Sequence[Document], count: int | None, seed: int = 0) -> tuple[Document, ...]:
    """`count` of the documents, in their order; `seed` is no run's own, so that all seeds see the same ones."""
    if count is None or count >= len(documents):
        return tuple(documents)
    return tuple(documents[i] for i in sorted(Stream(len(documents), seed).next(count)))


def _synthetic(docs: SyntheticDocs, task: Task) -> Split:
    if task.name not in synthetic.FAMILIES:
        known = ", ".join(synthetic.FAMILIES)
        raise ConfigError(
            f"docs.kind=synthetic: no synthetic documents for task {task.name!r}, only for {known}; use docs=jsonl"
        )
    # Two streams of seeds: training documents never move when the number of test documents changes.
    train = synthetic.documents(task.name, docs.train, 2 * docs.seed, docs.part)
    seen = {document.group for document in train}
    test: list[Document] = []
    start = 0
    while len(test) < docs.test:
        more = synthetic.documents(task.name, docs.test - len(test), 2 * docs.seed + 1, docs.part, start)
        start += len(more)
        test += [document for document in more if document.group not in seen]
    return Split(tuple(train), tuple(test))


def read_extra(docs: JsonlDocs, logs: Path | None) -> list[Document]:
    """The documents of docs.extra."""
    return [document for path in docs.extra for document in _file(docs, path, logs)]


def join(parts: Split, extra: Sequence[Document]) -> Split:
    """Further training documents, less those that a held-out document knows: of its group, or nearly the same text."""
    held_out = {document.group for document in parts.test}
    leaking = {pair.first.id for pair in near_duplicates(extra, parts.test)} if parts.test else set()
    kept = [document for document in extra if document.group not in held_out and document.id not in leaking]
    known = {document.id for document in (*parts.train, *parts.test)}
    for document in extra:
        if document.id in known:
            raise DataError(f"docs.extra: two documents have the id {document.id}; make ids differ over all files")
        known.add(document.id)
    if len(kept) < len(extra):
        log.warning("docs.extra: left out %d of %d documents of held-out groups", len(extra) - len(kept), len(extra))
    return Split((*parts.train, *kept), parts.test)


def _file(docs: JsonlDocs, path: str, logs: Path | None) -> list[Document]:
    return read_documents(
        path, max_bad=docs.max_bad, quarantine=logs and logs / f"bad_{Path(path).name}", limit=docs.limit
    )


def _table(docs: HfDocs, name: str, logs: Path | None) -> list[Document]:
    return from_datasets(
        docs.path,
        name=docs.name,
        split=name,
        columns=docs.columns.model_dump(),
        max_bad=docs.max_bad,
        quarantine=logs and logs / f"bad_{name}.jsonl",
        limit=docs.limit,
    )


def prepare(
    documents: Sequence[Document],
    task: Task,
    tokenizer: Any,
    *,
    max_prompt_tokens: int,
    schema_in_prompt: bool,
    what: str,
) -> Prepared:
    """Tokenise every prompt. A prompt above `max_prompt_tokens` is left out with its name and counted, never cut.

    what: "train" or "test", for the messages. Raises DataError when nothing is left.
    """
    kept: list[Document] = []
    prompt_ids: list[tuple[int, ...]] = []
    left_out: list[tuple[str, int]] = []
    for document in documents:
        ids = encode(document, task, tokenizer, schema_in_prompt=schema_in_prompt)
        if len(ids) > max_prompt_tokens:
            left_out.append((document.id, len(ids)))
        else:
            kept.append(document)
            prompt_ids.append(ids)
    if left_out:
        names = ", ".join(f"{name} ({tokens} tokens)" for name, tokens in left_out[:5])
        more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        log.warning(
            "%s: left out %d of %d documents longer than %d prompt tokens: %s%s",
            what, len(left_out), len(documents), max_prompt_tokens, names, more,
        )  # fmt: skip
    if not kept:
        raise DataError(
            f"{what} documents: none of {len(documents)} fits in {max_prompt_tokens} prompt tokens; "
            "raise model.max_positions or lower sampler.max_tokens"
            if documents
            else f"{what} documents: there are none; check docs"
        )
    return Prepared(tuple(kept), tuple(prompt_ids), tuple(left_out))


def encode(document: Document, task: Task, tokenizer: Any, *, schema_in_prompt: bool) -> tuple[int, ...]:
    """Token ids of the prompt, up to where the answer begins."""
    text = document.text
    for token in tokenizer.all_special_tokens:  # a document that spells a control token must not end its own turn
        text = text.replace(token, f"{token[0]} {token[1:]}")
    ids = tokenizer.apply_chat_template(
        messages(task, text, schema_in_prompt=schema_in_prompt),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
        enable_thinking=False,  # templates that know no such switch ignore it
    )
    return tuple(int(i) for i in ids)


def write_left_out(folder: Path, prepared: Prepared, what: str) -> None:
    """Every document that was left out, one JSON object a line, in left_out_<what>.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"id": name, "prompt_tokens": tokens}) for name, tokens in prepared.left_out]
    (folder / f"left_out_{what}.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
