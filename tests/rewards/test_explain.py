"""The tree and the page of one score."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

from rewards.document import Document
from rewards.explain import explain_text, names, plain, tree
from rewards.explain_html import explain_html
from rewards.rubric import Rubric, RubricScore
from rewards.score import Finding
from rewards.task import load_task

TASK = load_task("receipt")
RUBRIC = Rubric(TASK)
TEXT = "KEDAI MAJU SDN BHD\nDATE: 12/03/2018\nMILK 1L  13.00\nBREAD  3.20\nTOTAL  16.20\nCASH  20.00"
GOLD = {
    "vendor": "KEDAI MAJU SDN BHD",
    "date": "2018-03-12",
    "items": [{"name": "MILK 1L", "amount": "13.00"}, {"name": "BREAD", "amount": "3.20"}],
    "total": "16.20",
}
DOCUMENT = Document("r1", TEXT, "g", None)


def answer(**changes: object) -> str:
    return TASK.canonical(GOLD | changes)


def page(completion: str, document: Document = DOCUMENT) -> str:
    return explain_html(RUBRIC.score(document, completion), document, completion, TASK)


def test_every_finding_has_the_check_it_comes_from() -> None:
    score = RUBRIC.score(DOCUMENT, answer(total="20.00", items=GOLD["items"][:1], date="1850-01-01"))  # type: ignore[index]
    assert len(score.checks) == len(score.findings)
    said = {(check, finding.path) for check, finding in zip(score.checks, score.findings, strict=True)}
    assert {
        ("grounded", "total"),
        ("reconciles", "relations.total"),
        ("covers", "items"),
        ("plausible", "date"),
    } <= said
    assert RUBRIC.score(DOCUMENT, "{").checks == ("parses",)
    assert set(RUBRIC.score(DOCUMENT, "{}").checks) == {"schema"}


def test_the_tree_groups_by_field() -> None:
    branches = {branch.name: branch for branch in tree(RUBRIC.score(DOCUMENT, answer(total="20.00")), DOCUMENT)}
    assert branches["total"].value == "20.00"
    assert branches["total"].grade == "part"
    assert branches["total"].remarks[0].evidence == "20.00"
    assert branches["total"].remarks[0].line == 6
    row = branches["items"].children["[1]"]
    assert row.path == "items[1]"
    assert [leaf.path for leaf in row.children.values()] == ["items[1].name", "items[1].amount"]
    assert branches["relations"].grade == "wrong"


def test_paths_of_every_kind() -> None:
    assert names("items[2].amount") == names("items.2.amount") == ["items", "[2]", "amount"]
    assert names("") == ["(whole)"]
    assert names("a.b") == ["a", "b"]


def test_the_text_quotes_the_evidence() -> None:
    text = explain_text(RUBRIC.score(DOCUMENT, answer(total="20.00")), DOCUMENT, TASK)
    assert 'total "20.00"' in text
    assert '← line 6: "20.00"' in text
    assert re.search(r"grounded +0\.\d+ +weight 4", text)
    without = explain_text(RUBRIC.score(DOCUMENT, answer()))
    assert "← [0:18]" in without


def test_a_terminal_is_not_steered() -> None:
    assert plain("\x1b[2J\u202eevil\u200b\n") == "\\x1b[2J\\u202eevil\\u200b\\n"
    hostile = Document("r1", TEXT.replace("MILK 1L", "MI\x1b[2JLK"), "g", None)
    shown = explain_text(RUBRIC.score(hostile, answer(vendor="\x1b]0;owned\x07")), hostile, TASK)
    assert "\x1b" not in shown
    assert "\x07" not in shown


class Page(HTMLParser):
    """Tags, ids, fragment links and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(str(value))
            if name in ("href", "src", "action", "data"):
                self.links.append(str(value))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_links_field_and_evidence_both_ways() -> None:
    found = Page(page(answer(total="20.00", items=GOLD["items"][:1])))  # type: ignore[index]
    assert len(found.ids) == len(set(found.ids))
    assert all(link.startswith("#") and link[1:] in found.ids for link in found.links)
    assert any(link.startswith("#s") for link in found.links)
    assert any(link.startswith("#f") for link in found.links)
    # The document stands in the page whole.
    assert all(line in found.text for line in TEXT.split("\n"))


def test_the_page_stands_alone_and_runs_nothing() -> None:
    html = page(answer())
    found = Page(html)
    assert not {"script", "img", "link", "iframe", "object", "form", "base"} & set(found.tags)
    assert not [name for name in found.attributes if name.startswith("on")]
    assert "default-src 'none'" in html
    assert not re.search(r"https?://|url\(|@import", html)


def test_hostile_text_is_escaped() -> None:
    evil = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\"'&lt;\u202e\x00"
    document = Document(evil, TEXT.replace("BREAD", evil), "g", None)
    items = [{"name": evil, "amount": "13.00"}]
    for completion in (answer(vendor=evil, items=items), json.dumps({evil: evil}), evil, "\ud800"):
        html = page(completion, document)
        found = Page(html)
        assert not {"script", "img"} & set(found.tags)
        assert "onerror" not in found.attributes
        assert "\u202e" not in html
        assert "\x00" not in html
    assert "U+202E" in Page(page(answer(vendor=evil), document)).text


def test_overlapping_and_odd_spans_are_drawn() -> None:
    spans = [(0, 18), (6, 10), (3, 8), (0, 18), (10, 40), (5, 5), (50, 10_000)]
    findings = tuple(Finding(f"f{i}", i, span, 0.5, "x") for i, span in enumerate(spans))
    score = RubricScore(0.5, "scored", None, {"mine": 0.5}, findings)
    found = Page(explain_html(score, DOCUMENT, "{}", None))
    assert len(found.ids) == len(set(found.ids))
    assert "KEDAI MAJU SDN BHD" in found.text
    assert {f"s{i}" for i in (0, 1, 2, 3, 4, 6)} <= set(found.ids)


def test_a_score_that_failed_is_shown_too() -> None:
    score = RubricScore(0.0, "error", None, {}, (), "mine: <b>boom</b>")
    assert "<b>boom" not in explain_html(score, DOCUMENT, "{}", TASK)
    assert explain_text(score, DOCUMENT, TASK) == "error  mine: <b>boom</b>"
    assert "Stopped at the gate" in page("{")
