"""What alerts say: the figure, the limit, and what to do. Texts of devices are data here, shown and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from naila.devices.plain_json import named
from naila.devices.schema_words import either, value_words
from naila.devices.watch import Watch
from naila.fleet import DeviceProfile

_MAX_NAMED: Final = 5


def who(device_id: str, profile: DeviceProfile | None) -> str:
    """Return what people call a device: `Rover (kitchen)`."""
    if profile is None:
        return device_id
    name = named(profile.name)
    return f"{name} ({named(profile.room)})" if profile.room else name


def fields_words(fields: Sequence[str]) -> str:
    """Return fields as they are spoken of: `motor temperature and payload`."""
    more = [f"{len(fields) - _MAX_NAMED} more"] if len(fields) > _MAX_NAMED else []
    return either([*(value_words(name.replace("_", " ")) for name in fields[:_MAX_NAMED]), *more], "and")


def figure(value: float, field: str, profile: DeviceProfile | None) -> str:
    """Return a value with its field's unit: `18.3 %`."""
    spec = profile.telemetry.get(field) if profile is not None else None
    return value_words(float(f"{value:.6g}"), spec.unit if spec is not None else None)


def raised(
    device_id: str, profile: DeviceProfile | None, watch: Watch, value: float, silent: Sequence[str] = ()
) -> str:
    """Return what is not normal."""
    called = who(device_id, profile)
    if watch.code == "device_offline":
        return f"{called} is offline"
    if watch.code == "telemetry_stale":
        return f"{called}: nothing of {fields_words(silent)} for {value:.0f} s, the limit is {watch.limit:g} s"
    side = "above" if watch.code == "telemetry_high" else "below"
    return f"{called}: {fields_words([watch.field])} is {_figures(watch, value, profile, side)}"


def over(device_id: str, profile: DeviceProfile | None, watch: Watch, value: float, *, watched: bool) -> str:
    """Return that something is normal again, or is not watched any more."""
    called = who(device_id, profile)
    if watch.code == "device_offline":
        return f"{called} is back"
    if not watched:
        return f"{called}: {fields_words([watch.field])} is not watched any more as it was"
    if watch.code == "telemetry_stale":
        return f"{called}: {'telemetry' if watch.field == '*' else fields_words([watch.field])} comes again"
    side = "back below" if watch.code == "telemetry_high" else "back above"
    return f"{called}: {fields_words([watch.field])} is {_figures(watch, value, profile, side)}"


def sayings(
    device_id: str, profile: DeviceProfile | None, watch: Watch, value: float, silent: Sequence[str] = ()
) -> Mapping[str, str]:
    """Return what is filled into the text of `say`."""
    is_age = watch.code == "telemetry_stale"
    return {
        "name": named(profile.name) if profile is not None else device_id,
        "field": fields_words(silent or [watch.field]),
        "value": f"{value:.0f} s" if is_age else figure(value, watch.field, profile),
        "limit": f"{watch.limit or 0:g} s" if is_age else figure(watch.limit or 0.0, watch.field, profile),
    }


def _figures(watch: Watch, value: float, profile: DeviceProfile | None, side: str) -> str:
    limit = 0.0 if watch.limit is None else watch.limit
    return f"{figure(value, watch.field, profile)}, {side} {figure(limit, watch.field, profile)}"
