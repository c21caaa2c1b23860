"""The client against a server that misbehaves: trouble is a value with a name, in time, and within the cost cap."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rewards import endpoint as endpoint_module
from rewards.chat import Answer, Endpoint, Request, Trouble, strict_schema
from rewards.endpoint import Client
from rewards.errors import ConfigError, InfraError
from rewards.transport import retry_after
from tests.endpoint_stub import serving, settings

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
PRICES = {"prompt_price": 1.0, "completion_price": 4.0}


def good(body: dict[str, Any]) -> str:
    return json.dumps({"a": len(body["messages"][0]["content"])})


def check(text: str) -> str | None:
    try:
        return None if set(json.loads(text)) == {"a"} else f"not the schema: {text[:40]}"
    except ValueError:
        return f"not JSON: {text[:40]}"


def ask(text: str = "hello", **changes: Any) -> Request:
    return Request(({"role": "user", "content": text},), SCHEMA, max_tokens=50, check=check, **changes)


def client(url: str, **changes: Any) -> Client:
    return Client(Endpoint.model_validate(settings(url, **changes)), "judge.endpoint")


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(endpoint_module, "LONGEST_BACKOFF_S", 0.04)


MISBEHAVIOURS = {
    "429": "rate", "500": "server", "503": "server", "408": "server", "reset": "connection", "half json": "malformed",
    "short body": "connection", "not json": "malformed", "no choices": "malformed", "surrogate": "malformed",
    "no content": "malformed", "half content": "content", "wrong schema": "content", "prose": "content",
    "refuse": "refused", "cut": "truncated", "filter": "refused", "400": "client", "401": "client", "404": "client",
    "redirect": "client",
}  # fmt: skip


@pytest.mark.parametrize(("how", "kind"), MISBEHAVIOURS.items())
def test_trouble_has_a_name(how: str, kind: str) -> None:
    with serving(good, lambda number, body: how) as stub:
        outcome = client(stub.url).complete(ask())
        assert isinstance(outcome, Trouble) and outcome.kind == kind and outcome.message
        retried = kind in ("rate", "server", "connection", "malformed", "content")
        assert len(stub.bodies) == (3 if retried else 1)  # what will not change is not asked again


@pytest.mark.parametrize("how", ["429", "500", "reset", "half json", "half content", "no content"])
def test_trouble_that_passes(how: str) -> None:
    with serving(good, lambda number, body: how if number < 2 else "ok") as stub:
        outcome = client(stub.url).complete(ask("four"))
        assert isinstance(outcome, Answer) and outcome.text == '{"a": 4}'


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_deadline_holds_for_the_whole_exchange(how: str) -> None:
    with serving(good, lambda number, body: how) as stub:
        start = time.monotonic()
        outcome = client(stub.url, timeout_s=0.4, attempts=2).complete(ask())
        assert isinstance(outcome, Trouble) and outcome.kind == "timeout" and "0.4 s" in outcome.message
        assert time.monotonic() - start < 15.0  # a drip would take 20 s and give an answer


def test_no_server() -> None:
    with serving(good) as stub:
        url = stub.url
    outcome = client(url, attempts=2).complete(ask())
    assert isinstance(outcome, Trouble) and outcome.kind == "connection"


def test_many_at_once_meet_every_trouble() -> None:
    hows = ["ok", "429", "ok", "500", "half json", "ok", "reset", "wrong schema"]
    tries: Counter[int] = Counter()

    def behave(number: int, body: dict[str, Any]) -> str:
        size = len(body["messages"][0]["content"])
        tries[size] += 1
        return hows[(size + tries[size]) % len(hows)]  # each request begins elsewhere, and none meets only trouble

    with serving(good, behave) as stub:
        asking = client(stub.url, attempts=12)
        outcomes = dict(asking.complete_all([ask("x" * n) for n in range(1, 61)]))
        assert [json.loads(outcomes[n - 1].text)["a"] for n in range(1, 61)] == list(range(1, 61))  # type: ignore[union-attr]
        assert asking.counts["retries"] == len(stub.bodies) - 60


def test_budget_of_retries() -> None:
    with serving(good, lambda number, body: "500") as stub:
        asking = client(stub.url, attempts=5, retries=7)
        outcomes = [outcome for _, outcome in asking.complete_all([ask(str(n)) for n in range(20)])]
        assert all(isinstance(outcome, Trouble) and outcome.kind == "server" for outcome in outcomes)
        assert len(stub.bodies) == 27 and asking.counts["trouble/server"] == 20


def test_cost_cap_holds_whatever_the_server_says() -> None:
    for how in ("ok", "no usage", "usage huge", "usage odd", "half content"):
        with serving(good, lambda number, body, how=how: how) as stub:  # type: ignore[misc]
            asking = client(stub.url, attempts=1, max_cost=0.01, **PRICES)
            outcomes = [outcome for _, outcome in asking.complete_all([ask("w" * 3000 + str(n)) for n in range(30)])]
            spent = sum(isinstance(o, Answer) or o.kind != "budget" for o in outcomes)
            assert 3 <= spent < 30 and len(stub.bodies) == spent
            assert 0.0 < asking.cost <= 0.01, how
            assert (asking.counts["usage_doubted"] > 0) == (how in ("no usage", "usage huge", "usage odd"))


def test_cap_of_tokens_and_what_was_spent_before() -> None:
    with serving(good) as stub:
        asking = client(stub.url, max_total_tokens=40)
        outcome = asking.complete(ask())
        assert isinstance(outcome, Trouble) and outcome.kind == "budget" and not stub.bodies
        before = Client(Endpoint.model_validate(settings(stub.url, max_cost=1.0, **PRICES)), "teacher", spent=1.0)
        assert isinstance(before.complete(ask()), Trouble) and not stub.bodies


def test_cache_outlives_the_client_and_knows_what_matters(tmp_path: Path) -> None:
    cache = str(tmp_path / "folder" / "answers.sqlite")
    with serving(good) as stub:
        first = client(stub.url, cache=cache, **PRICES).complete(ask("abc"))
        again = client(stub.url, cache=cache, **PRICES)
        second = again.complete(ask("abc"))
        assert isinstance(first, Answer) and isinstance(second, Answer)
        assert (second.text, second.cached, again.cost, len(stub.bodies)) == (first.text, True, 0.0, 1)
        client(stub.url, cache=cache, model="other").complete(ask("abc"))
        client(stub.url, cache=cache).complete(ask("abc", seed=1))
        client(stub.url, cache=cache).complete(ask("abc", temperature=0.5))
        client(stub.url, cache=cache, extra={"top_p": 0.5}).complete(ask("abc"))
        client(stub.url, cache=cache).complete(ask("a receipt"))
        assert len(stub.bodies) == 6
    for file in (tmp_path / "folder").iterdir():
        assert b"a receipt" not in file.read_bytes()  # no text of a document is kept


def test_trouble_is_not_cached(tmp_path: Path) -> None:
    with serving(good, lambda number, body: "cut" if number == 0 else "ok") as stub:
        asking = client(stub.url, cache=str(tmp_path / "c"))
        assert isinstance(asking.complete(ask()), Trouble)
        assert isinstance(asking.complete(ask()), Answer)


def test_cache_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("a diary, and a long one at that" * 100)
    with pytest.raises(InfraError, match="no cache can be kept there"):
        client("http://127.0.0.1:1/v1", cache=str(tmp_path / "c"))


def test_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "sk-secret-123")
    with serving(good, lambda number, body: "401") as stub:  # the stub sends the key back
        outcome = client(stub.url, key_env="A_KEY").complete(ask())
        assert stub.headers[0]["Authorization"] == "Bearer sk-secret-123"
        assert isinstance(outcome, Trouble) and "key_env" in outcome.message and "sk-secret" not in str(outcome)
    monkeypatch.delenv("A_KEY")
    with pytest.raises(ConfigError, match=r"key_env=A_KEY: not set"):
        client("http://127.0.0.1:1/v1", key_env="A_KEY")


def test_a_limit_is_everyones(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(good, lambda number, body: "429" if number == 0 else "ok") as stub:
        asking = client(stub.url, concurrency=1)
        asking.complete(ask())
        assert asking._not_before > 0.0
    assert [retry_after(text) for text in ("2", "x", None, "-3", "inf", "nan")] == [2.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0  # long past


def test_stopping_the_iteration_stops_asking() -> None:
    go = threading.Event()
    with serving(good, lambda number, body: "ok" if number == 0 or go.wait(60) else "500") as stub:
        for _ in client(stub.url, concurrency=2).complete_all([ask(str(n)) for n in range(500)]):
            break
        go.set()
        time.sleep(0.3)
        assert len(stub.bodies) <= 4
        assert threading.active_count() < 60


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"base_url": "ftp://x/v1"}, "base_url"),
        ({"base_url": "http://me:pass@x/v1"}, "base_url"),
        ({"attempts": 0}, "attempts"),
        ({"max_cost": 1.0}, "max_cost needs prompt_price"),
        ({"api_key": "sk-1"}, "api_key"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Endpoint.model_validate(settings("http://127.0.0.1:1/v1") | changes)


def test_body_is_what_the_endpoint_takes() -> None:
    with serving(good) as stub:
        client(stub.url, structured="strict", extra={"max_tokens": None, "max_completion_tokens": 9}).complete(ask())
        client(stub.url, structured="object").complete(ask())
        client(stub.url, structured="text").complete(ask())
    strict, plain_object, text = stub.bodies
    assert strict["response_format"]["json_schema"]["strict"] is True
    assert "max_tokens" not in strict and strict["max_completion_tokens"] == 9 and strict["temperature"] == 0.0
    assert plain_object["response_format"] == {"type": "json_object"} and "response_format" not in text


def test_a_grammar_takes_the_place_of_the_schema_and_is_no_token_of_the_prompt() -> None:
    grammar = "root ::= " + '"x" | ' * 50_000 + '"y"'
    with serving(good) as stub:
        asking = client(stub.url, structured="grounded")
        assert isinstance(asking.complete(ask(grammar=lambda: grammar)), Answer)
        assert asking.counts["usage_doubted"] == 0
        asking.complete(ask("no document"))  # a judge's question: its schema stays
        client(stub.url, structured="schema").complete(ask(grammar=lambda: 1 / 0))
    grounded, schema, other = stub.bodies
    assert grounded["structured_outputs"] == {"grammar": grammar} and "response_format" not in grounded
    assert schema["response_format"]["json_schema"]["strict"] is False and "structured_outputs" not in schema
    assert "structured_outputs" not in other


def test_strict_schema() -> None:
    leaf = {"enum": ["x"], "type": "string"}
    schema = {
        "type": "object",
        "required": ["a"],
        "properties": {
            "a": {"type": "string", "minLength": 1, "pattern": "^x"},
            "b": {"type": "array", "maxItems": 3, "items": {"type": "object", "properties": {"c": leaf}}},
        },
    }
    strict = strict_schema(schema)
    assert strict["required"] == ["a", "b"] and strict["additionalProperties"] is False
    assert strict["properties"]["a"] == {"type": "string"}
    below = strict["properties"]["b"]
    assert below["type"] == ["array", "null"] and "maxItems" not in below
    assert below["items"]["properties"]["c"] == {"type": ["string", "null"], "enum": ["x", None]}
