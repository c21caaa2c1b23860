"""RewardPool: worker processes with a deadline and a memory limit. A stuck or dead worker is killed and replaced; the
others go on."""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rewards.document import Document
from rewards.errors import ConfigError, InfraError
from rewards.nursery import Channel, Nursery, limit_memory, resident_bytes, signal_name, waited_s
from rewards.rubric import Reward, Rubric, RubricScore, document_without_gold
from rewards.score import Score
from rewards.task import Task

START_S = 120.0  # for a worker to start
MEMORY_MB = 2048  # that scoring may take, beyond what a worker has at its start
ANSWER_BYTES = 64 * 2**20  # of one document's scores
SLOTS = 1024  # one byte of shared memory each: the custom reward that runs there
AFTER = 128  # in a slot: the reward has returned
Pair = tuple[Document, Sequence[str]]


@dataclass(slots=True, eq=False)
class _Worker:
    channel: Channel
    slot: int
    begun: float
    pid: int = 0
    pidfd: int = -1
    schedstat: int = -1
    job: int | None = None
    until: float = 0.0  # when its job must have ended
    waited: float = 0.0  # for a core, in seconds, when its job began
    slow: bool = False  # no longer counts as one of the pool's workers


def _watched(reward: Reward, number: int, shared: mmap.mmap, slot: int) -> Reward:
    """The reward, noting that it runs, so that the one who kills it knows whom."""
    mine = os.getpid()

    def call(document: Document, attempt: Mapping[str, Any], task: Task) -> Score | float:
        shared[slot] = number
        try:
            return reward(document, attempt, task)
        except SystemExit as fault:
            raise RuntimeError(f"called sys.exit({fault.code!r})") from None
        finally:
            if os.getpid() != mine:
                os._exit(0)  # it forked, and this is the child
            shared[slot] = AFTER + number

    return call


def _serve(rubric: Rubric, shared: mmap.mmap, deadline_s: float, memory: int, channel: Channel, slot: int) -> None:
    """What a worker does until its parent hangs up."""
    rubric.custom = {
        name: _watched(reward, number, shared, slot) for number, (name, reward) in enumerate(rubric.custom.items(), 1)
    }
    if memory:
        limit_memory(memory)
    most = resident_bytes() + memory // 2
    channel.send(os.getpid())
    while True:
        try:
            document, completions = channel.receive()
        except (EOFError, OSError):
            return
        shared[slot] = 0
        # Should the parent be gone while a reward hangs, nobody else ends this process.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 2 * deadline_s + 1)
        answer: list[RubricScore] | str
        try:
            answer = rubric.score_group(document, completions)
        except BaseException as fault:
            answer = f"{type(fault).__name__}: {fault}".replace("\n", " ")[:300]
        signal.setitimer(signal.ITIMER_REAL, 0)
        # A worker that has grown is not used again: what leaks in it would grow until something else fails.
        starved = (
            bool(rubric.custom) and isinstance(answer, list) and any("MemoryError" in str(s.error) for s in answer)
        )
        last = starved or (bool(rubric.custom) and memory > 0 and resident_bytes() > most)
        try:
            channel.send((answer, last))
        except OSError:
            return
        except Exception as fault:
            channel.send((f"its findings cannot be sent: {type(fault).__name__}: {fault}"[:300], True))
            return
        if last:
            return


def _error(message: str, count: int) -> list[RubricScore]:
    return [RubricScore(0.0, "error", None, {}, (), message) for _ in range(count)]


