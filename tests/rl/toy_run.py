"""A training run with vLLM and the toy reward, in a process of its own: python -m tests.rl.toy_run CONFIG.json"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import rl.run
from rewards.document import Document
from rewards.errors import OfframpError
from rewards.rubric import RubricScore
from rl.config import RunConfig
from rl.grpo import train
from rl.interrupt import Stopped
from tests.rl.fakes import ToyPool

if __name__ == "__main__":
    config = RunConfig.model_validate_json(Path(sys.argv[1]).read_text())
    metrics, hold_at_line = Path(config.run.dir, "metrics.jsonl"), int(os.environ.get("HOLD_AT_LINE", "0"))

    class Held(ToyPool):
        """Once the record has HOLD_AT_LINE lines, scoring waits for whoever ends the run."""

        def score(self, pairs: Sequence[tuple[Document, Sequence[str]]]) -> list[list[RubricScore]]:
            while hold_at_line and metrics.exists() and metrics.read_bytes().count(b"\n") >= hold_at_line:
                time.sleep(0.05)
            return super().score(pairs)

    rl.run.RewardPool = Held  # type: ignore[assignment, misc]
    try:
        train(config)
    except (OfframpError, Stopped) as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
