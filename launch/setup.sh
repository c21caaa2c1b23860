#!/usr/bin/env bash
# Sets Offramp up in .venv, from a complete lock file. Run it as often as you like: it does only what is missing.
#   OFFRAMP_PYTHON=/path/to/python3.11   the Python to use
#   OFFRAMP_LOCK=cpu|cuda                the lock file (default: cuda where nvidia-smi finds a GPU, else cpu)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
torch=2.13.0
cpu_index=https://download.pytorch.org/whl/cpu

say() { echo "setup: $*" >&2; }
die() { echo "setup: error: $*" >&2; exit 5; }

if command -v flock >/dev/null; then
    exec 9>"$root/.setup.lock"
    flock 9
fi

usable() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' >/dev/null 2>&1; }
python=
for candidate in ${OFFRAMP_PYTHON:+"$OFFRAMP_PYTHON"} python3.11 python3 python3.12 /usr/bin/python3.11; do
    if usable "$candidate"; then python=$candidate; break; fi
done
[ -n "$python" ] || die "no Python 3.11 found; install it (apt install python3.11 python3.11-venv), or set OFFRAMP_PYTHON"
if [ -n "${OFFRAMP_PYTHON:-}" ] && [ "$python" != "$OFFRAMP_PYTHON" ]; then
    die "OFFRAMP_PYTHON=$OFFRAMP_PYTHON is no Python 3.11 or 3.12"
fi

kind=${OFFRAMP_LOCK:-}
if [ -z "$kind" ]; then
    if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then kind=cuda; else kind=cpu; fi
fi
lock=launch/locks/$kind.txt
[ -f "$lock" ] || die "OFFRAMP_LOCK=$kind: no $lock; choose cpu or cuda"

hash() { "$python" -c 'import hashlib, sys; print(hashlib.sha256(b"".join(open(f, "rb").read() for f in sys.argv[1:])).hexdigest())' "$@"; }
locked="$kind $(hash "$lock") $root"
packaged=$(hash pyproject.toml)
stamp=.venv/.offramp-setup
bin=.venv/bin

healthy() { [ -x "$bin/python" ] && "$bin/python" -c 'import pip' >/dev/null 2>&1; }
if healthy && [ "$(cat "$stamp" 2>/dev/null)" = "$locked $packaged" ] && "$bin/offramp" --version >/dev/null 2>&1; then
    say "already set up from $lock"
    exit 0
fi
if ! healthy; then
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv || die "cannot make .venv; on Debian and Ubuntu: apt install python3.11-venv"
fi
# Bytecode is made at the first import instead: most modules are never imported.
pip() { "$bin/python" -m pip --disable-pip-version-check --no-input "$@"; }

if [ "$(cut -d' ' -f1-3 "$stamp" 2>/dev/null)" != "$locked" ]; then
    rm -f "$stamp"
    rest=$(mktemp)
    trap 'rm -f "$rest"' EXIT
    if [ "$kind" = cpu ]; then
        grep -v '^torch==' "$lock" >"$rest"
        has_cpu_torch() {
            "$bin/python" -c 'import sys; from importlib.metadata import version; sys.exit(version("torch") != sys.argv[1])' \
                "$torch+cpu" 2>/dev/null
        }
        if ! has_cpu_torch; then
            say "installing torch $torch for the CPU"
            # The suffix +cpu names the CPU build, which PyPI does not have; --no-deps keeps CUDA's libraries out.
            pip install -q --no-compile --no-deps "torch==$torch+cpu" >/dev/null 2>&1 ||
                pip install -q --no-compile --no-deps --retries 1 --timeout 15 --index-url "$cpu_index" "torch==$torch+cpu" ||
                pip install -q --no-compile --no-deps "torch==$torch" ||
                die "no CPU build of torch $torch in the index in use, nor at $cpu_index; check the network"
        fi
    else
        cp "$lock" "$rest"
    fi
    say "installing $(grep -c '==' "$rest") packages from $lock"
    pip install -q --no-compile --no-deps -r "$rest" 2> >(grep -v "is ignored: it is neither a file nor a directory" >&2) ||
        die "a package of $lock could not be installed; its message stands above"
    if [ "$kind" = cpu ]; then
        # CUDA builds beside a CPU torch: they break transformers, and nothing here needs them.
        pip uninstall -q -y torchvision torchaudio torchcodec >/dev/null 2>&1 || true
        "$bin/python" -c 'import torch, sys; sys.exit(torch.version.cuda is not None)' 2>/dev/null ||
            die "the torch that the index in use has is no CPU build; make $cpu_index reachable, or set OFFRAMP_LOCK=cuda"
    fi
fi
say "installing offramp itself"
pip install -q --no-compile --no-deps --no-build-isolation -e . 2>/dev/null || pip install --no-deps --no-build-isolation -e .
"$bin/offramp" doctor >&2 || die "the installation does not work yet; the lines marked fail say what to do"
echo "$locked $packaged" >"$stamp"
say "done: .venv/bin/offramp is ready"
