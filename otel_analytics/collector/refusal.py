"""A request that is turned down as a whole."""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818 - the name of an answer, not of a fault in this program
    """Answers the request with ``status`` and ``errors``; nothing of it is stored."""

    def __init__(self, status: int, *errors: str) -> None:
        super().__init__(status, *errors)
        self.status = status
        self.errors = list(errors)


class Rejection(Refusal):
    """A single event that breaks the contract: 400. It counts among the events, not among the requests."""

    def __init__(self, *errors: str) -> None:
        super().__init__(400, *errors)
