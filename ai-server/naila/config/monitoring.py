"""What is watched and what an alert sets off, from `config/monitoring.yaml`: read once, validated, frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from naila.config.patterns import check_fields, read_document
from naila.events import Severity
from naila.fleet import ID_RULE

# What is filled into the text of `say`.
SAY_FIELDS: Final = frozenset({"name", "field", "value", "limit"})
MAX_RULES: Final = 500

_Id = Annotated[str, Field(pattern=f"^{ID_RULE}$")]
_DeviceGlob = Annotated[str, Field(pattern=r"^[A-Za-z0-9_*?-]{1,64}$")]
_Glob = Annotated[str, Field(min_length=1, max_length=64)]
_Figure = Annotated[float, Field(ge=-(2**53), le=2**53)]
_Wait = Annotated[float, Field(ge=0, le=86_400)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WantedAction(_Strict):
    """An action that an alert proposes; the envelope decides about it as about any other.

    Attributes:
        name: as the device declares it, or `stop`.
        arguments: its arguments.
        device: who should do it; None: the device that the alert is about.
    """

    name: _Id
    arguments: dict[str, JsonValue] = {}
    device: _Id | None = None


class WatchRule(_Strict):
    """One rule: what it is about, what is not normal, and what happens then.

    Attributes:
        field: the telemetry field; `*` stands for any characters, `?` for one.
        device: id of the device, likewise.
        room: the room that the device says it is in, likewise, whatever its case.
        above: more than this is not normal, in the field's own unit.
        below: less than this is not normal.
        hysteresis: how far a value must come back before the alert is over, in the field's own unit.
        for_s: how long a value must be out before there is an alert.
        stale_after_s: a field that says nothing for so long is stale.
        declared: whether the range that the device declared for these fields is still watched.
        severity: of the alert.
        message: what to do about it, told after the figures.
        say: what the device says to the people near it.
        action: what is to be done.
    """

    field: _Glob
    device: _DeviceGlob = "*"
    room: _Glob = "*"
    above: _Figure | None = None
    below: _Figure | None = None
    hysteresis: Annotated[float, Field(ge=0, le=2**53)] | None = None
    for_s: _Wait = 0.0
    stale_after_s: Annotated[float, Field(gt=0, le=604_800)] | None = None
    declared: bool = True
    severity: Severity = "warning"
    message: Annotated[str, Field(max_length=500)] = ""
    say: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    action: WantedAction | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        has_limit = self.above is not None or self.below is not None
        if not has_limit and self.stale_after_s is None and self.declared:
            raise ValueError("watches nothing: give above, below, stale_after_s, or declared: false")
        if not has_limit and self.stale_after_s is None and (self.say or self.action or self.message):
            raise ValueError("message, say and action belong to above, below or stale_after_s")
        if not has_limit and (self.hysteresis is not None or self.for_s):
            raise ValueError("hysteresis and for_s belong to above or below")
        if self.above is not None and self.below is not None and self.below >= self.above:
            raise ValueError(
                f"below ({self.below:g}) must be less than above ({self.above:g}): between them is what is normal"
            )
        return self


class DeclaredRanges(_Strict):
    """How the ranges are watched that devices declare themselves.

    Attributes:
        alert: whether they are.
        severity: of the alert.
        for_s: how long a value must be out before there is an alert.
    """

    alert: bool = True
    severity: Severity = "warning"
    for_s: _Wait = 0.0


class OfflineDevices(_Strict):
    """What happens when a device that was there goes.

    Attributes:
        alert: whether that is an alert.
        severity: of the alert.
        for_s: how long it must be gone; whoever only reconnects is back by then.
    """

    alert: bool = True
    severity: Severity = "warning"
    for_s: _Wait = 30.0


class MonitoringRules(_Strict):
    """The file.

    Attributes:
        hysteresis_percent: of the normal range, or of the limit where there is no range: how far a value must come
            back before its alert is over, where a rule does not say.
        alerts_per_minute: most alerts about one device in any minute; what is too much waits.
        declared: the ranges that devices declare.
        offline: devices that go.
        rules: all that fit hold; where one says `above`, or `below`, that side of the declared range is not watched.
    """

    hysteresis_percent: Annotated[float, Field(ge=0, le=50)] = 2.0
    alerts_per_minute: Annotated[int, Field(ge=1, le=600)] = 10
    declared: DeclaredRanges = DeclaredRanges()
    offline: OfflineDevices = OfflineDevices()
    rules: Annotated[tuple[WatchRule, ...], Field(max_length=MAX_RULES)] = ()


def load_monitoring(path: Path) -> MonitoringRules:
    """Read the monitoring file.

    Raises:
        ConfigurationError: names the file, the place in it and what is wrong.
    """
    document = read_document(path, MonitoringRules)
    for index, rule in enumerate(document.rules):
        check_fields(f"{path}: rules.{index}.say", rule.say or "", SAY_FIELDS)
    return document
