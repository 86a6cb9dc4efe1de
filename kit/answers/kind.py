"""What every kind of answer can be asked. A task has one kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable

Answer = Hashable  # what a kind reads out of a text; two answers of one kind that say the same are equal


class AnswerKind(ABC):
    """How answers are read and judged. Objects of a kind are equal where they judge alike."""

    takes_values = False  # may the data hold an object, a list, true or false? It is read as JSON text then

    @property
    @abstractmethod
    def wanted(self) -> str:
        """What an answer block must hold, to be put after "does not hold"."""

    @abstractmethod
    def read(self, block: str) -> Answer | None:
        """What an answer block says, or ``None``: it is not understood, or says more than one thing."""

    @abstractmethod
    def find(self, text: str) -> Answer | None:
        """What a whole reply says whose tags are not as they should be. For evaluation only, never for a reward."""

    @abstractmethod
    def gold(self, text: str) -> Answer:
        """The right answer of a data set's row.

        Raises:
            ValueError: it is none.
        """

    def gold_text(self, text: str) -> str:
        """The right answer of a row without what else is said there: a text that ``gold`` reads as the same."""
        return str(self.gold(text))

    def is_right(self, answer: Answer, gold: Answer) -> bool:
        """The verdict."""
        return answer == gold

    def doubt(self, _golds: list[str]) -> str | None:
        """A sentence where a data set's answers, though each can be read, may mean something else."""
        return None
