"""Errors that a user can cause: one line that names the thing and the fix, and the exit code of the command line."""

from __future__ import annotations


class OfframpError(Exception):
    """Base of every error with a one-line message for the user; `exit_code` is what the command line ends with."""

    exit_code = 1


class ConfigError(OfframpError):
    """A task file, a config or the command line is wrong."""

    exit_code = 2


class DataError(OfframpError):
    """Documents, traces or gold are wrong."""

    exit_code = 3


class RewardError(OfframpError):
    """A reward function broke its contract."""

    exit_code = 4


class InfraError(OfframpError):
    """The machine, a library or a process failed."""

    exit_code = 5


class Paused(InfraError):
    """Something outside is out of order for too long. The run is saved, and the same command goes on."""
