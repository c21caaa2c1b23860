"""A nursery of processes: forked once, early, from a clean state; it forks workers on demand, and reaps them.

A training process is large and has threads: to fork it again for each worker that had to be killed would be slow, and
might lock up. The nursery is small and does nothing else. The talk is over one socket: a request for a worker carries
the worker's end of its own socket; the worker then answers for itself, with its process id.
"""

from __future__ import annotations

import array
import contextlib
import gc
import multiprocessing
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Collection
from typing import Any

_REQUEST = struct.Struct("=cq")  # s: start a worker in slot N, r: reap process N and say how it ended, f: forget it
_HEADER = struct.Struct("=q")
Serve = Callable[["Channel", int], None]


class Channel:
    """Pickled messages over a socket. `receive` blocks; `feed` takes what is there, for a reader who must not wait."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._read = bytearray()

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, message: Any) -> None:
        """Raises OSError where nobody listens, or where nobody reads before the socket's timeout."""
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        self.socket.sendall(_HEADER.pack(len(data)) + data)

    def feed(self) -> bool:
        """Reads what has come; False at the end of the line."""
        self.socket.setblocking(False)
        try:
            data = self.socket.recv(1 << 20)
        except BlockingIOError:
            return True
        except OSError:  # reset by the other side
            return False
        self._read += data
        return bool(data)

    def whole(self) -> bool:
        """Whether a whole message has come."""
        return len(self._read) >= 8 and len(self._read) >= 8 + self.size()

    def size(self) -> int:
        """Bytes of the message that is coming; 0 where that is not known yet."""
        return int(_HEADER.unpack_from(self._read)[0]) if len(self._read) >= 8 else 0

    def take(self) -> Any:
        """The next whole message."""
        (size,) = _HEADER.unpack_from(self._read)
        data = bytes(self._read[8 : 8 + size])
        del self._read[: 8 + size]
        return pickle.loads(data)

    def receive(self) -> Any:
        """The next message. Raises EOFError at the end of the line."""
        while not self.whole():
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError
            self._read += data
        return self.take()

    def close(self) -> None:
        self.socket.close()


class Nursery:
    """The parent's side. `serve(channel, slot)` is what a worker runs, in a session of its own, until it returns."""

    def __init__(self, serve: Serve) -> None:
        ours, theirs = socket.socketpair()
        self._control = ours
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=_run, args=(theirs, ours, serve), daemon=True)
        self._process.start()
        theirs.close()

    def start(self, slot: int) -> Channel:
        """Asks for a worker and returns the line to it; its first message comes when it is ready. Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            handle = array.array("i", [theirs.fileno()])
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handle)]
            self._control.sendmsg([_REQUEST.pack(b"s", slot)], ancillary)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return Channel(ours)

    def end(self, pid: int, ask: bool) -> int | None:
        """Kills a worker and its children. ask: waits for how it had ended (an exit code, or minus a signal)."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if not ask:
                os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self._control.sendall(_REQUEST.pack(b"r" if ask else b"f", pid))
            if ask and select.select([self._control], [], [], 5.0)[0]:
                data = self._control.recv(_HEADER.size, socket.MSG_WAITALL)
                return int(_HEADER.unpack(data)[0]) if len(data) == _HEADER.size else None
        return None

    def close(self) -> None:
        """Ends the nursery and every worker. Safe to call twice."""
        self._control.close()
        with contextlib.suppress(ValueError, AssertionError):  # closed, or another process's
            self._process.join(0)  # an AssertionError in a process that was forked from ours
            self._wait(5.0)
            self._process.kill()
            self._wait(5.0)
            self._process.close()

    def _wait(self, seconds: float) -> None:
        """Until the nursery has ended. `join` would also wait for the workers, which hold its sentinel open."""
        until = time.monotonic() + seconds
        while self._process.exitcode is None and time.monotonic() < until:
            try:
                os.kill(self._process.pid or 0, 0)
            except ProcessLookupError:  # somebody else has reaped it
                return
            time.sleep(0.002)


def _run(control: socket.socket, others: socket.socket, serve: Serve) -> None:
    """The nursery itself: ends when its parent closes the line or is gone."""
    others.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = os.getppid()
    gc.collect()
    gc.freeze()  # pages that the collector never touches stay shared
    children: set[int] = set()
    leaving: set[int] = set()  # killed, not reaped yet
    try:
        while os.getppid() == parent:
            _reap(children, leaving)
            if not select.select([control], [], [], 0.05 if leaving else 1.0)[0]:
                continue
            data, ancillary, _, _ = control.recvmsg(_REQUEST.size, socket.CMSG_SPACE(4))
            if not data:
                break
            while len(data) < _REQUEST.size:
                data += control.recv(_REQUEST.size - len(data))
            order, number = _REQUEST.unpack(data)
            if order == b"s":
                end = socket.socket(fileno=array.array("i", ancillary[0][2][:4])[0])
                pid = os.fork()
                if pid == 0:
                    _worker(control, end, number, serve)
                end.close()
                children.add(pid)
            elif number in children and order == b"r":
                children.discard(number)
                status = _wait(number)
                _kill(number)
                control.sendall(_HEADER.pack(status))
            elif number in children:
                _kill(number)
                leaving.add(number)
            elif order == b"r":
                control.sendall(_HEADER.pack(0))
    except (OSError, KeyboardInterrupt):
        pass
    for pid in children:
        _kill(pid)
    os._exit(0)


def _reap(children: set[int], leaving: set[int]) -> None:
    for pid in list(leaving):
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                continue
        leaving.discard(pid)
        children.discard(pid)


def _wait(pid: int) -> int:
    """The exit code of a worker that has ended, or is about to; minus the signal that ended it."""
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        try:
            found, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return 0
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    _kill(pid)
    os.waitpid(pid, 0)
    return -int(signal.SIGKILL)


def _kill(pid: int) -> None:
    """The worker and what it forked; its group goes on after it, under its number."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _worker(control: socket.socket, end: socket.socket, slot: int, serve: Serve) -> None:
    code = 1
    try:
        control.close()
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        silence()
        serve(Channel(end), slot)
        code = 0
    finally:
        os._exit(code)


def silence() -> None:
    """Sends what this process prints nowhere: a reward's prints must not mix with a command's output."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def limit_memory(more_bytes: int) -> None:
    """From now on this process may take so many bytes more than it has; then allocations fail with MemoryError."""
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[0])
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more_bytes, hard))


def resident_bytes(pid: int | None = None) -> int:
    """Resident memory of a process (this one); 0 where that cannot be known."""
    try:
        with open(f"/proc/{pid or 'self'}/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0


def waited_s(schedstat: int) -> float:
    """Seconds that a process was ready to run and had no core, from its open /proc/N/schedstat; 0 where that cannot be
    known."""
    try:
        return int(os.pread(schedstat, 64, 0).split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def open_files() -> int:
    """How many files this process has open; 0 where that cannot be known."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def signal_name(code: int) -> str:
    """How a process ended, in words: "exit code 3", "SIGSEGV"."""
    if code >= 0:
        return f"exit code {code}"
    known: Collection[int] = [int(s) for s in signal.Signals]
    return signal.Signals(-code).name if -code in known else f"signal {-code}"
