"""What a device is told to do: each action once, in time, as declared, and a true result for each."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from declared import Failed, problem

# An action under way yields once each step of the simulation; it returns its result, or raises Failed.
Work: TypeAlias = Generator[None, None, Any]

STOP = "stop"
STEP_S = 0.02
REMEMBERED = 100


def pause(seconds: float) -> Work:
    """Wait so many simulated seconds, as a part of an action."""
    for _ in range(round(seconds / STEP_S)):
        yield


@dataclass(frozen=True)
class Running:
    """An action under way.

    Attributes:
        name: as declared.
        group: which others it excludes.
        work: the rest of it.
    """

    name: str
    group: str | None
    work: Work


class Actions:
    """The actions of one device.

    Args:
        declared: as the device declared them, by name.
        methods: what does each of them: returns its result, or a generator that works at it.
        halt: makes the device stand still at once.
        answer: sends an `action/result`.
    """

    def __init__(
        self,
        declared: Mapping[str, dict[str, Any]],
        methods: Callable[[str], Callable[..., Any]],
        halt: Callable[[], None],
        answer: Callable[[dict[str, Any]], None],
    ) -> None:
        self._declared = declared
        self._methods = methods
        self._halt = halt
        self._answer = answer
        self._running: dict[str, Running] = {}
        self._results: dict[str, dict[str, Any] | None] = {}  # None: not finished

    def take(self, action: dict[str, Any]) -> None:
        """Do what an `action` message says."""
        action_id, name, arguments = action["id"], action["name"], action["arguments"]
        if action_id in self._results:  # with QoS 1 a message may come twice
            if result := self._results[action_id]:
                self._answer(result)
            return
        self._remember(action_id)
        try:
            if name == STOP:  # is never too late, and asks nobody
                self._finish(action_id, self.stop())
                return
            if datetime.now(UTC) > datetime.fromisoformat(action["expires_at"]):
                raise Failed(f"expired: it was to begin before {action['expires_at']}")
            result = self._begin(name, arguments)
            if isinstance(result, Generator):
                self._running[action_id] = Running(name, self._declared[name].get("group"), result)
                self._advance(action_id)
            else:
                self._finish(action_id, result)
        except Failed as failure:
            self._fail(action_id, failure)

    def stop(self) -> dict[str, list[str]]:
        """Stand still now; what was under way has failed."""
        self._halt()
        stopped = [running.name for running in self._running.values()]
        for action_id in list(self._running):
            self._advance(action_id, Failed("stopped"))
        return {"stopped": stopped}

    def advance(self) -> None:
        """Go on with what is under way by one step."""
        for action_id in list(self._running):
            self._advance(action_id)

    def _begin(self, name: str, arguments: dict[str, Any]) -> Any:
        if name == "set_parameter":
            return self._methods(name)(arguments.get("name"), arguments.get("value"))
        if name not in self._declared:
            raise Failed(f"unknown: {name}")
        if wrong := problem(self._declared[name], arguments):
            raise Failed(wrong)
        group = self._declared[name].get("group")
        for other in self._running.values():
            if group is not None and other.group == group:
                raise Failed(f"busy: {other.name} is under way")
        return self._methods(name)(**arguments)

    def _advance(self, action_id: str, interruption: Failed | None = None) -> None:
        work = self._running[action_id].work
        try:
            if interruption is None:
                next(work)
                return
            work.throw(interruption)  # where the action can say how far it came, it catches and raises its own
        except StopIteration as end:
            self._finish(action_id, end.value)
        except Failed as failure:
            self._fail(action_id, failure)
        del self._running[action_id]

    def _finish(self, action_id: str, result: Any) -> None:
        self._send({"id": action_id, "ok": True, "result": result})

    def _fail(self, action_id: str, failure: Failed) -> None:
        result = {} if failure.result is None else {"result": failure.result}
        self._send({"id": action_id, "ok": False, "error": str(failure), **result})

    def _send(self, result: dict[str, Any]) -> None:
        self._results[result["id"]] = result
        self._answer(result)

    def _remember(self, action_id: str) -> None:
        self._results[action_id] = None
        for old in [known for known in self._results if known not in self._running][:-REMEMBERED]:
            del self._results[old]
