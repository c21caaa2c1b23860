"""Where the loop gets a step's attempts from: sampled when they are asked for, or one step ahead (run.driver=ahead).

Ahead, a thread samples and scores the attempts of step t + 1 while the update of step t runs. They are then drawn by
the policy of before that update, one version old when they are trained on, and the truncated importance weights
(method.tis_cap) correct for it: the sampler's log-probabilities are those of the policy that drew. Weights are loaded
only when no sampling is in flight. Trainer and sampler have half of the threads each, or both would wait for cores.

Attempts are a function of (weights, seed, step, document), so the weights that drew the next ones, kept in each
checkpoint, are all that a resumed run needs to draw them again.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import TracebackType
from typing import TypeAlias

import torch

from rewards.rubric import RubricScore
from rl.metrics import Clock
from rl.rollouts import Group
from rl.run import Run
from rl.stream import Stream

SampleAndScore: TypeAlias = Callable[[Run, Stream, int, Clock], tuple[list[Group], list[list[RubricScore]]]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A step's attempts, scored.

    Example: Drawn(groups=[group], scores=[[score_1, score_2]], position=32, seconds={"seconds_ahead/sample": 1.4})
    """

    groups: list[Group]
    scores: list[list[RubricScore]]
    position: int
    """Documents drawn from the stream, these included."""
    seconds: dict[str, float]
    """What they took beside the update before; empty where they were drawn when asked for."""


class Attempts:
    """The attempts of each step, in order. Entered, it ends with no sampling in flight."""

    def __init__(self, run: Run, sample_and_score: SampleAndScore) -> None:
        self._run = run
        self._sample_and_score = sample_and_score
        self._pending: Future[Drawn] | None = None
        self._thread = ThreadPoolExecutor(1, "ahead") if run.config.run.driver == "ahead" else None

    def __enter__(self) -> Attempts:
        self._draw_again()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True)

    def take(self, step: int, clock: Clock) -> Drawn:
        """The attempts of `step`; ahead, those of the next step are begun. What the loop waits counts as sampling."""
        if self._pending is None:
            drawn = self._draw(step, self._run.progress.position, clock)
        else:
            with clock.phase("sample"):
                drawn = self._pending.result()
            self._pending = None
        if self._thread is not None and step < self._run.config.run.steps:
            if torch.cuda.is_available():  # the thread has a stream of its own: the load must be through
                torch.cuda.synchronize()
            self._pending = self._thread.submit(self._draw_ahead, step + 1, drawn.position)
        return drawn

    def wait(self) -> None:
        """Until no sampling is in flight; what went wrong in it is raised by the next `take`."""
        if self._pending is not None:
            wait([self._pending])

    def before_update(self) -> None:
        """Keep the weights that the attempts of the next step were drawn with, for the checkpoint."""
        if self._thread is not None:
            tensors = self._run.policy.named_tensors_for_sampler()
            self._run.older = {name: tensor.to("cpu", copy=True) for name, tensor in tensors}

    def _draw_again(self) -> None:
        """After a resume: the attempts that were there when the checkpoint was written."""
        run, step = self._run, self._run.progress.step
        if self._thread is None or run.older is None or run.ended:
            return
        run.sampler.load(run.older.items(), version=step - 1)
        self._pending = self._thread.submit(self._draw_ahead, step + 1, run.progress.position)
        self.wait()
        run.sampler.load(run.policy.named_tensors_for_sampler(), version=step)

    def _draw_ahead(self, step: int, position: int) -> Drawn:
        clock = Clock()
        drawn = self._draw(step, position, clock)
        seconds = clock.metrics()
        drawn.seconds.update({f"seconds_ahead/{name}": seconds[f"seconds/{name}"] for name in ("sample", "score")})
        return drawn

    def _draw(self, step: int, position: int, clock: Clock) -> Drawn:
        stream = Stream(len(self._run.train_set), self._run.config.run.seed, position)
        groups, scores = self._sample_and_score(self._run, stream, step, clock)
        return Drawn(groups, scores, stream.position, {})
