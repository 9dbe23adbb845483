"""Every topic of the contract. No other module writes a topic string.

::

    {root}/devices/{device_id}/intent | cancel | status                        device to brain
    {root}/devices/{device_id}/reply | reply/stream | error                    brain to device
    {root}/ai/status | health | metrics | alerts                               the brain about itself
"""

from __future__ import annotations

import re
from typing import Final

from naila.errors import ContractError

ID_RULE: Final = "[A-Za-z0-9_-]{1,64}"
INTENT: Final = "intent"
CANCEL: Final = "cancel"
STATUS: Final = "status"
REPLY: Final = "reply"
STREAM: Final = "reply/stream"
ERROR: Final = "error"

DEVICE_LEAVES: Final = frozenset(
    {INTENT, CANCEL, STATUS, "capabilities", "telemetry", "action/result", "stop", "confirm"}
)
BRAIN_LEAVES: Final = frozenset({REPLY, STREAM, ERROR, "action", "action/pending"})

_ID = re.compile(ID_RULE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MAX_RAW_ID = 256


def is_id(value: str) -> bool:
    """Whether `value` may name a device, a request, a conversation, …."""
    return _ID.fullmatch(value) is not None


class Topics:
    """The topics under one root.

    Args:
        root: first topic level or levels, without a slash at either end.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.brain_status = f"{root}/ai/status"
        self.health = f"{root}/ai/health"
        self.metrics = f"{root}/ai/metrics"
        self.alerts = f"{root}/ai/alerts"
        self._devices = f"{root}/devices/"

    def device(self, device_id: str, leaf: str) -> str:
        """Return a device's topic for one of the leaves above."""
        return f"{self._devices}{device_id}/{leaf}"

    def intake(self) -> tuple[str, ...]:
        """Return what the brain subscribes to, with QoS 1."""
        return tuple(self.device("+", leaf) for leaf in (INTENT, CANCEL, STATUS))

    def for_device(self, device_id: str) -> tuple[str, ...]:
        """Return what a device subscribes to."""
        return (*(self.device(device_id, leaf) for leaf in (REPLY, STREAM, ERROR)), self.brain_status)

    def is_own(self, topic: str) -> bool:
        """Whether a topic lies inside the root, where only the contract decides who may publish."""
        return topic == self.root or topic.startswith(f"{self.root}/")

    def is_contract_leaf(self, leaf: str) -> bool:
        """Whether the contract gives a meaning to this topic of a device, or to one below it."""
        return any(leaf == known or leaf.startswith(f"{known}/") for known in DEVICE_LEAVES | BRAIN_LEAVES)

    def parse(self, topic: str) -> tuple[str, str]:
        """Split a device's topic into its device id and leaf.

        Raises:
            ContractError: `bad_topic`; carries the id as the topic has it where an error can be published to it.
        """
        raw, slash, leaf = topic.removeprefix(self._devices).partition("/")
        if not topic.startswith(self._devices) or not slash:
            raise ContractError("bad_topic", f"{topic[:300]!r} is not {self._devices}<device id>/<what>")
        if not is_id(raw):
            raise ContractError(
                "bad_topic",
                f"{topic[:300]!r}: the device id must be 1 to 64 letters, digits, '_' or '-' ({ID_RULE})",
                device_id=raw if _can_be_told(raw) else None,
            )
        return raw, leaf


def _can_be_told(raw: str) -> bool:
    """A received level holds no wildcard, so that an answer on it reaches that device and nobody else."""
    return 0 < len(raw) <= _MAX_RAW_ID and not _CONTROL.search(raw) and "+" not in raw and "#" not in raw
