"""The comparison's child processes: none is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def test_a_comparison_that_is_told_to_end_ends_its_job(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    sleeper = tmp_path / "sleeper.sh"
    sleeper.write_text(
        f"#!/bin/sh\necho $$ >> {tmp_path}/starts\n"
        f"echo $$ > {pid_file}.part && mv {pid_file}.part {pid_file}\nexec sleep 60\n"
    )
    sleeper.chmod(0o755)
    script = (
        "import sys; from pathlib import Path;"
        "from launch.compare import run_here; from launch.compare_jobs import Job;"
        f"sys.executable = {str(sleeper)!r};"
        f"folder = Path({str(tmp_path)!r}); run_here([Job('sft', 1, 0, folder, 'key', folder)], parallel=1, retries=1)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 180
    while not pid_file.exists() and time.monotonic() < until:
        time.sleep(0.05)
    child = int(pid_file.read_text())
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(120) == 128 + signal.SIGTERM
    assert (tmp_path / "starts").read_text().split() == [str(child)]  # and not tried again
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError(f"the job {child} still runs")
