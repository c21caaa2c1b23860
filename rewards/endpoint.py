"""A client for any OpenAI-compatible chat endpoint: deadlines, retries with a budget, a cache on disk, a cost cap.

Standard library only. An endpoint's trouble is a value (`Trouble`), never an exception and never an answer; what a user
has to mend (a key that is not set, a bad address) is a ConfigError before the first request.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rewards.answer_cache import AnswerCache
from rewards.chat import RETRIED, Answer, Endpoint, Kind, Request, Trouble, read_reply, strict_schema, tokens_of
from rewards.errors import ConfigError
from rewards.transport import Reply, Target, TransportFault, post

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
LONGEST_RETRY_AFTER_S = 120.0
"""A server that asks for a longer wait is asked again after this one."""


class Client:
    """Asks one endpoint, from several threads. `counts` has requests, cached, retries, and each kind of trouble."""

    def __init__(self, endpoint: Endpoint, what: str, spent: float = 0.0) -> None:
        """what: the section of the configuration, for messages.  spent: money that counts into the cap already."""
        self.endpoint = endpoint
        self.what = what
        self.counts: Counter[str] = Counter()
        self.cost, self.tokens = spent, 0
        self._reserved_cost, self._reserved_tokens = 0.0, 0
        self._retries = endpoint.retries
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._jitter = random.Random(0)
        self._cache = AnswerCache(endpoint.cache) if endpoint.cache is not None else None
        self._key = ""
        if endpoint.key_env is not None:
            self._key = os.environ.get(endpoint.key_env, "").strip()
            if not self._key:
                raise ConfigError(f"{what}.key_env={endpoint.key_env}: not set in the environment; export it")
            if not (self._key.isascii() and self._key.isprintable()):
                raise ConfigError(f"{what}.key_env={endpoint.key_env}: its value is no key; export it again")
        try:
            self._target = Target.of(endpoint.base_url)
        except ValueError as fault:
            raise ConfigError(f"{what}.base_url={endpoint.base_url}: {fault}") from None

    def complete_all(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer | Trouble]]:
        """(index, outcome) as they come. Stopping the iteration stops asking; what is under way is left to its end."""
        done: queue.SimpleQueue[tuple[int, Answer | Trouble | BaseException]] = queue.SimpleQueue()
        stop, numbers = threading.Event(), iter(range(len(requests)))

        def work() -> None:
            while not stop.is_set():
                with self._lock:
                    i = next(numbers, None)
                if i is None:
                    return
                try:
                    done.put((i, self.complete(requests[i], stop)))
                except BaseException as fault:  # of ours: it belongs to the caller
                    done.put((i, fault))

        for _ in range(min(self.endpoint.concurrency, len(requests))):
            threading.Thread(target=work, daemon=True).start()  # daemons: ^C does not wait for a slow server
        try:
            for _ in requests:
                i, outcome = done.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                yield i, outcome
        finally:
            stop.set()

    def complete(self, request: Request, stop: threading.Event | None = None) -> Answer | Trouble:
        """One answer, from the cache or from the endpoint, after as many tries as the budgets allow."""
        body = self._body(request)
        key = self._cache_key(request, body)
        self._count("requests")
        if self._cache is not None and (found := self._cache.get(key)) is not None:
            self._count("cached")
            return Answer(found["text"], found["prompt_tokens"], found["completion_tokens"], 0.0, True)
        stop = stop or threading.Event()
        outcome: Answer | Trouble = Trouble("client", "not asked")
        for attempt in range(self.endpoint.attempts):
            if attempt and not self._take_retry():
                break
            pause = self._not_before - time.monotonic()
            if pause > 0 and stop.wait(pause):
                break
            reserved = self._reserve(request, body)
            if reserved is None:
                outcome = Trouble("budget", f"{self.what}.max_cost or max_total_tokens is used up; raise it to go on")
                break
            try:
                outcome = self._once(request, body)
            finally:
                self._settle(reserved, outcome)
            if isinstance(outcome, Answer):
                if self._cache is not None:
                    self._cache.put(
                        key, {"text": outcome.text, "prompt_tokens": outcome.prompt_tokens,
                              "completion_tokens": outcome.completion_tokens}
                    )  # fmt: skip
                return outcome
            if outcome.kind not in RETRIED:
                break
            wait = self._backoff(attempt, outcome)
            if attempt + 1 < self.endpoint.attempts and stop.wait(wait):
                break
        if isinstance(outcome, Trouble):
            self._count(f"trouble/{outcome.kind}")
        return outcome

    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.endpoint.model, "messages": list(request.messages), "temperature": request.temperature,
            "max_tokens": request.max_tokens,
        }  # fmt: skip
        if request.seed is not None:
            body["seed"] = request.seed
        kind = self.endpoint.structured
        if request.grammar is not None and kind == "grounded":
            body["structured_outputs"] = {"grammar": request.grammar()}
        elif request.schema is not None and kind in ("strict", "schema", "grounded"):
            schema = strict_schema(request.schema) if kind == "strict" else request.schema
            named = {"name": "answer", "schema": schema, "strict": kind == "strict"}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        elif request.schema is not None and kind == "object":
            body["response_format"] = {"type": "json_object"}
        for name, value in self.endpoint.extra.items():
            if value is None:
                body.pop(name, None)
            else:
                body[name] = value
        return body

    def _cache_key(self, request: Request, body: dict[str, Any]) -> str:
        decides = {**body, "messages": request.identity} if request.identity else body
        text = json.dumps([self.endpoint.base_url, decides, request.seed], sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _once(self, request: Request, body: dict[str, Any]) -> Answer | Trouble:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "offramp"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        sent = json.dumps(body).encode()
        # A grammar is no token of the prompt.
        counted = json.dumps({key: value for key, value in body.items() if key != "structured_outputs"}).encode()
        unknown = self._price(tokens_of(counted), 0)  # what a request without an answer may have cost
        try:
            reply = post(self._target, "/chat/completions", sent, headers, self.endpoint.timeout_s)
        except TransportFault as fault:
            cost, tokens = (unknown, tokens_of(counted)) if fault.sent else (0.0, 0)
            return Trouble("timeout" if fault.timeout else "connection", self._clean(str(fault)), 0.0, cost, tokens)
        if reply.status != 200:
            return self._refusal(reply)
        found = read_reply(reply.body)
        if isinstance(found, str):
            return Trouble("malformed", self._clean(found), 0.0, unknown, tokens_of(counted))
        prompt, completion = self._usage(found.usage, len(counted), len(found.text.encode("utf-8", "replace")), request)
        cost = self._price(prompt, completion)
        why: str | None = None
        kind: Kind = "content"
        if found.refused is not None:
            kind, why = "refused", found.refused
        elif found.finish_reason == "length":
            kind, why = "truncated", f"the answer was cut at max_tokens={request.max_tokens}; raise it"
        elif request.check is not None:
            why = request.check(found.text)
        if why is not None:
            return Trouble(kind, self._clean(why), 0.0, cost, prompt + completion)
        return Answer(found.text, prompt, completion, cost, False)

    def _refusal(self, reply: Reply) -> Trouble:
        said = self._clean(reply.body[:2000].decode("utf-8", "replace"))
        if reply.status in (408, 425, 429) or reply.status >= 500:
            kind: Kind = "rate" if reply.status in (425, 429) else "server"
            return Trouble(kind, f"HTTP {reply.status}: {said}", reply.retry_after_s)
        hint = f"; check {self.what}.key_env" if reply.status in (401, 403) else ""
        hint = f"; check {self.what}.base_url and {self.what}.model" if reply.status in (301, 302, 404, 405) else hint
        return Trouble("client", f"HTTP {reply.status}: {said}{hint}")

    def _usage(self, usage: Any, sent: int, received: int, request: Request) -> tuple[int, int]:
        """Tokens as the server says, where that can be: a server that lies neither frees nor empties the budget."""
        said = usage if isinstance(usage, dict) else {}
        counts: list[int] = []
        bounds = ((sent // 16, sent + 1000), (received // 16, max(request.max_tokens, received) + 1000))
        names = ("prompt_tokens", "completion_tokens")
        for name, (low, high), size in zip(names, bounds, (sent, received), strict=True):
            value = said.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
                counts.append(value)
            else:
                self._count("usage_doubted")
                counts.append(size // 3 + 1)
        return counts[0], counts[1]

    def _price(self, prompt: int, completion: int) -> float:
        return (prompt * self.endpoint.prompt_price + completion * self.endpoint.completion_price) / 1e6

    def _reserve(self, request: Request, body: dict[str, Any]) -> tuple[float, int] | None:
        """The most that this try can take, set aside; None where a cap does not allow it."""
        prompt = tokens_of(json.dumps(body["messages"]).encode())
        cost, tokens = self._price(prompt, request.max_tokens), prompt + request.max_tokens
        caps = self.endpoint.max_cost, self.endpoint.max_total_tokens
        with self._lock:
            if caps[0] is not None and self.cost + self._reserved_cost + cost > caps[0]:
                return None
            if caps[1] is not None and self.tokens + self._reserved_tokens + tokens > caps[1]:
                return None
            self._reserved_cost += cost
            self._reserved_tokens += tokens
        return cost, tokens

    def _settle(self, reserved: tuple[float, int], outcome: Answer | Trouble) -> None:
        tokens = outcome.tokens if isinstance(outcome, Trouble) else outcome.prompt_tokens + outcome.completion_tokens
        with self._lock:
            self._reserved_cost -= reserved[0]
            self._reserved_tokens -= reserved[1]
            self.cost += outcome.cost
            self.tokens += tokens

    def _take_retry(self) -> bool:
        with self._lock:
            if self._retries <= 0:
                self.counts["retries_refused"] += 1
                return False
            self._retries -= 1
            self.counts["retries"] += 1
            return True

    def _backoff(self, attempt: int, trouble: Trouble) -> float:
        wait = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0**attempt)
        with self._lock:
            wait *= 0.5 + self._jitter.random() / 2
            if trouble.kind == "rate":  # a limit is everyone's: the other threads wait as well
                wait = max(wait, min(trouble.retry_after_s, LONGEST_RETRY_AFTER_S))
                self._not_before = max(self._not_before, time.monotonic() + wait)
        return wait

    def _count(self, name: str) -> None:
        with self._lock:
            self.counts[name] += 1

    def _clean(self, text: str) -> str:
        """One line, without the key, even where the server sends it back."""
        text = text.replace(self._key, "***") if self._key else text
        return " ".join(text.split())[:300]
