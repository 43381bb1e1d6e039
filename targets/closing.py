"""What every runner shares: a `with` block that closes it at its end."""

from __future__ import annotations

import abc
from types import TracebackType
from typing import TypeVar

T = TypeVar("T", bound="Closing")


class Closing(abc.ABC):
    """A context manager of something that has to be closed."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give every resource back; a second call does nothing."""

    def __enter__(self: T) -> T:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
