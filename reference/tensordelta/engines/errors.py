"""What can go wrong with a server that is driven."""

from __future__ import annotations

from typing import ClassVar


class ServerError(OSError):
    """An inference server did not do what it was asked for.

    Like `StoreError` it is outside the closed set: it is about the server, not the data. Where an update failed, the
    server goes on serving the version that it served before, unless `advice` says otherwise.

    Attributes:
        url: the server's address.
        operation: what failed, such as ``"update to version 5"``.
        cause: the message of the server, or of the client.
        advice: what to do about it.
    """

    default_advice: ClassVar[str] = "The server's log says more."

    def __init__(self, url: str, operation: str, cause: str, advice: str | None = None) -> None:
        self.url = url
        self.operation = operation
        self.cause = cause
        self.advice = self.default_advice if advice is None else advice
        super().__init__(f"{url}: {operation} failed: {cause.rstrip('.')}. {self.advice}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.url, self.operation, self.cause, self.advice)


class ServerUnavailableError(ServerError):
    """The server does not answer, or cannot be updated now: it is starting, asleep or gone. Nothing was begun."""

    default_advice = "Check the address, and that the server runs."


class ServerSetupError(ServerError):
    """The server cannot be driven as it was started, or as it was asked: trying again does not help."""

    default_advice = "Check the address, and how the server was started."
