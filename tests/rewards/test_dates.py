from __future__ import annotations

import datetime

import pytest

from rewards.dates import DATE_FORMATS, DateFormat, date, find_dates, iso

DMY: list[DateFormat] = ["ymd", "dmy", "d_mon_y", "mon_d_y", "y_mon_d"]
PRINTED = {
    "11/02/18": "2018-02-11", "11/02/2018": "2018-02-11", "1/2/2018": "2018-02-01", "11-02-2018": "2018-02-11",
    "11.02.2018": "2018-02-11", "11.02.18": "2018-02-11", "2018-02-11": "2018-02-11", "2018/02/11": "2018-02-11",
    "2018.02.11": "2018-02-11", "11 / 02 / 2018": "2018-02-11", "31/12/99": "1999-12-31", "01/01/69": "2069-01-01",
    "24-MAR-2018": "2018-03-24", "24-MAR-18": "2018-03-24", "24 Mar 2018": "2018-03-24", "24MAR2018": "2018-03-24",
    "24/MAR/2018": "2018-03-24", "24 MARCH 2018": "2018-03-24", "14 DECEMBER, 2017": "2017-12-14",
    "3rd June 2018": "2018-06-03",
    "MAR 24, 2018": "2018-03-24", "March 24 2018": "2018-03-24", "Dec. 1, 2018": "2018-12-01",
    "2018 MAR 24": "2018-03-24",
    "24. März 2018": "2018-03-24", "24 février 2018": "2018-02-24", "24 de maio de 2018": "2018-05-24",
    "5 Ogos 2018": "2018-08-05",
    # no date
    "31/02/2018": None, "13/13/2018": None, "00/01/2018": None, "12": None, "12/2018": None, "2018": None,
    "banana": None,
    "11/02/018": None, "11/02-2018": None, "1234/02/2018": None, "32 MAR 2018": None, "29/02/2018": None, "": None,
    "29/02/2020": "2020-02-29",
}  # fmt: skip


@pytest.mark.parametrize(("text", "day"), PRINTED.items())
def test_printed_dates(text: str, day: str | None) -> None:
    found = date(text, DMY)
    assert (found and found.isoformat()) == day


def test_an_undeclared_form_is_not_read() -> None:
    assert date("24/03/2018", ["ymd"]) is None
    assert date("24 MAR 2018", ["dmy"]) is None
    assert date("03/24/2018", ["mdy"]) == datetime.date(2018, 3, 24)


def test_two_declared_readings_are_ambiguous() -> None:
    assert date("03/04/2018", ["dmy", "mdy"]) is None
    assert date("13/04/2018", ["dmy", "mdy"]) == datetime.date(2018, 4, 13)
    assert date("04/04/2018", ["dmy", "mdy"]) == datetime.date(2018, 4, 4)


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("DATE: 24-MAR-18 9:05", ["2018-03-24"]),
        ("11/02/18 19 : 21  SLIP NO. : 6030098553", ["2018-02-11"]),
        ("DUE 01/03/2018, PAID 02/03/2018", ["2018-03-01", "2018-03-02"]),
        ("REGISTER 8 / DEC 30, 2025 / 20:13", ["2025-12-30"]),
        ("608  #44 12  AUG 25, 2025 12:12", ["2025-08-25"]),
        ("10.30.15 and 1.234.567,00 and 03-42601064 and 13:00:12", []),
        ("TEL 03-5519 0823  INV 2018/02/111", []),
        ("MAR 24 10:05", []),
    ],
)
def test_dates_in_a_line(text: str, days: list[str]) -> None:
    assert [day.isoformat() for m in find_dates(text, DMY) for day in {d for _, d in m.readings}] == days


def test_offsets() -> None:
    text = "DATE: 24-MAR-2018 X"
    (mention,) = find_dates(text, DATE_FORMATS)
    assert text[mention.start : mention.end] == "24-MAR-2018"


@pytest.mark.parametrize(
    "value", ["2018-2-1", "2018-02-30", "20180201", " 2018-02-01", "2018-02-01\n", "٢٠١٨-02-01", None, 5]
)
def test_only_iso_is_canonical(value: object) -> None:
    assert iso(value) is None


def test_iso() -> None:
    assert iso("2018-02-01") == datetime.date(2018, 2, 1)
