"""What a person who looks into the memory is shown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from naila.ports import Fact, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalFact:
    """A fact and whom it is about.

    Attributes:
        user_id: the person; None for whoever speaks without saying who.
        fact: what is known.
    """

    user_id: str | None
    fact: Fact


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """What is remembered of one device.

    Attributes:
        device_id: which device.
        turns: oldest first, of all conversations.
        facts: by person, in the order in which they were first told.
    """

    device_id: str
    turns: tuple[Turn, ...]
    facts: tuple[PersonalFact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RememberedDevice:
    """A line of the list of devices.

    Attributes:
        device_id: which device.
        conversations: how many.
        turns: how many, in all.
        facts: how many, of all persons.
        last_said_at: when it last said something; None where only facts are left.
    """

    device_id: str
    conversations: int
    turns: int
    facts: int
    last_said_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What was removed.

    Attributes:
        turns: how many.
        facts: how many.
        replies: how many stored replies.
    """

    turns: int
    facts: int
    replies: int