class RewardPool:
    """Scores groups in `workers` processes; a group that takes longer than `deadline_s` ends with status "error".

    Time in which a group is ready to run and has no core does not count, up to as much again.
    A group that takes much longer than others gives its place to a spare worker, up to a bound, and may go on until its
    deadline: a reward that hangs takes no speed from the others. What custom rewards print is dropped; their memory is
    limited to `memory_mb` beyond the worker's own. With 0 workers the pool scores in this process, without deadline and
    limit. Use as a context manager, or close() it.
    """

    def __init__(self, task: Task, workers: int, deadline_s: float, memory_mb: int = MEMORY_MB) -> None:
        self.task = task
        self.deadline_s = deadline_s
        self.memory_mb = memory_mb
        self._rubric = Rubric(task)  # also finds faults of the task here, not in the workers
        self._judge = None
        if task.judge is not None and task.rubric.rewards.get("judge"):
            from rewards.judge import Judge  # a network client: for those who asked for it

            self._judge = Judge(task, task.judge)
        self._names = list(self._rubric.custom)
        self._count = workers
        self._spares = 1 + workers // 4 if workers and self._names else 0
        self._most_slow = 2 * workers + 2 if self._names else 0
        self._typical_s = 0.0  # a running mean of what a group takes
        self._workers: list[_Worker] = []
        self._pid = os.getpid()
        self._failed_starts = 0
        self._free: list[int] = []
        if workers:
            if not hasattr(os, "fork"):
                raise ConfigError("rewards.workers: this system cannot fork; set rewards.workers=0")
            self._shared = mmap.mmap(-1, SLOTS)
            self._free = list(range(SLOTS))
            self._selector = selectors.DefaultSelector()
            self._nursery = self._new_nursery()
            self._refill()
            while sum(worker.pid > 0 for worker in self._workers) < workers:
                self._wait_for(1.0)
                self._refill()

    def _new_nursery(self) -> Nursery:
        memory = self.memory_mb * 2**20
        return Nursery(functools.partial(_serve, self._rubric, self._shared, self.deadline_s, memory))

    def _refill(self) -> None:
        """Asks for as many workers as are missing; they come when they are ready."""
        slow = sum(worker.slow for worker in self._workers)
        while len(self._workers) < self._count + self._spares + min(slow, self._most_slow):
            slot = self._free.pop()
            try:
                channel = self._nursery.start(slot)
            except OSError:  # the nursery was killed
                self._free.append(slot)
                self._start_failed("its nursery died")
                self._nursery.close()
                self._nursery = self._new_nursery()
                continue
            worker = _Worker(channel, slot, time.monotonic())
            self._workers.append(worker)
            self._selector.register(channel, selectors.EVENT_READ, worker)

    def _start_failed(self, why: str) -> None:
        self._failed_starts += 1
        if self._failed_starts > 3:
            raise InfraError(f"reward workers do not start ({why}); try rewards.workers=0 to see why")

    def _wait_for(self, seconds: float) -> list[_Worker]:
        """The workers of which something is to be read or heard, after at most so long; new ones are welcomed."""
        found: dict[int, _Worker] = {}
        for key, _ in self._selector.select(seconds):
            worker: _Worker = key.data
            found[id(worker)] = worker
        busy = []
        now = time.monotonic()
        for worker in found.values():
            if worker.pid:
                busy.append(worker)
            elif not worker.channel.feed():
                self._drop(worker, ask=False)
                self._start_failed("they end at once")
            elif worker.channel.whole():
                worker.pid = worker.channel.take()
                self._failed_starts = 0
                with contextlib.suppress(OSError, AttributeError):  # no such thing: the end of the line must do
                    worker.pidfd = os.pidfd_open(worker.pid)
                    self._selector.register(worker.pidfd, selectors.EVENT_READ, worker)
                with contextlib.suppress(OSError):
                    worker.schedstat = os.open(f"/proc/{worker.pid}/schedstat", os.O_RDONLY)
        for worker in [w for w in self._workers if not w.pid and now - w.begun > START_S]:
            self._drop(worker, ask=False)
            self._start_failed(f"not within {START_S:g} s")
        return busy

    def score(self, pairs: Sequence[Pair]) -> list[list[RubricScore]]:
        """The scores of each document's completions, in order. Never raises for what a reward or the model did.

        A judge is asked here, for all pairs at once, and not in the workers; Paused when it is out of order for long.
        """
        scores = self._score(pairs)
        return scores if self._judge is None else self._judge.judge(pairs, scores)

    def _score(self, pairs: Sequence[Pair]) -> list[list[RubricScore]]:
        if not self._count:
            return [self._rubric.score_group(document, completions) for document, completions in pairs]
        results: list[list[RubricScore] | None] = [None] * len(pairs)
        waiting = deque(range(len(pairs)))
        refused: dict[int, int] = {}
        while waiting or any(worker.job is not None for worker in self._workers):
            self._refill()
            pause = self._dispatch(pairs, waiting, refused, results)
            for worker in self._wait_for(pause):
                self._hear(worker, pairs, results)
            now = time.monotonic()
            for worker in list(self._workers):
                if worker.job is not None and now >= worker.until:
                    self._overdue(worker, pairs, results)
        return [result if result is not None else [] for result in results]

    def _overdue(self, worker: _Worker, pairs: Sequence[Pair], results: list[list[RubricScore] | None]) -> None:
        """Ends a worker whose time is up. Not one whose answer came meanwhile; and one that had no core for a part of
        its time gets that part on top."""
        self._hear(worker, pairs, results)
        if worker.job is None or worker not in self._workers:
            return
        starved = waited_s(worker.schedstat) - worker.waited
        worker.until = worker.begun + self.deadline_s + min(max(0.0, starved), self.deadline_s)
        if time.monotonic() < worker.until:
            return
        name = self._running(worker) or "scoring"
        results[worker.job] = _error(f"{name} took longer than {self.deadline_s:g} s", len(pairs[worker.job][1]))
        self._drop(worker, ask=False)

    def _dispatch(
        self,
        pairs: Sequence[Pair],
        waiting: deque[int],
        refused: dict[int, int],
        results: list[list[RubricScore] | None],
    ) -> float:
        """Gives idle workers their jobs; seconds until something may have to be done again."""
        now = time.monotonic()
        patience = min(self.deadline_s / 4, max(0.005, 4 * self._typical_s) if self._typical_s else 0.1)
        busy = [worker for worker in self._workers if worker.job is not None]
        slow = sum(worker.slow for worker in busy)
        for worker in busy:
            if not worker.slow and slow < self._most_slow and now - worker.begun >= patience:
                worker.slow, slow = True, slow + 1
        # The spares work too: while a reward only waits, no core needs to be idle.
        places = self._count + self._spares - sum(not worker.slow for worker in busy)
        for worker in [worker for worker in self._workers if worker.pid and worker.job is None]:
            if not waiting or places <= 0:
                break
            job = waiting.popleft()
            document, completions = pairs[job]
            worker.job, worker.slow, worker.begun = job, False, time.monotonic()
            worker.until, worker.waited = worker.begun + self.deadline_s, waited_s(worker.schedstat)
            worker.channel.socket.settimeout(self.deadline_s)
            try:
                worker.channel.send((document_without_gold(document), list(completions)))
                places -= 1
            except OSError:  # it died while nobody looked, which is no fault of this job
                worker.job = None
                refused[job] = refused.get(job, 0) + 1
                code = self._drop(worker, ask=True)
                if refused[job] < 3:
                    waiting.appendleft(job)
                else:
                    results[job] = _error(f"the reward worker died ({signal_name(code)})", len(completions))
            except Exception as fault:  # a document that cannot be sent
                worker.job = None
                results[job] = _error(f"the document cannot be sent: {type(fault).__name__}", len(completions))
        busy = [worker for worker in self._workers if worker.job is not None]
        due = [worker.until for worker in busy]
        if waiting and slow < self._most_slow:
            due += [worker.begun + patience for worker in busy if not worker.slow]
        return max(0.0, min(due, default=now + 1.0) - time.monotonic())

    def _hear(self, worker: _Worker, pairs: Sequence[Pair], results: list[list[RubricScore] | None]) -> None:
        job, alive = worker.job, worker.channel.feed()
        if worker.channel.whole() and job is not None:
            count = len(pairs[job][1])
            last = True
            try:
                answer, last = worker.channel.take()
            except Exception as fault:
                answer = f"its answer cannot be read: {type(fault).__name__}"
            if not isinstance(answer, list):
                name = self._running(worker)
                answer = _error(f"{name}: {answer}" if name else str(answer), count)
            elif len(answer) != count:
                answer = _error(f"{len(answer)} scores came back for {count} completions", count)
            results[job] = [self._named(score) for score in answer]
            seconds = time.monotonic() - worker.begun
            self._typical_s = 0.9 * self._typical_s + 0.1 * seconds if self._typical_s else seconds
            worker.job = None
            if last:
                self._drop(worker, ask=False)
        elif job is not None and worker.channel.size() > ANSWER_BYTES:
            results[job] = _error(f"{self._running(worker)}: its findings take more than 64 MB", len(pairs[job][1]))
            self._drop(worker, ask=False)
        elif not alive or _is_over(worker):
            name = self._running(worker)
            how = signal_name(self._drop(worker, ask=True))
            died = f"{name}: its worker died ({how})" if name else f"the reward worker died ({how})"
            if how == "SIGALRM" and time.monotonic() - worker.begun >= self.deadline_s:  # by its own timer, before us
                died = f"{name or 'scoring'} took longer than {self.deadline_s:g} s"
            if job is not None:
                results[job] = _error(died, len(pairs[job][1]))

    def _named(self, score: RubricScore) -> RubricScore:
        if score.error is None or "MemoryError" not in score.error:
            return score
        name = next((name for name in self._names if score.error.startswith(name)), "scoring")
        return _error(f"{name} went over its memory limit of {self.memory_mb} MB", 1)[0]

    def _running(self, worker: _Worker) -> str:
        """The custom reward that runs in a worker, or ran last; "" where none did."""
        number = self._shared[worker.slot]
        if number == 0:
            return ""
        name = self._names[min(number % AFTER, len(self._names)) - 1]
        return name if number < AFTER else f"after {name}"

    def _drop(self, worker: _Worker, ask: bool) -> int:
        """Ends a worker for good. ask: it ended by itself; how?"""
        self._selector.unregister(worker.channel)
        if worker.pidfd >= 0:
            self._selector.unregister(worker.pidfd)
            os.close(worker.pidfd)
        if worker.schedstat >= 0:
            os.close(worker.schedstat)
        worker.channel.close()
        code = self._nursery.end(worker.pid, ask) if worker.pid else None
        self._workers.remove(worker)
        self._shared[worker.slot] = 0
        self._free.insert(0, worker.slot)
        return -int(signal.SIGKILL) if code is None else code

    def close(self) -> None:
        """Ends the workers. Safe to call twice, and in a forked child, where it leaves the parent's workers alone."""
        if self._count and os.getpid() == self._pid:
            for worker in list(self._workers):
                self._drop(worker, ask=False)
            self._nursery.close()
            self._selector.close()
            self._shared.close()
            self._count = 0

    def __enter__(self) -> RewardPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_over(worker: _Worker) -> bool:
    """Whether the worker's process has ended, even where a child of it holds the line."""
    if worker.pidfd < 0:
        return False
    poll = selectors.DefaultSelector()
    try:
        poll.register(worker.pidfd, selectors.EVENT_READ)
        return bool(poll.select(0))
    finally:
        poll.close()
