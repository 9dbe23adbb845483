"""Who may move whom: the rules of `config/permissions.yaml`, applied. The emergency stop never comes here."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from naila.config.permissions import SPEAKER, Effect, PermissionRule, PermissionRules
from naila.fleet import DeviceProfile, Proposal


class Permissions:
    """Answers from the rules alone; it keeps nothing.

    Args:
        rules: the file, as read.
    """

    def __init__(self, rules: PermissionRules) -> None:
        self._rules = rules

    def effect(self, proposal: Proposal, profile: DeviceProfile) -> Effect:
        """Return what the first rule that fits says, else the default."""
        for rule in self._rules.rules:
            if (
                _fits(proposal.user_id, rule.user)
                and (not rule.by or proposal.by in rule.by)
                and _about(rule, proposal.speaker, profile)
                and _any(proposal.name, rule.actions)
            ):
                return rule.effect
        return self._rules.default

    def may_approve(self, speaker: str) -> bool:
        """Whether a yes counts that a person says through this device."""
        return _any(speaker, self._rules.approvers)


def _about(rule: PermissionRule, speaker: str, profile: DeviceProfile) -> bool:
    device = profile.device_id == speaker if rule.device == SPEAKER else fnmatchcase(profile.device_id, rule.device)
    room = profile.room.casefold() if profile.room is not None else None
    return device and _fits(speaker, rule.speaker) and _fits(room, rule.room.casefold())


def _fits(value: str | None, glob: str) -> bool:
    return glob == "*" if value is None else fnmatchcase(value, glob)


def _any(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
