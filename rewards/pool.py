"""RewardPool: worker processes with a deadline. A stuck or dead worker is killed and replaced; the others go on."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType

from rewards.document import Document
from rewards.errors import InfraError
from rewards.rubric import Rubric, RubricScore, document_without_gold
from rewards.task import Task

START_S = 120.0  # seconds for a worker to start
Pair = tuple[Document, Sequence[str]]


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    job: int | None = None
    until: float = 0.0


def _serve(pipe: Connection, others: Sequence[Connection], task: Task) -> None:
    for other in others:  # inherited by fork: a pipe stays open as long as anyone holds its end
        other.close()
    rubric = Rubric(task)
    pipe.send(None)  # ready: the deadline of the first job does not count the start
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
        if job is None:
            return
        document, completions = job
        try:
            answer: list[RubricScore] | str = rubric.score_group(document, completions)
        except KeyboardInterrupt:
            return
        except BaseException as fault:  # a reward that calls sys.exit is a fault of that reward
            answer = f"{type(fault).__name__}: {fault}".replace("\n", " ")[:300]
        try:
            pipe.send(answer)
        except (BrokenPipeError, KeyboardInterrupt):
            return
        except Exception as fault:
            pipe.send(f"its findings cannot be sent: {type(fault).__name__}")


def _error(message: str, count: int) -> list[RubricScore]:
    return [RubricScore(0.0, "error", None, {}, (), message) for _ in range(count)]


class RewardPool:
    """Scores groups in `workers` processes; a group that takes longer than `deadline_s` ends with status "error".

    With 0 workers it scores in this process, without a deadline. Use as a context manager, or close() it.
    """

    def __init__(self, task: Task, workers: int, deadline_s: float) -> None:
        self.task = task
        self.deadline_s = deadline_s
        self._rubric = Rubric(task)  # also finds faults of the task here, not in the workers
        self._judge = None
        if task.judge is not None and task.rubric.rewards.get("judge"):
            from rewards.judge import Judge  # a network client: for those who asked for it

            self._judge = Judge(task, task.judge)
        self._context = multiprocessing.get_context(
            "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
        )
        self._workers: list[_Worker] = []
        self._pid = os.getpid()
        for _ in range(workers):
            self._workers.append(self._start())

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        others = [ours, *(worker.pipe for worker in self._workers)]
        inherited = others if self._context.get_start_method() == "fork" else []
        process = self._context.Process(target=_serve, args=(theirs, inherited, self.task), daemon=True)  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        try:
            ready = ours.poll(START_S) and ours.recv() is None
        except (EOFError, OSError):
            ready = False
        if not ready:
            raise InfraError(f"a reward worker did not start (exit code {_end(worker)}); see its output above")
        return worker

    def score(self, pairs: Sequence[Pair]) -> list[list[RubricScore]]:
        """The scores of each document's completions, in order. Never raises for what a reward or the model did.

        A judge is asked here, for all pairs at once, and not in the workers; Paused when it is out of order for long.
        """
        scores = self._score(pairs)
        return scores if self._judge is None else self._judge.judge(pairs, scores)

    def _score(self, pairs: Sequence[Pair]) -> list[list[RubricScore]]:
        if not self._workers:
            return [self._rubric.score_group(document, completions) for document, completions in pairs]
        results: list[list[RubricScore] | None] = [None] * len(pairs)
        waiting = list(range(len(pairs) - 1, -1, -1))
        while waiting or any(worker.job is not None for worker in self._workers):
            for worker in self._workers:
                if worker.job is None and waiting:
                    self._send(worker, waiting.pop(), pairs, results)
            busy = [worker for worker in self._workers if worker.job is not None]
            if not busy:
                continue
            pause = max(0.0, min(worker.until for worker in busy) - time.monotonic())
            ready = set(wait([worker.pipe for worker in busy], timeout=pause))
            now = time.monotonic()
            for worker in busy:
                job = worker.job
                assert job is not None
                count = len(pairs[job][1])
                if worker.pipe in ready:
                    try:
                        answer = worker.pipe.recv()
                    except Exception as fault:
                        code = self._replace(worker)
                        results[job] = _error(
                            f"the reward worker died ({type(fault).__name__}, exit code {code})", count
                        )
                        continue
                    worker.job = None
                    good = isinstance(answer, list) and len(answer) == count
                    results[job] = answer if good else _error(str(answer), count)
                elif now >= worker.until:
                    self._replace(worker)
                    results[job] = _error(f"scoring took longer than {self.deadline_s:g} s", count)
        return [result if result is not None else [] for result in results]

    def _send(self, worker: _Worker, job: int, pairs: Sequence[Pair], results: list[list[RubricScore] | None]) -> None:
        document, completions = pairs[job]
        worker.job, worker.until = job, time.monotonic() + self.deadline_s
        try:
            worker.pipe.send((document_without_gold(document), list(completions)))
        except (BrokenPipeError, OSError):
            code = self._replace(worker)
            results[job] = _error(f"the reward worker died (exit code {code})", len(completions))

    def _replace(self, worker: _Worker) -> int | None:
        """Kills a worker and starts another in its place; its exit code."""
        code = _end(worker)
        # The dead worker's end is closed before the next one inherits the rest.
        place = self._workers.index(worker)
        self._workers.pop(place)
        fresh = self._start()
        self._workers.insert(place, worker)
        worker.process, worker.pipe, worker.job = fresh.process, fresh.pipe, None
        return code

    def close(self) -> None:
        """Ends the workers. Safe to call twice, and in a forked child, where it leaves the parent's workers alone."""
        if os.getpid() == self._pid:
            for worker in self._workers:
                _end(worker)
        self._workers = []

    def __enter__(self) -> RewardPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _end(worker: _Worker) -> int | None:
    worker.pipe.close()
    worker.process.kill()
    worker.process.join(5)
    code = worker.process.exitcode
    worker.process.close()
    return code
