"""The rubric on receipts made up for this file: what must score the maximum, and what must score less, and where."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml

from rewards.document import Document
from rewards.explain import explain_text
from rewards.rubric import Rubric, RubricScore
from rewards.task import TASK_FOLDER, load_task, task_from_dict

TASK = load_task("receipt")
RUBRIC = Rubric(TASK)
Gold = dict[str, Any]

SHOP = """KEDAI RUNCIT MAJU SDN BHD (123456-X)
NO 12, JALAN BESAR 3/4,
43000 KAJANG, SELANGOR
TEL : 03-8733 1234
GST REG NO: 000123456789
TAX INVOICE
INV NO : CS-0012345  DATE: 12/03/2018 10:22:05
DESCRIPTION  QTY  PRICE  AMOUNT
MILK FULL CREAM 1L  2  6.50  13.00 SR
BREAD WHOLEMEAL  1  3.20  3.20 SR
EGGS GRADE A 10S  1  5.55  5.55 SR
TOTAL (INCL. GST 6%)  21.75
ROUNDING ADJ  -0.05
NETT TOTAL  21.70
CASH  50.00
CHANGE  28.30
GST SUMMARY  AMOUNT(RM)  TAX(RM)
SR @ 6%  20.52  1.23
THANK YOU"""
SHOP_GOLD: Gold = {
    "vendor": "KEDAI RUNCIT MAJU SDN BHD",
    "date": "2018-03-12",
    "items": [
        {"name": "MILK FULL CREAM 1L", "amount": "13.00"},
        {"name": "BREAD WHOLEMEAL", "amount": "3.20"},
        {"name": "EGGS GRADE A 10S", "amount": "5.55"},
    ],
    "tax": "1.23",
    "rounding": "-0.05",
    "total": "21.70",
}

CAFE = """THE BLUE CUP
14 HIGH ROW
LONDON SE1 2AB
24 MAR 2019  13:45
FLAT WHITE
2 X 3.10  6.20
CHEESE TOASTIE
1 X 5.80  5.80
SUBTOTAL  12.00
SERVICE CHARGE 10%  1.20
TOTAL  13.20
VISA  13.20"""
CAFE_GOLD: Gold = {
    "vendor": "THE BLUE CUP",
    "date": "2019-03-24",
    "items": [{"name": "FLAT WHITE", "amount": "6.20"}, {"name": "CHEESE TOASTIE", "amount": "5.80"}],
    "service_charge": "1.20",
    "tax": None,
    "rounding": None,
    "total": "13.20",
}

BON = """Bäckerei Krume GmbH
Hauptstraße 5
10115 Berlin
09.11.2021 08:12
Roggenbrot          4,20 A
Butterbrezel
  3 x 1,10          3,30 A
