"""Watching what devices measure, and whether they are there: alerts, once for each crossing."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from naila.config.monitoring import MonitoringRules
from naila.devices import alert_words as words
from naila.devices.pace import Window
from naila.devices.registry import Registry
from naila.devices.speaking_first import SpeakingFirst
from naila.devices.watch import Watch, absence_of, limits_of, silences_of
from naila.events import Alert, Telemetry
from naila.fleet import MAX_FIELDS, MAX_NAME_CHARS
from naila.ports import Clock, Publisher

_log = logging.getLogger(__name__)

MAX_DEVICES: Final = 1024
# Of one device; beyond that nothing new is raised until something is over.
MAX_STANDING: Final = 256
# An alert stands at least so long, however often the value comes and goes.
HOLD_S: Final = 10.0
SWEEP_S: Final = 1.0


@dataclass(slots=True)
class _Standing:
    """Something that is not normal.

    Attributes:
        since: when it began.
        raised_at: when it had lasted long enough, and what it sets off was set off; None: not yet.
        is_told: whether it was told; not where too much was within the last minute.
        is_over: whether it is normal again, and only that has not been told.
        is_watched: whether what it broke is still watched.
        value: the last figure.
    """

    since: float
    raised_at: float | None = None
    is_told: bool = False
    is_over: bool = False
    is_watched: bool = True
    value: float = 0.0


@dataclass(slots=True)
class _Device:
    """What is known of one device.

    Attributes:
        limits: what is watched of a field, worked out when it was first heard.
        heard: for each watch for silence, when each of its fields was heard last.
        standing: what is not normal.
        was_online: whether it was there since we watch.
    """

    limits: dict[str, tuple[Watch, ...]] = field(default_factory=dict)
    heard: dict[Watch, dict[str, float]] = field(default_factory=dict)
    standing: dict[Watch, _Standing] = field(default_factory=dict)
    was_online: bool = False


class Monitor:
    """Keeps what stands out, and nothing of what is normal. Belongs to the event loop's thread; keep `run` running.

    Args:
        rules: the file.
        registry: what devices declared, and who is there. Tell `changed` what it tells.
        reactions: does what a rule wants when it raises an alert.
        publisher: the way out of alerts.
        clock: the time.
    """

    def __init__(
        self,
        rules: MonitoringRules,
        *,
        registry: Registry,
        reactions: SpeakingFirst,
        publisher: Publisher,
        clock: Clock,
    ) -> None:
        self._rules: Final = rules
        self._registry: Final = registry
        self._reactions: Final = reactions
        self._publisher: Final = publisher
        self._clock: Final = clock
        self._absence: Final = absence_of(rules)
        self._devices: Final[OrderedDict[str, _Device]] = OrderedDict()
        self._told: Final = Window(rules.alerts_per_minute, 60.0)

    def measure(self, event: Telemetry) -> None:
        """Look at what a device measured."""
        now = self._clock.monotonic()
        device = self._device(event.device_id)
        for name, value in event.values.items():
            if not 0 < len(name) <= MAX_NAME_CHARS:
                continue
            limits = self._limits(event.device_id, device, name)
            for heard in device.heard.values():
                if name in heard:
                    heard[name] = now
            if isinstance(value, int | float) and math.isfinite(value):
                for watch in limits:
                    self._see(event.device_id, device, watch, float(value))
        self._see_silence(event.device_id, device)

    def changed(self, device_id: str) -> None:
        """Learn that a device's declaration or presence changed, or that it is not known any more."""
        online = self._registry.is_online(device_id)
        if online is None and self._registry.profile(device_id) is None:
            self._devices.pop(device_id, None)
            return
        device = self._device(device_id)
        self._look_anew(device_id, device)
        self._see_presence(device_id, device, online)

    def sweep(self) -> None:
        """Look at what only time changes: what lasts, what is over, and who is silent."""
        for device_id, device in self._devices.items():
            self._see_silence(device_id, device)
            for watch in list(device.standing):
                self._settle(device_id, device, watch)

    async def run(self) -> None:
        """Sweep for ever, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep()

    def _device(self, device_id: str) -> _Device:
        device = self._devices.get(device_id)
        if device is None:
            device = self._devices[device_id] = _Device()
            self._look_anew(device_id, device)
            if len(self._devices) > MAX_DEVICES:
                self._devices.popitem(last=False)
        self._devices.move_to_end(device_id)
        return device

    def _look_anew(self, device_id: str, device: _Device) -> None:
        """Work out again what is watched; what is not any more does not stand out any more either."""
        device.limits.clear()
        profile, now = self._registry.profile(device_id), self._clock.monotonic()
        declared = tuple(profile.telemetry) if profile is not None else ()
        before, device.heard = device.heard, {}
        for watch in silences_of(self._rules, device_id, profile):
            heard = before.get(watch, {})
            names = (name for name in (*declared, *heard) if fnmatchcase(name, watch.field))
            device.heard[watch] = {name: heard.get(name, now) for name in list(dict.fromkeys(names))[:MAX_FIELDS]}
        for watch, standing in list(device.standing.items()):
            if not self._is_watched(device_id, device, watch):
                standing.is_over, standing.is_watched = True, False
                self._settle(device_id, device, watch)

    def _is_watched(self, device_id: str, device: _Device, watch: Watch) -> bool:
        if watch.code == "device_offline":
            return True
        if watch.code == "telemetry_stale":
            return watch in device.heard
        return watch in limits_of(self._rules, device_id, self._registry.profile(device_id), watch.field)

    def _limits(self, device_id: str, device: _Device, name: str) -> tuple[Watch, ...]:
        found = device.limits.get(name)
        if found is None:
            if len(device.limits) >= MAX_FIELDS:
                device.limits.clear()
            found = limits_of(self._rules, device_id, self._registry.profile(device_id), name)
            device.limits[name] = found
            for watch, heard in device.heard.items():
                if fnmatchcase(name, watch.field) and len(heard) < MAX_FIELDS:
                    heard.setdefault(name, self._clock.monotonic())
        return found

    def _see(self, device_id: str, device: _Device, watch: Watch, value: float) -> None:
        if watch not in device.standing and not watch.is_broken(value):
            return
        standing = self._standing(device_id, device, watch)
        if standing is None:
            return
        standing.value = value
        # What was raised is over with some distance; what was not, as soon as it is no more.
        standing.is_over = watch.is_over(value) if standing.raised_at is not None else not watch.is_broken(value)
        self._settle(device_id, device, watch)

    def _see_silence(self, device_id: str, device: _Device) -> None:
        now = self._clock.monotonic()
        for watch, heard in device.heard.items():
            age = now - min(heard.values(), default=now)
            is_broken = watch.is_broken(age)
            # Of a device that is not there, its absence is told and not its silence.
            if watch not in device.standing and (not is_broken or self._registry.is_online(device_id) is False):
                continue
            standing = self._standing(device_id, device, watch)
            if standing is not None:
                standing.value, standing.is_over = age, not is_broken
                self._settle(device_id, device, watch)

    def _see_presence(self, device_id: str, device: _Device, online: bool | None) -> None:
        watch = self._absence
        is_gone = online is False and device.was_online
        if watch is not None and (is_gone or watch in device.standing):
            standing = self._standing(device_id, device, watch)
            if standing is not None:
                standing.is_over = not is_gone
                self._settle(device_id, device, watch)
        if online:
            device.was_online = True
            now = self._clock.monotonic()
            for silence, heard in device.heard.items():
                if silence not in device.standing:
                    # Whoever comes back gets the time to measure something.
                    heard.update(dict.fromkeys(heard, now))

    def _standing(self, device_id: str, device: _Device, watch: Watch) -> _Standing | None:
        standing = device.standing.get(watch)
        if standing is None and len(device.standing) >= MAX_STANDING:
            _log.warning("%s: %d things are not normal: no more are watched", device_id, MAX_STANDING)
        elif standing is None:
            standing = device.standing[watch] = _Standing(self._clock.monotonic())
        return standing

    def _settle(self, device_id: str, device: _Device, watch: Watch) -> None:
        """Do what is due by now. What sets something off does so at once; what may not be told now, a later sweep will.

        An alert that is over before it could be told is only logged.
        """
        standing, now = device.standing[watch], self._clock.monotonic()
        if standing.raised_at is None:
            if standing.is_over:
                del device.standing[watch]
                return
            if now - standing.since < watch.for_s:
                return
            standing.raised_at = now
            self._react(device_id, device, watch, standing.value)
        has_room = self._told.wait_s(device_id, now) <= 0
        if not standing.is_told and has_room:
            standing.is_told = True
            self._tell(self._alert(device_id, device, watch, standing.value))
        elif standing.is_over and now - standing.raised_at >= HOLD_S and (has_room or not standing.is_told):
            del device.standing[watch]
            if standing.is_told:
                self._tell(self._ending(device_id, watch, standing))
            else:
                _log.warning("%s: %s of %s came and went untold", device_id, watch.code, watch.field)

    def _react(self, device_id: str, device: _Device, watch: Watch, value: float) -> None:
        if watch.rule is None:
            return
        filled = words.sayings(device_id, self._registry.profile(device_id), watch, value, self._silent(device, watch))
        alert = self._alert(device_id, device, watch, value)
        self._reactions.react(device_id, self._rules.rules[watch.rule], alert, filled)

    def _silent(self, device: _Device, watch: Watch) -> tuple[str, ...]:
        now = self._clock.monotonic()
        return tuple(name for name, at in device.heard.get(watch, {}).items() if watch.is_broken(now - at))

    def _alert(self, device_id: str, device: _Device, watch: Watch, value: float) -> Alert:
        profile = self._registry.profile(device_id)
        text = words.raised(device_id, profile, watch, value, self._silent(device, watch))
        advice = self._rules.rules[watch.rule].message if watch.rule is not None else ""
        return Alert(
            code=watch.code,
            severity=watch.severity,
            message=f"{text}. {advice}" if advice else text,
            device_id=device_id,
            value=value if watch.limit is not None else None,
            threshold=watch.limit,
        )

    def _ending(self, device_id: str, watch: Watch, standing: _Standing) -> Alert:
        profile = self._registry.profile(device_id)
        has_figure = watch.limit is not None and standing.is_watched
        return Alert(
            code=f"{watch.code}_cleared",
            severity="info",
            message=words.over(device_id, profile, watch, standing.value, watched=standing.is_watched),
            device_id=device_id,
            value=standing.value if has_figure else None,
            threshold=watch.limit if has_figure else None,
        )

    def _tell(self, alert: Alert) -> None:
        self._told.count(alert.device_id or "", self._clock.monotonic())
        _log.log(logging.INFO if alert.severity == "info" else logging.WARNING, "%s: %s", alert.code, alert.message)
        self._publisher.publish(alert)
