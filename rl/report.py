"""A comparison as people read it: summary.json, report.md, plots, one self-contained page, cards, and W&B."""

from __future__ import annotations

import base64
import html
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rewards.document import Document
from rl import compare, compare_plots
from rl.compare import PARTS, Row
from rl.compare_config import CompareConfig
from rl.record import commit, finite, write_whole

log = logging.getLogger(__name__)

QUALITY = {
    "header_exact": "header exact",
    "documents_exact": "documents exact",
    "field_accuracy": "fields exact",
    "field_f1": "field F1",
    "schema_valid": "schema valid",
    "reconciles": "reconciles",
    "hallucination": "hallucination",
    "omission": "omission",
    "reward": "reward",
}
COST = {
    "human_labels": "human labels",
    "teacher_calls": "teacher calls",
    "teacher_tokens": "teacher tokens",
    "money": "money",
    "updates": "updates",
    "seconds_training": "training s",
    "tokens_trained": "tokens trained",
    "peak_memory_mb": "peak memory MB",
    "inference_tokens_per_second": "inference tokens/s",
}
BUDGETS = {
    "documents": "the same documents for every method, and each its own number of updates",
    "update_tokens": "at most {amount:.0f} tokens through updates for each method; what each took stands under cost",
    "seconds": "at most {amount:.0f} seconds of training for each method; what each took stands under cost",
}


