"""What is watched of a device: its limits, and when one is broken and when that is over.

Pure: what follows is `naila.devices.monitoring`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from naila.config.monitoring import DeclaredRanges, MonitoringRules, WatchRule
from naila.events import Severity
from naila.fleet import DeviceProfile, TelemetrySpec

WatchCode = Literal["telemetry_high", "telemetry_low", "telemetry_stale", "device_offline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """One limit of one device.

    Attributes:
        code: the alert's.
        field: the telemetry field; of `telemetry_stale` the fields, as the rule names them.
        limit: what must not be crossed: of `telemetry_stale` the age in seconds.
        clear_at: the value at which the alert is over.
        severity: of the alert.
        for_s: how long it must last before there is an alert.
        rule: position in the file of the rule that it comes from; None: of no rule.
    """

    code: WatchCode
    field: str = ""
    limit: float | None = None
    clear_at: float = 0.0
    severity: Severity = "warning"
    for_s: float = 0.0
    rule: int | None = None

    def is_broken(self, value: float) -> bool:
        """Whether a value is not normal."""
        if self.limit is None:
            return False
        return value < self.limit if self.code == "telemetry_low" else value > self.limit

    def is_over(self, value: float) -> bool:
        """Whether a value is well inside again."""
        return value >= self.clear_at if self.code == "telemetry_low" else value <= self.clear_at


def fits(rule: WatchRule, device_id: str, profile: DeviceProfile | None) -> bool:
    """Whether a rule is about a device."""
    room = profile.room.casefold() if profile is not None and profile.room is not None else None
    in_room = rule.room == "*" if room is None else fnmatchcase(room, rule.room.casefold())
    return in_room and fnmatchcase(device_id, rule.device)


def limits_of(rules: MonitoringRules, device_id: str, profile: DeviceProfile | None, field: str) -> tuple[Watch, ...]:
    """Return the limits of a field: those of the file, then what the device declared and no rule replaces."""
    spec = profile.telemetry.get(field) if profile is not None else None
    spec = spec or TelemetrySpec()
    found: list[Watch] = []
    is_declared = rules.declared.alert
    for index, rule in enumerate(rules.rules):
        if fits(rule, device_id, profile) and fnmatchcase(field, rule.field):
            is_declared = is_declared and rule.declared
            found += _range(rules, field, spec, rule, index)
    if is_declared:
        replaced = {watch.code for watch in found}
        found += [watch for watch in _range(rules, field, spec, rules.declared) if watch.code not in replaced]
    return tuple(found)


def silences_of(rules: MonitoringRules, device_id: str, profile: DeviceProfile | None) -> tuple[Watch, ...]:
    """Return how long which fields of a device may say nothing."""
    return tuple(
        Watch(
            code="telemetry_stale",
            field=rule.field,
            limit=rule.stale_after_s,
            clear_at=rule.stale_after_s,
            severity=rule.severity,
            rule=index,
        )
        for index, rule in enumerate(rules.rules)
        if rule.stale_after_s is not None and fits(rule, device_id, profile)
    )


def absence_of(rules: MonitoringRules) -> Watch | None:
    """Return how long a device may be gone, where that is watched."""
    offline = rules.offline
    return Watch(code="device_offline", severity=offline.severity, for_s=offline.for_s) if offline.alert else None


def _range(
    rules: MonitoringRules, field: str, spec: TelemetrySpec, given: WatchRule | DeclaredRanges, rule: int | None = None
) -> Iterator[Watch]:
    """Yield the limits that a rule sets for a field, or the device, where it is no rule's."""
    above, below, wanted = spec.maximum, spec.minimum, None
    if isinstance(given, WatchRule):
        above, below, wanted = given.above, given.below, given.hysteresis
    low = spec.minimum if below is None else below
    high = spec.maximum if above is None else above
    limits: tuple[tuple[WatchCode, float | None, int], ...] = (
        ("telemetry_high", above, -1),
        ("telemetry_low", below, 1),
    )
    for code, limit, inward in limits:
        if limit is not None:
            yield Watch(
                code=code,
                field=field,
                limit=limit,
                clear_at=limit + inward * _hysteresis(rules, limit, low, high, wanted),
                severity=given.severity,
                for_s=given.for_s,
                rule=rule,
            )


def _hysteresis(
    rules: MonitoringRules, limit: float, low: float | None, high: float | None, wanted: float | None
) -> float:
    """Return how far a value must come back; in the middle of what is normal, every alert is over."""
    share = rules.hysteresis_percent / 100
    if low is None or high is None or low > high:
        return share * abs(limit) if wanted is None else wanted
    return min(share * (high - low) if wanted is None else wanted, (high - low) / 2)
