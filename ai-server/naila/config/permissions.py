"""Who may move whom, and whose yes counts, from `config/permissions.yaml`: read once, validated, frozen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from naila.config.patterns import read_document
from naila.fleet import ProposedBy

Effect = Literal["allow", "deny", "confirm"]
# In the place of a device: the one through which somebody speaks. No id can look like it.
SPEAKER: Final = "@speaker"

_Glob = Annotated[str, Field(pattern=r"^[A-Za-z0-9_*?-]{1,64}$")]
_DeviceGlob = Annotated[str, Field(pattern=r"^([A-Za-z0-9_*?-]{1,64}|@speaker)$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class PermissionRule:
    """One line of the file: whom it is about, and what it says. `*` stands for any characters, `?` for one.

    Attributes:
        effect: what holds where the rule fits.
        speaker: id of the device through which somebody speaks.
        user: id of the person; only `*` fits somebody who is not known.
        device: id of the device that is to move, or `@speaker`.
        room: the room that the device to move says it is in, whatever its case; only `*` fits a device without one.
        actions: names of actions, of which one must fit.
        by: what understood the wish, of which one must fit; empty: whatever it was.
    """

    effect: Effect
    speaker: str = "*"
    user: str = "*"
    device: str = "*"
    room: str = "*"
    actions: tuple[str, ...] = ("*",)
    by: tuple[ProposedBy, ...] = ()


@dataclass(frozen=True, slots=True)
class PermissionRules:
    """The file.

    Attributes:
        default: what holds where no rule fits.
        rules: in order; the first that fits decides.
        approvers: ids of the devices through which a person may approve what was asked there; one must fit.
    """

    default: Effect = "allow"
    rules: tuple[PermissionRule, ...] = ()
    approvers: tuple[str, ...] = ("*",)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Rule(_Strict):
    effect: Effect
    speaker: _Glob = "*"
    user: _Glob = "*"
    device: _DeviceGlob = "*"
    room: Annotated[str, Field(min_length=1, max_length=64)] = "*"
    actions: Annotated[tuple[_Glob, ...], Field(min_length=1)] = ("*",)
    by: Annotated[tuple[ProposedBy, ...], Field(min_length=1)] | None = None


class _Document(_Strict):
    default: Effect
    approvers: tuple[_Glob, ...] = ("*",)
    rules: tuple[_Rule, ...] = ()


def load_permissions(path: Path) -> PermissionRules:
    """Read the permissions file. There is no default for a missing one: a lost file must not mean that all is allowed.

    Raises:
        ConfigurationError: names the file, the place in it and what is wrong.
    """
    document = read_document(path, _Document)
    return PermissionRules(
        default=document.default,
        approvers=document.approvers,
        rules=tuple(
            PermissionRule(
                effect=rule.effect,
                speaker=rule.speaker,
                user=rule.user,
                device=rule.device,
                room=rule.room,
                actions=rule.actions,
                by=rule.by or (),
            )
            for rule in document.rules
        ),
    )
