#!/usr/bin/env bash
# Sets up, then checks everything: style, types, floors, tests (the fast ones first). Arguments go to pytest.
#   OFFRAMP_TESTS=EXPRESSION       the tests by their marks (default: "not gpu")
#   OFFRAMP_TEST_PROCESSES=2       how many processes run the tests, each with one thread
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/setup.sh
# Nothing is downloaded in a test, and no account is used.
export HF_HUB_OFFLINE=1 WANDB_MODE=offline OMP_NUM_THREADS=1 PATH="$PWD/.venv/bin:$PATH"
step() { echo "== $*" >&2; "$@"; }
step ruff check .
step ruff format --check .
step mypy
step lint-imports
step python -m pytest -p tests.launch.slow_last -m "${OFFRAMP_TESTS:-not gpu}" \
    -n "${OFFRAMP_TEST_PROCESSES:-2}" --dist loadgroup --no-loadscope-reorder "$@"
