"""A training run with vLLM and the toy reward, in a process of its own: python -m tests.rl.toy_run CONFIG.json"""

import sys
from pathlib import Path

import rl.run
from rewards.errors import OfframpError
from rl.config import RunConfig
from rl.grpo import train
from rl.interrupt import Stopped
from tests.rl.fakes import ToyPool

if __name__ == "__main__":
    rl.run.RewardPool = ToyPool  # type: ignore[assignment, misc]
    try:
        train(RunConfig.model_validate_json(Path(sys.argv[1]).read_text()))
    except (OfframpError, Stopped) as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
