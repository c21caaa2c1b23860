#!/usr/bin/env bash
# Sets up, then checks everything: style, types, floors, tests (the fast ones first). Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/setup.sh
# Nothing is downloaded in a test, and no account is used.
export HF_HUB_OFFLINE=1 WANDB_MODE=offline PATH="$PWD/.venv/bin:$PATH"
step() { echo "== $*" >&2; "$@"; }
step ruff check .
step ruff format --check .
step mypy
step lint-imports
step python -m pytest -p tests.launch.slow_last -m "${OFFRAMP_TESTS:-not gpu}" "$@"