SUMME EUR           7,50
MWST 7%             0,49
Bar                10,00
Rückgeld            2,50"""
BON_GOLD: Gold = {
    "vendor": "Bäckerei Krume GmbH",
    "date": "2021-11-09",
    "items": [{"name": "Roggenbrot", "amount": "4.20"}, {"name": "Butterbrezel", "amount": "3.30"}],
    "tax": "0.49",
    "rounding": None,
    "total": "7.50",
}

RECEIPTS = {"shop": (SHOP, SHOP_GOLD), "cafe": (CAFE, CAFE_GOLD), "bon": (BON, BON_GOLD)}


def score(text: str, attempt: Mapping[str, Any] | str) -> RubricScore:
    completion = attempt if isinstance(attempt, str) else TASK.canonical(attempt)
    return RUBRIC.score(Document("x", text, "g", None), completion)


def points(found: RubricScore) -> dict[str, float | None]:
    return {finding.path: finding.points for finding in found.findings}


@pytest.mark.parametrize("name", RECEIPTS)
def test_gold_scores_the_maximum(name: str) -> None:
    found = score(*RECEIPTS[name])
    assert found.total == 1.0, explain_text(found)
    assert found.status == "scored"
    assert found.gate is None
    assert set(found.parts.values()) <= {1.0}


@pytest.mark.parametrize("name", RECEIPTS)
def test_spans_are_what_they_say(name: str) -> None:
    text, gold = RECEIPTS[name]
    found = score(text, gold)
    spans = {f.path: text[f.span[0] : f.span[1]] for f in found.findings if f.span is not None}
    assert spans["total"].replace(",", ".").endswith(gold["total"])
    assert spans["items[0].name"] == gold["items"][0]["name"]
    assert gold["vendor"] in spans["vendor"]


def _rows(change: Callable[[list[dict[str, str]]], Any]) -> Callable[[Gold], Any]:
    def apply(gold: Gold) -> None:
        change(gold["items"])

    return apply


def _swap(items: list[dict[str, str]]) -> None:
    items[0]["amount"], items[1]["amount"] = items[1]["amount"], items[0]["amount"]


WHOLESALE: dict[str, Callable[[Gold], Any]] = {
    "all null": lambda g: [g.update(dict.fromkeys(g)), g.update(items=[])],
    "no items": lambda g: g.update(items=[]),
    "one item carries the total": lambda g: g.update(items=[g["items"][0] | {"amount": g["total"]}]),
    "the total line as an item": lambda g: g.update(items=[{"name": "TOTAL", "amount": g["total"]}]),
    "a constant": lambda g: g.update(
        vendor="ABC SDN BHD",
        date="2018-01-01",
        items=[{"name": "ITEM", "amount": "1.00"}],
        tax=None,
        rounding=None,
        total="1.00",
    ),
}


@pytest.mark.parametrize("name", RECEIPTS)
@pytest.mark.parametrize("hack", WHOLESALE)
def test_wholesale_hacks_score_below_half_of_gold(name: str, hack: str) -> None:
    text, gold = RECEIPTS[name]
    attempt = copy.deepcopy(gold)
    WHOLESALE[hack](attempt)
    assert score(text, attempt).total < 0.5


@pytest.mark.parametrize(
    "echo", [SHOP, json.dumps(TASK.schema), "{}", "null", "", '{"vendor": null}', '{"total": NaN}']
)
def test_what_is_no_extraction_scores_almost_nothing(echo: str) -> None:
    found = score(SHOP, echo)
    assert found.total <= 0.05
    assert found.gate in ("parses", "schema")


ADDRESS = {
    "KEDAI RUNCIT MAJU SDN BHD": "43000 KAJANG, SELANGOR",
    "THE BLUE CUP": "LONDON SE1 2AB",
    "Bäckerei Krume GmbH": "10115 Berlin",
}
LOCAL: dict[str, Callable[[Gold], Any]] = {
    "a row twice": _rows(lambda r: r.append(dict(r[0]))),
    "a row dropped": _rows(lambda r: r.pop()),
    "amounts swapped": _rows(_swap),
    "a near miss": _rows(lambda r: r[0].update(amount="13.10")),
    "a wrong name": _rows(lambda r: r[0].update(name="SOMETHING ELSE")),
    "a name cut short": _rows(lambda r: r[0].update(name=r[0]["name"].split()[0][:5])),
    "the vendor as a name": lambda g: g["items"][0].update(name=g["vendor"]),
    "an invented tax": lambda g: g.update(tax="0.77"),
    "an invented discount": lambda g: g.update(discount="1.00"),
    "the wrong day": lambda g: g.update(date=g["date"][:-1] + ("1" if g["date"][-1] != "1" else "2")),
    "an impossible day": lambda g: g.update(date="2018-02-30"),
    "no vendor": lambda g: g.update(vendor=None),
    "no date": lambda g: g.update(date=None),
    "no total": lambda g: g.update(total=None),
    "an address as vendor": lambda g: g.update(vendor={"KEDAI": "43000 KAJANG, SELANGOR", "THE B": "LONDON SE1 2AB",
    "Bäcke": "10115 Berlin"}[g["vendor"][:5]]),
    "part of the vendor": lambda g: g.update(vendor=" ".join(g["vendor"].split()[:-1])),
    "a look-alike in the vendor": lambda g: g.update(vendor=g["vendor"].replace("e", "е").replace("E", "Е")),
    "a zero-width space": lambda g: g.update(vendor=g["vendor"][:4] + "\u200b" + g["vendor"][4:]),
    "a total a cent off": lambda g: g.update(total=f"{float(g['total']) + 0.01:.2f}"),
}  # fmt: skip


@pytest.mark.parametrize("name", RECEIPTS)
@pytest.mark.parametrize("hack", LOCAL)
def test_local_faults_cost(name: str, hack: str) -> None:
    text, gold = RECEIPTS[name]
    attempt = copy.deepcopy(gold)
    LOCAL[hack](attempt)
    found = score(text, attempt)
    assert found.total < 0.99, explain_text(found)


@pytest.mark.parametrize("value", ["50.00", "28.30", "21.75", "20.52", "13.00", "1.23"])
def test_another_amount_as_total(value: str) -> None:
    assert score(SHOP, SHOP_GOLD | {"total": value}).total < 0.85


def test_the_total_before_rounding_is_corrected_by_a_later_line() -> None:
    found = score(SHOP, SHOP_GOLD | {"total": "21.75", "rounding": None})
    assert points(found)["total"] == 0.2
    assert points(found)["rounding"] == 0.25
    assert found.total < 0.95


HOUSE = """JIAWEI CAFE SDN BHD
12/03/2018
ITEM  QTY  U/P  AMT
BEEF NOODLE
1  7.00  7.00
CHINESE TEA
2  0.60  1.20
{}
TOTAL  8.20
"""
HOUSE_GOLD: dict[str, Any] = {
    "vendor": "JIAWEI CAFE SDN BHD",
    "date": "2018-03-12",
    "items": [{"name": "BEEF NOODLE", "amount": "7.00"}, {"name": "CHINESE TEA", "amount": "1.20"}],
    "tax": None,
    "rounding": None,
    "total": "8.20",
}


@pytest.mark.parametrize(
    ("line", "tax"),
    [
        ("TOTAL INCLUDES GST 0%  8.20", "8.20"),  # what the rate of nothing is of
        ("GST @ 0.00 % : 8.20", "8.20"),
        ("THANK YOU", "1.20"),  # TEA is the name of an item, not a misread TVA
    ],
)
def test_no_tax_is_printed(line: str, tax: str) -> None:
    text = HOUSE.format(line)
    assert score(text, HOUSE_GOLD).total == 1.0
    invented = score(text, HOUSE_GOLD | {"tax": tax})
    assert invented.total < 1.0 and points(invented)["tax"] == 0.1


@pytest.mark.parametrize(
    "line", ["GST 10%  0.82", "GST 1 0% 0.82", "GST 0% 0.00", "GST SR 6.0%: RM 0.46", "TVA 0.68", "GSI 6%\n0.46"]
)
def test_a_tax_is_printed(line: str) -> None:
    tax = line.split()[-1]
    assert points(score(HOUSE.format(line), HOUSE_GOLD | {"tax": tax}))["tax"] == 1.0


def test_null_lies_between_wrong_and_right() -> None:
    for field, wrong in (("vendor", "TAMAN JAYA"), ("date", "2018-12-03"), ("total", "99.00"), ("tax", "9.99")):
        values = [
            score(SHOP, SHOP_GOLD | {field: value}).parts["grounded"] for value in (wrong, None, SHOP_GOLD[field])
        ]
        assert values[0] is not None and values[1] is not None and values[2] is not None
        assert values[0] < values[1] < values[2], field


def test_right_rows_earn_part_of_the_score() -> None:
    totals = []
    for right in range(4):
        items = [row if i < right else {"name": "WRONG", "amount": "77.77"} for i, row in enumerate(SHOP_GOLD["items"])]
        totals.append(score(SHOP, SHOP_GOLD | {"items": items}).total)
    assert totals == sorted(totals)
    assert len(set(totals)) == 4


def test_a_better_name_scores_more() -> None:
    names = ["WRONG THING", "MILK FUL CREM", "MILK FULL CREAM 2L", "MILK FULL CREAM 1L"]
    totals = []
    for name in names:
        attempt = copy.deepcopy(SHOP_GOLD)
        attempt["items"][0]["name"] = name
        totals.append(score(SHOP, attempt).total)
    assert totals == sorted(totals)
    assert len(set(totals)) == len(names)


def test_a_number_beside_words_is_no_name() -> None:
    attempt = copy.deepcopy(SHOP_GOLD)
    attempt["items"][0]["name"] = attempt["items"][0]["amount"]
    found = score(SHOP, attempt)
    assert found.total < score(SHOP, SHOP_GOLD).total
    assert any(finding.why == "a number of a line that has words" for finding in found.findings)


@pytest.mark.parametrize(
    ("vendor", "least", "most"),
    [
        ("KEDAI RUNCIT MAJU SDN BHD", 1.0, 1.0),
        ("Kedai Runcit Maju Sdn. Bhd.", 1.0, 1.0),
        ("KEDAI RUNCIT MAJU SDN BHD (123456-X)", 0.9, 1.0),
        ("KEDAI RUNCIT MAJU", 0.2, 0.6),
        ("KEDAI RUNCIT NAJU SDN BHD", 0.3, 0.6),
        ("TAX INVOICE", 0.0, 0.1),
        ("NO 12, JALAN BESAR 3/4,", 0.0, 0.1),
        ("MILK FULL CREAM 1L", 0.0, 0.1),
        ("BATA PRIMAVERA", 0.0, 0.1),
    ],
)
def test_vendor_points(vendor: str, least: float, most: float) -> None:
    value = points(score(SHOP, SHOP_GOLD | {"vendor": vendor}))["vendor"]
    assert value is not None
    assert least <= value <= most


def test_a_name_over_two_lines() -> None:
    text = SHOP.replace("KEDAI RUNCIT MAJU SDN BHD (123456-X)", "KEDAI RUNCIT\nMAJU SDN BHD\n(123456-X)")
    assert score(text, SHOP_GOLD).total == 1.0


def test_row_order_and_white_space_do_not_matter() -> None:
    shuffled = SHOP_GOLD | {"items": SHOP_GOLD["items"][::-1]}
    assert score(SHOP, shuffled).total == 1.0
    assert score(SHOP, json.dumps(json.loads(TASK.canonical(SHOP_GOLD)), indent=2)).total == 1.0


def test_an_item_line_printed_twice_may_be_extracted_twice() -> None:
    text = CAFE.replace("SUBTOTAL  12.00", "FLAT WHITE\n2 X 3.10  6.20\nSUBTOTAL  18.20").replace("13.20", "19.40")
    gold = CAFE_GOLD | {"items": [*CAFE_GOLD["items"], CAFE_GOLD["items"][0]], "total": "19.40"}
    assert score(text, gold).total == 1.0
    assert score(text, gold | {"items": CAFE_GOLD["items"]}).total < 0.9


def test_month_first_where_the_document_says_so() -> None:
    text = CAFE.replace("24 MAR 2019", "03/04/2019").replace("LONDON SE1 2AB", "DENVER, CO 80014\nSALES TAX ID 1")
    assert score(text, CAFE_GOLD | {"date": "2019-03-04"}).total == 1.0
    assert score(text, CAFE_GOLD | {"date": "2019-04-03"}).total < 1.0
    assert score(SHOP, SHOP_GOLD | {"date": "2018-12-03"}).total < 0.95


def test_an_empty_document_gives_nothing_for_something() -> None:
    assert score("", SHOP_GOLD).total < 0.2
    assert score("", {"items": []}).total <= 1.0  # nothing to read, nothing to ground: no crash, no error
    assert score("", {"items": []}).status == "scored"


def test_repeatable_and_shared_index() -> None:
    completions = [
        TASK.canonical(SHOP_GOLD),
        "{}",
        TASK.canonical(SHOP_GOLD | {"total": "50.00"}),
        TASK.canonical(SHOP_GOLD),
    ]
    document = Document("x", SHOP, "g", None)
    group = RUBRIC.score_group(document, completions)
    assert group == [RUBRIC.score(document, completion) for completion in completions]
    assert group == RUBRIC.score_group(document, completions)


def test_gold_is_never_read() -> None:
    other = Document("x", SHOP, "g", {"vendor": "SOMEBODY ELSE", "items": [], "total": "0.00"})
    assert RUBRIC.score(other, TASK.canonical(SHOP_GOLD)) == score(SHOP, SHOP_GOLD)


@pytest.mark.parametrize(
    "completion",
    [
        '{"vendor":"X","date":null,"items":[{"name":"A","amount":"1.00"}],"tax":null,"rounding":null,"total":"1.00","extra":1}',
        '{"vendor":5,"date":null,"items":[],"tax":null,"rounding":null,"total":"1.00"}',
        '{"vendor":"X","date":"12/03/2018","items":[],"tax":null,"rounding":null,"total":"1.00"}',
        '{"vendor":"X","date":null,"items":[{"name":"A"}],"tax":null,"rounding":null,"total":"1.00"}',
        '{"vendor":"X","date":null,"items":[],"tax":null,"rounding":null,"total":21.70}',
        '{"vendor":"X","date":null,"items":[],"tax":null,"rounding":null,"total":"1,234.50"}',
    ],
)
def test_the_schema_gate(completion: str) -> None:
    found = score(SHOP, completion)
    assert found.gate == "schema"
    assert 0.0 < found.total <= 0.05
    assert found.findings


def test_explain_names_every_field() -> None:
    text = explain_text(score(SHOP, SHOP_GOLD | {"total": "50.00"}))
    for part in ("reward 0.", "grounded", "reconciles", "covers", 'vendor "KEDAI', "[2]", 'amount "5.55"', "relations"):
        assert part in text


def test_a_naive_rubric_is_hacked() -> None:
    raw = yaml.safe_load((TASK_FOLDER / "receipt.yaml").read_text())
    raw["rubric"]["rewards"] = {"has_keys": 1, "adds_up": 1, "words_in_source": 1}
    naive = Rubric(task_from_dict(raw))
    document = Document("x", SHOP, "g", None)
    hack = {"vendor": "TAX", "date": "2018-03-12", "tax": "21.70", "rounding": "21.70", "total": "21.70"}
    hack |= {"items": [{"name": "TOTAL", "amount": "21.70"}], "discount": "21.70"}
    assert naive.score(document, TASK.canonical(hack)).total > 0.8
    assert RUBRIC.score(document, TASK.canonical(hack)).total < 0.4


HOSTILE_TEXTS = {
    "brackets": "(" * 50_000,
    "brackets with digits": "(1" * 25_000,
    "numbers": "1.00 " * 20_000,
    "spaces": " " * 100_000 + "x",
    "lines": "\n" * 50_000,
    "rows": "TEA  1  1.00  1.00\n" * 1_500,
    "totals": "TOTAL 1.00\n" * 3_000,
    "dates": "01/02/2018 " * 10_000,
    "months": "may " * 20_000,
    "dashes": "-" * 50_000,
    "one word": "a" * 100_000,
    "invisible": "\u200b\u202e" * 20_000,
    "digits": "9" * 50_000,
    "other digits": "١٢٣٫٤٥ " * 5_000,
}


@pytest.mark.parametrize("name", HOSTILE_TEXTS)
def test_hostile_documents_take_little_time(name: str) -> None:
    start = time.process_time()
    found = score(HOSTILE_TEXTS[name], SHOP_GOLD)
    assert found.status == "scored", found.error
    assert time.process_time() - start < 3.0


def test_a_hundred_rows() -> None:
    items = [{"name": f"TEA {i}", "amount": "1.00"} for i in range(100)]
    start = time.process_time()
    found = score(
        "\n".join(f"TEA {i}  1.00" for i in range(100)) + "\nTOTAL  100.00",
        SHOP_GOLD | {"items": items, "total": "100.00"},
    )
    assert time.process_time() - start < 1.0
    assert found.parts["covers"] == 1.0


# --- invoices ---------------------------------------------------------------------------------------------------------

INVOICE_TASK = load_task("invoice")
INVOICE = """NORTHWIND SUPPLIES LTD
8 DOCK ROAD
BRISTOL BS1 4RN
VAT NO: 123456789
INVOICE NO: INV-20871
INVOICE DATE: 05 JUN 2020
DUE DATE: 05 JUL 2020
BILL TO:
ACME BAKERS LTD
3 MILL LANE
DESCRIPTION  QTY  UNIT PRICE  AMOUNT
PAPER BAGS 250G  10  £4.50  £45.00
LABELS ROUND  3  £7.25  £21.75
SUBTOTAL  £66.75
DISCOUNT  -£6.75
SHIPPING  £5.00
VAT 20%  £13.00
TOTAL DUE  £78.00"""
INVOICE_GOLD: Gold = {
    "vendor": "NORTHWIND SUPPLIES LTD",
    "invoice_number": "INV-20871",
    "date": "2020-06-05",
    "currency": "GBP",
    "items": [
        {"name": "PAPER BAGS 250G", "quantity": "10", "unit_price": "4.50", "amount": "45.00"},
        {"name": "LABELS ROUND", "quantity": "3", "unit_price": "7.25", "amount": "21.75"},
    ],
    "subtotal": "66.75",
    "discount": "6.75",
    "shipping": "5.00",
    "tax": "13.00",
    "total": "78.00",
}


def _invoice(**changes: Any) -> RubricScore:
    completion = INVOICE_TASK.canonical(INVOICE_GOLD | changes)
    return Rubric(INVOICE_TASK).score(Document("i", INVOICE, "g", None), completion)


def test_a_gold_invoice() -> None:
    assert _invoice().total == 1.0, explain_text(_invoice())


def test_the_amount_that_a_rate_of_nothing_is_of_is_itself() -> None:
    text = INVOICE.replace("SHIPPING  £5.00", "SHIPPING VAT 0%  £5.00")
    found = Rubric(INVOICE_TASK).score(Document("i", text, "g", None), INVOICE_TASK.canonical(INVOICE_GOLD))
    assert text != INVOICE and points(found)["shipping"] == 1.0


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"vendor": "ACME BAKERS LTD"}, "vendor"),
        ({"invoice_number": "20871"}, "invoice_number"),
        ({"invoice_number": "INV-20872"}, "invoice_number"),
        ({"invoice_number": "123456789"}, "invoice_number"),
        ({"date": "2020-07-05"}, "date"),
        ({"currency": "EUR"}, "currency"),
        ({"subtotal": "78.00"}, "subtotal"),
        ({"shipping": "13.00"}, "shipping"),
        ({"total": "66.75"}, "total"),
        ({"tax": None}, "tax"),
    ],
)
def test_invoice_faults_cost_where_they_are(changes: dict[str, Any], field: str) -> None:
    found = _invoice(**changes)
    assert found.total < 0.985
    value = points(found)[field]
    assert value is not None
    assert value <= 0.5


@pytest.mark.parametrize("leaf", [{"quantity": "11"}, {"unit_price": "4.60"}, {"amount": "45.10"}])
def test_quantity_times_price(leaf: dict[str, str]) -> None:
    items = [INVOICE_GOLD["items"][0] | leaf, INVOICE_GOLD["items"][1]]
    found = _invoice(items=items)
    assert (found.parts["reconciles"] or 0) < 1.0
    assert (found.parts["grounded"] or 0) < 1.0
