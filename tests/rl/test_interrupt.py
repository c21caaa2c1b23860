import os
import signal

import pytest

from rl.interrupt import Interrupts, Stopped


def test_sigterm_raises_at_once() -> None:
    with Interrupts(), pytest.raises(Stopped) as stopped:
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.exit_code == 143


def test_a_held_block_is_finished_first() -> None:
    done = []
    with Interrupts() as interrupts, pytest.raises(Stopped):
        with interrupts.held():
            os.kill(os.getpid(), signal.SIGTERM)
            with interrupts.held():
                done.append("weights")
            done.append("record")
        done.append("next step")
    assert done == ["weights", "record"]


def test_an_error_in_a_held_block_is_not_hidden_by_the_signal() -> None:
    with Interrupts() as interrupts, pytest.raises(ZeroDivisionError), interrupts.held():
        os.kill(os.getpid(), signal.SIGTERM)
        raise ZeroDivisionError


def test_the_handlers_before_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_no_except_exception_swallows_it() -> None:
    assert not issubclass(Stopped, Exception)
