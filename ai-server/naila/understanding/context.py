"""The context: what is known where a wish is read, and what can come of one."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from naila.fleet import FleetView
from naila.understanding.fleet_index import Compiled
from naila.understanding.frames import Frame
from naila.understanding.reading import AskBack, CannotDo, Doubtful, NotACommand, StateQuestion, Step

Decision: TypeAlias = tuple[Step, ...] | AskBack | CannotDo | Doubtful | StateQuestion | NotACommand

Part: TypeAlias = tuple[Decision, tuple[Frame, ...]] | Literal["harmless"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What is known where a wish is read.

    Attributes:
        view: the fleet.
        fleet: the same, compiled.
        about: the device that was spoken of before.
        known: clauses of this text that were read already.
        before: frames that the wish before, in the same text, came to.
    """

    view: FleetView
    fleet: Compiled
    about: str | None = None
    before: tuple[Frame, ...] = ()
    known: dict[Hashable, Part] = field(default_factory=dict)

    @property
    def own(self) -> str | None:
        """Id of the device that is spoken to, if it declared anything."""
        return self.view.speaker if self.view.device(self.view.speaker) else None
