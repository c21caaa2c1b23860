#!/usr/bin/env bash
# Sets up, then trains the starter policy on layouts it has never seen and shows what it learned. Ends with the numbers.
#   bash launch/demo.sh [key=value ...] [--json]
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$here/setup.sh"
exec "$here/../.venv/bin/offramp" demo "$@"
