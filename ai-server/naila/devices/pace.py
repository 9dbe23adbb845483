"""How often: the declared interval of an action, and hard limits for each device and each request."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

from naila.fleet import ActionSpec, Proposal, is_id

# Of each kind; the least recently used are forgotten first.
_MAX_KEYS: Final = 4096
_MAX_ACTIONS: Final = 256
_MAX_REQUESTS: Final = 1024
_REQUEST_S: Final = 600.0


class Window:
    """Counts events by key over the last seconds. Bounded: in keys, and in what it keeps of each.

    Args:
        limit: most events of one key within the window.
        seconds: length of the window.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit: Final = limit
        self.seconds: Final = seconds
        self._times: Final[OrderedDict[str, deque[float]]] = OrderedDict()

    def wait_s(self, key: str, now: float) -> float:
        """Return the seconds until another event fits; 0 where it fits now."""
        times = self._times.get(key)
        if times is None or len(times) < self.limit:
            return 0.0
        return max(0.0, self.seconds - (now - times[-self.limit]))

    def count(self, key: str, now: float) -> None:
        """Note an event."""
        times = self._times.setdefault(key, deque(maxlen=self.limit))
        times.append(now)
        self._times.move_to_end(key)
        while len(self._times) > _MAX_KEYS:
            self._times.popitem(last=False)


@dataclass(slots=True)
class Request:
    """What one request has had done.

    Attributes:
        used_at: when it last asked for something, on the monotonic clock.
        sent: how many actions were sent for it.
        devices: whom it moved, or asked to move.
        stopped: an emergency stop ended it.
    """

    used_at: float
    sent: int = 0
    devices: set[str] = field(default_factory=set)
    stopped: bool = False


class Requests:
    """The requests of the last minutes, by speaker and id; bounded, and forgotten when idle for ten minutes."""

    def __init__(self) -> None:
        self._requests: Final[OrderedDict[tuple[str, str], Request]] = OrderedDict()

    def of(self, proposal: Proposal, now: float) -> Request:
        """Return the request that a proposal comes from."""
        key = (proposal.speaker, proposal.request_id)
        if not (is_id(key[0]) and is_id(key[1])):
            return Request(now)
        request = self._requests.get(key)
        if request is None or now - request.used_at > _REQUEST_S:
            request = self._requests[key] = Request(now)
        request.used_at = now
        self._requests.move_to_end(key)
        while len(self._requests) > _MAX_REQUESTS:
            self._requests.popitem(last=False)
        return request

    def stop(self, device_id: str | None) -> None:
        """End those that moved a device or came through it; None: all."""
        for (speaker, _), request in self._requests.items():
            if device_id is None or speaker == device_id or device_id in request.devices:
                request.stopped = True


class Pace:
    """Knows when what was sent. It belongs to the event loop's thread.

    Args:
        per_minute: most actions to one device within any minute.
        per_request: most actions of one request.
    """

    def __init__(self, *, per_minute: int, per_request: int) -> None:
        self._per_request: Final = per_request
        self._devices: Final = Window(per_minute, 60.0)
        self._last: Final[OrderedDict[str, dict[str, float]]] = OrderedDict()

    def refusal(self, device_id: str, spec: ActionSpec, request: Request, now: float) -> str | None:
        """Return why this would be too much, with what is allowed, or None."""
        if request.sent >= self._per_request:
            return f"{spec.name}: this request asks for {request.sent + 1} actions, {self._per_request} are allowed"
        last = self._last.get(device_id, {}).get(spec.name)
        since_ms = None if last is None else (now - last) * 1000
        if since_ms is not None and since_ms < spec.min_interval_ms:
            return (
                f"{spec.name}: asked {since_ms:.0f} ms after the last one, allowed every {spec.min_interval_ms} ms: "
                f"try again in {spec.min_interval_ms - since_ms:.0f} ms"
            )
        if (wait_s := self._devices.wait_s(device_id, now)) > 0:
            return (
                f"{spec.name}: {device_id} got {self._devices.limit} actions within a minute, more are not allowed: "
                f"try again in {wait_s:.0f} s"
            )
        return None

    def count(self, device_id: str, spec: ActionSpec, request: Request, now: float) -> None:
        """Note that this is being sent."""
        request.sent += 1
        self._devices.count(device_id, now)
        last = self._last.setdefault(device_id, {})
        last.pop(spec.name, None)
        last[spec.name] = now
        if len(last) > _MAX_ACTIONS:
            del last[next(iter(last))]
        self._last.move_to_end(device_id)
        while len(self._last) > _MAX_KEYS:
            self._last.popitem(last=False)