def write(
    config: CompareConfig,
    folder: Path,
    data: Mapping[str, Any],
    rows: Sequence[Row],
    seen: Mapping[int | None, frozenset[str]],
    test: Sequence[Document],
    runs: Mapping[str, Path],
) -> dict[str, Any]:
    """Writes everything into `folder`; returns the summary. Prints the table and the sentence.

    seen: groups of the training documents, by their number; None: of all of them.
    """
    groups = {document.id: document.group for document in test}
    rows = [_with_money(config, row) for row in rows]
    baseline = find_baseline(config, rows)
    sentence, facts = compare.verdict(
        rows, config.metric, baseline, resamples=config.bootstrap, prices=config.prices, teacher="teacher"
    )
    entries = [_entry(config, row, baseline, groups, seen[row.documents]) for row in rows]
    main_rows = largest(entries)
    budget = BUDGETS[config.budget.kind].format(amount=config.budget.amount or 0)
    summary: dict[str, Any] = {
        "name": config.name,
        "sentence": sentence,
        "verdict": facts,
        "metric": config.metric,
        "baseline": baseline.name,
        "teacher": config.teacher.name if config.teacher.traces else None,
        "budget": {"kind": config.budget.kind, "amount": config.budget.amount, "says": budget},
        "data": dict(data),
        "answers": [override for override in config.evaluate if not override.startswith("threads=")],
        "commit": commit(),
        "methods": {entry["method"]: entry for entry in main_rows},
        "curve": [entry for entry in entries if entry["documents"] is not None],
    }
    summary = finite(summary)
    write_whole(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    pictures = compare_plots.draw(folder / "plots", summary, runs)
    write_whole(folder / "report.md", markdown(summary, pictures) + "\n")
    write_whole(folder / "report.html", page(summary, pictures))
    write_cards(config, folder, summary, runs)
    if config.wandb:
        mirror(config, folder, summary, pictures)
    print(text_table(summary))
    print(f"\n{sentence}\nthe report is {folder / 'report.html'}")
    return {"sentence": sentence, "summary": str(folder / "summary.json"), **_short(summary)}


def _short(summary: Mapping[str, Any]) -> dict[str, Any]:
    """For --json: each method's metrics."""
    keep = (*QUALITY, "n", "seeds", "documents", "cost")
    return {"methods": {m: {k: e[k] for k in keep if k in e} for m, e in summary["methods"].items()}}


def _with_money(config: CompareConfig, row: Row) -> Row:
    row.cost["money"] = compare.money(row.cost, config.prices)
    return row


def find_baseline(config: CompareConfig, rows: Sequence[Row]) -> Row:
    """The row that differences are taken from, at its largest size; the starter where it is not there."""
    named = [row for row in rows if row.name == config.baseline]
    if not named:
        log.warning("baseline=%s has no answers to the test documents; the starter stands in for it", config.baseline)
        named = [row for row in rows if row.name == "starter"] or list(rows[:1])
    return max(named, key=lambda row: row.documents or 0)


def _entry(
    config: CompareConfig, row: Row, baseline: Row, groups: Mapping[str, str], seen: frozenset[str]
) -> dict[str, Any]:
    entry: dict[str, Any] = {"method": row.name, "documents": row.documents, "seeds": list(row.seeds)}
    entry |= compare.summarise(row.measured, resamples=config.bootstrap, groups=groups, seen=seen)
    if row is not baseline:
        entry["over_baseline"] = compare.differences(
            baseline.measured, row.measured, resamples=config.bootstrap, groups=groups, seen=seen
        )
    if len(row.by_seed) > 1:
        entry["by_seed"] = {
            name: [_value(one, name) for one in row.by_seed]
            for name in {**QUALITY, config.metric: ""}
            if all(name in one.ratios for one in row.by_seed)
        }
    entry["cost"] = dict(row.cost)
    return entry


def _value(measured: compare.Measured, name: str) -> float:
    top, below = measured.ratios[name]
    return float(top.sum() / below.sum()) if below.sum() else float("nan")


def largest(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry a method: the one with the most training documents."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        before = found.get(entry["method"])
        if before is None or (entry["documents"] or 0) > (before["documents"] or 0):
            found[entry["method"]] = entry
    return list(found.values())


def cell(metric: Mapping[str, Any] | None, signed: bool = False) -> str:
    if not metric or metric.get("value") is None:
        return "-"
    low, high = metric["ci95"]
    sign = "+" if signed else ""
    return f"{metric['value']:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def tables(summary: Mapping[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """(title, rows with the head first) of each table of the report."""
    methods, metric = list(summary["methods"].values()), summary["metric"]
    names = {k: v for k, v in {metric: metric, **QUALITY}.items() if any(k in m for m in methods)}
    quality = [["method", "documents", "seeds", "n", *(QUALITY.get(k, k) for k in names)]]
    for m in methods:
        size = "-" if m["documents"] is None else str(m["documents"])
        quality.append([m["method"], size, str(len(m["seeds"]) or "-"), str(m["n"]), *(cell(m.get(k)) for k in names)])
    delta = [["method", *(QUALITY.get(k, k) for k in names)]]
    for m in methods:
        if "over_baseline" in m:
            delta.append([m["method"], *(cell(m["over_baseline"].get(k), signed=True) for k in names)])
    groups = [
        ["method", *(f"{part} (n)" for part in PARTS for _ in (0,)), "over baseline, seen", "over baseline, unseen"]
    ]
    for m in methods:
        over = m.get("over_baseline", {})
        groups.append(
            [
                m["method"],
                *(f"{cell(m[part].get(metric))} ({m[part]['n']})" for part in PARTS),
                *(cell(over.get(part, {}).get(metric), signed=True) for part in PARTS),
            ]
        )
    cost = [["method", *COST.values()]]
    for m in methods:
        cost.append([m["method"], *(_number(m["cost"].get(k)) for k in COST)])
    fields = [k for k in methods[0] if k.startswith(("exact/", "f1/"))]
    by_field = [["method", *fields]] + [[m["method"], *(cell(m.get(k)) for k in fields)] for m in methods]
    seeds = [["method", *names.values()]]
    for m in methods:
        if "by_seed" in m:
            spread = m["by_seed"]
            shown = [
                " ".join("-" if v is None else f"{v:.3f}" for v in spread[k]) if k in spread else "-" for k in names
            ]
            seeds.append([m["method"], *shown])
    curve = [["method", "documents", metric, "reward", "money", "training s"]]
    for m in sorted(summary["curve"], key=lambda m: (m["method"], m["documents"])):
        money, seconds = m["cost"].get("money"), m["cost"].get("seconds_training")
        curve.append(
            [
                m["method"],
                str(m["documents"]),
                cell(m.get(metric)),
                cell(m.get("reward")),
                _number(money),
                _number(seconds),
            ]
        )
    found = [
        ("Quality on the test documents, 95 % intervals", quality),
        (f"Against {summary['baseline']}, paired over the same documents", delta),
        (f"{metric} by groups seen and unseen in training", groups),
        ("Cost, mean of the seeds", cost),
        ("By field", by_field),
    ]
    if len(seeds) > 1:
        found.append(("Each seed", seeds))
    if len({m["documents"] for m in summary["curve"]}) > 1:
        found.append(("By number of training documents", curve))
    return found


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"


def markdown(summary: Mapping[str, Any], pictures: Mapping[str, Path]) -> str:
    lines = [f"# {summary['name']}", "", summary["sentence"], "", *(f"- {line}" for line in notes(summary)), ""]
    for title, path in pictures.items():
        lines += [f"![{title}](plots/{path.name})", ""]
    for title, rows in tables(summary):
        lines += [f"## {title}", "", _md_row(rows[0]), "|" + "---|" * len(rows[0]), *map(_md_row, rows[1:]), ""]
    return "\n".join(lines).rstrip()


def _md_row(row: Sequence[str]) -> str:
    return "| " + " | ".join(row) + " |"


def notes(summary: Mapping[str, Any]) -> list[str]:
    """What a reader must know to judge the numbers."""
    data = summary["data"]
    picked = any("@" in method for method in summary["methods"])
    answers = "greedily; a@8 is a's policy with the best of 8 answers by the rubric" if picked else "greedily"
    return [
        f"Budget: {summary['budget']['says']}.",
        f"{data['train']['documents']} training documents; each run picks its best policy on "
        f"{data['select']['documents']} others; all are judged once, on the same {data['test']['documents']} (hash "
        f"{data['test']['hash']}), {answers}.",
        "An interval is over documents (bootstrap), not over seeds; several seeds add up within each document. "
        "The teacher's row is over the documents that it answered, and differences are over those both answered.",
        *([f"The teacher is {summary['teacher']}."] if summary["teacher"] else []),
        *([f"Every row but the teacher's answers with {', '.join(summary['answers'])}."] if summary["answers"] else []),
        *(
            [f"A method that learns from human labels has {data['train']['labelled']} of the training documents."]
            if data["train"].get("labelled", data["train"]["documents"]) < data["train"]["documents"]
            else []
        ),
        "hallucination: values that stand nowhere in the document, of those given; omission: values of gold left out.",
        "Money: human labels, the teacher's tokens reckoned from its texts, machine hours; prices in config.json. The "
        "teacher's own row: its answers to the test documents.",
    ]


def page(summary: Mapping[str, Any], pictures: Mapping[str, Path]) -> str:
    """One HTML file with everything in it."""

    def table(title: str, rows: Sequence[Sequence[str]]) -> str:
        head = "".join(f"<th>{html.escape(c)}</th>" for c in rows[0])
        body = "".join(
            f"<tr{' class=best' if _won(summary, rows[0], row) else ''}>"
            + "".join(f"<td>{html.escape(c)}</td>" for c in row)
            + "</tr>"
            for row in rows[1:]
        )
        return (
            f"<h2>{html.escape(title)}</h2><div class=wide><table><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table></div>"
        )

    figures = "".join(
        f'<figure><img alt="{html.escape(title)}" src="data:image/png;base64,'
        f'{base64.b64encode(path.read_bytes()).decode()}"></figure>'
        for title, path in pictures.items()
    )
    listed = "".join(f"<li>{html.escape(line)}</li>" for line in notes(summary))
    body = "".join(table(title, rows) for title, rows in tables(summary))
    name = html.escape(summary["name"])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{name}</title><style>{STYLE}</style><main><h1>{name}</h1>"
        f"<p class=verdict>{html.escape(summary['sentence'])}</p><ul>{listed}</ul><div class=figures>{figures}</div>"
        f"{body}<footer>Offramp, commit {html.escape(str(summary['commit']))}, "
        f"{time.strftime('%Y-%m-%d')}</footer></main></html>\n"
    )


def _won(summary: Mapping[str, Any], head: Sequence[str], row: Sequence[str]) -> bool:
    """Whether a table's row is the winner's; a table without sizes shows each method at its largest."""
    name, documents = summary["verdict"]["winner"], summary["verdict"]["documents"]
    size = row[head.index("documents")] if "documents" in head else str(summary["methods"][name]["documents"])
    return row[0] == name and size == str(documents)


STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#0f172a;background:#fff;margin:0}main{max-width:1180px;margin:2rem auto;
padding:0 1rem}h1{font-size:1.6rem;margin:0 0 .5rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}.verdict{font-size:1.1rem;
border-left:4px solid #2563eb;padding:.4rem 1rem;background:#eff6ff}ul{color:#475569;padding-left:1.2rem}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(520px,1fr));gap:1rem}figure{margin:0}img{width:100%}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}th,td{padding:.3rem
.6rem;text-align:right;white-space:nowrap;border-bottom:1px solid #e2e8f0}th{color:#475569;font-weight:600}
th:first-child,td:first-child{text-align:left}tr.best td{background:#f0fdf4;font-weight:600}footer{color:#94a3b8;
margin:2rem 0}
"""


def text_table(summary: Mapping[str, Any]) -> str:
    """The quality table in plain text."""
    rows = tables(summary)[0][1]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def write_cards(config: CompareConfig, folder: Path, summary: Mapping[str, Any], runs: Mapping[str, Path]) -> None:
    """A card for the model that won, and for the best one without a human label where that is another."""
    metric, won = summary["metric"], summary["verdict"]
    order = sorted(summary["curve"], key=lambda m: -(m.get(metric) or {"value": -1})["value"])
    chosen = [m for m in order if (m["method"], m["documents"]) == (won["winner"], won["documents"])]
    chosen += [m for m in order if not m["cost"].get("human_labels")][:1]
    for entry in {m["method"]: m for m in reversed(chosen)}.values():  # of a method's sizes the one that won
        start = f"{entry['method']}-{entry['documents']}-s"
        models = sorted(str(path / "best") for name, path in runs.items() if name.startswith(start))
        text = card(config, summary, entry, models)
        write_whole(_made(folder / "cards") / f"{entry['method']}.md", text)
        for model in models:
            if Path(model).is_dir():
                write_whole(Path(model) / "README.md", text)


def card(config: CompareConfig, summary: Mapping[str, Any], entry: Mapping[str, Any], models: Sequence[str]) -> str:
    data, metric = summary["data"], summary["metric"]
    best_of = entry["method"].partition("@")[2]
    answers = f"Best of {best_of} answers by the rubric" if best_of else "Greedy answers"
    answers = ", with ".join([answers, *summary["answers"]])
    lines = [
        f"# {entry['method']} on {entry['documents']} documents",
        "",
        f"Extracts `{config.task}` documents as JSON. From the comparison `{summary['name']}`: {summary['sentence']}",
        "",
        f"- Models: {', '.join(f'`{model}`' for model in models)} (one a seed)",
        f"- Starter: `{config.starter}`, weights {data.get('starter')}",
        f"- Method: `{entry['method']}`; seeds: {', '.join(map(str, entry['seeds']))}",
        f"- Task: `{config.task}`, version {data['task']} (SHA-256 of its file)",
        f"- Data: train {data['train']['hash']}, selection {data['select']['hash']}, test {data['test']['hash']}",
        f"- Code: commit {summary['commit']}",
        "- Cost: " + ", ".join(f"{COST[k]} {_number(v)}" for k, v in entry["cost"].items() if k in COST and v),
        "",
        "| metric | all | seen groups | unseen groups |",
        "|---|---|---|---|",
    ]
    for name in {metric: "", **QUALITY, **{k: "" for k in entry if k.startswith("exact/")}}:
        if name in entry:
            lines.append(_md_row([name, cell(entry[name]), *(cell(entry[part].get(name)) for part in PARTS)]))
    lines += [
        "",
        "**Limits.** Judged on documents like those of the test file and no others; unseen groups are the better guide "
        f"to new senders. {answers}; intervals are over documents. Where gold has no items, items were not judged.",
    ]
    return "\n".join(lines) + "\n"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def mirror(config: CompareConfig, folder: Path, summary: Mapping[str, Any], pictures: Mapping[str, Path]) -> None:
    """The table and the plots in W&B, in the group of the runs; offline without a key. A failure is one log line."""
    try:
        import wandb

        from rl.mirror import start

        arguments = {
            "project": "offramp",
            "name": f"{config.name}-comparison",
            "group": config.name,
            "job_type": "comparison",
            "dir": str(_made(folder / "logs")),
            "config": config.model_dump(mode="json"),
        }
        run = start({**arguments, "id": None, "resume": None}, 5.0)
        logged: dict[str, Any] = {}
        for title, rows in tables(summary):
            logged[title] = wandb.Table(columns=list(rows[0]), data=[list(row) for row in rows[1:]])
        for title, path in pictures.items():
            logged[f"plots/{title}"] = wandb.Image(str(path))
        run.log(logged)
        run.summary["sentence"] = summary["sentence"]
        run.finish()
    except BaseException as error:  # wandb raises all sorts; a mirror never stops a report
        if isinstance(error, KeyboardInterrupt):
            raise
        log.warning("W&B mirror of the comparison failed (%s: %s)", type(error).__name__, error)
