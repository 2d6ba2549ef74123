"""Errors that are the user's to mend: one message, and the exit code of the command line."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend. The command line prints the message and exits with `exit_code`."""

    exit_code = 2


class ServerError(UserError):
    """A model server failed for good (exit code 4)."""

    exit_code = 4


class NotRunnableHere(UserError):
    """A valid recipe that this machine lacks something for (exit code 5)."""

    exit_code = 5


class BudgetReached(UserError):
    """The recipe's budget is spent (exit code 3)."""

    exit_code = 3


class BooksDoNotBalance(RuntimeError):
    """What was billed and what was said do not agree: a fault of ours, never the user's."""
