"""Every topic of the contract. No other module writes a topic string.

::

    {root}/devices/{device_id}/intent | cancel | status                        device to brain
    {root}/devices/{device_id}/capabilities | telemetry | action/result | confirm
    {root}/devices/{device_id}/stop  {root}/fleet/stop                         on a connection of their own
    {root}/devices/{device_id}/reply | reply/stream | error                    brain to device
    {root}/devices/{device_id}/action | action/pending
    {root}/ai/status | health | metrics | alerts                               the brain about itself
    {root}/ai/echo                                                             the brain to itself

    {prefix}/device/{object_id}/config  {prefix}/status                        Home Assistant's discovery
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from naila.errors import ContractError
from naila.fleet import ID_RULE, is_id
from naila.mqtt.publication import Subscription

INTENT: Final = "intent"
CANCEL: Final = "cancel"
STATUS: Final = "status"
CAPABILITIES: Final = "capabilities"
TELEMETRY: Final = "telemetry"
RESULT: Final = "action/result"
STOP: Final = "stop"
CONFIRM: Final = "confirm"
REPLY: Final = "reply"
STREAM: Final = "reply/stream"
ERROR: Final = "error"
ACTION: Final = "action"
PENDING: Final = "action/pending"

DEVICE_LEAVES: Final = (INTENT, CANCEL, STATUS, CAPABILITIES, TELEMETRY, RESULT, STOP, CONFIRM)
BRAIN_LEAVES: Final = (REPLY, STREAM, ERROR, ACTION, PENDING)
WISHES: Final = frozenset({INTENT, CANCEL, RESULT, CONFIRM})

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MAX_RAW_ID = 256


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
        self.echo = f"{root}/ai/echo"
        self.fleet_stop = f"{root}/fleet/stop"
        self._devices = f"{root}/devices/"

    def device(self, device_id: str, leaf: str) -> str:
        """Return a device's topic for one of the leaves above."""
        return f"{self._devices}{device_id}/{leaf}"

    def intake(self) -> tuple[Subscription, ...]:
        """Return what the brain subscribes to, less the stops.

        A wish comes with the retain flag that it was published with, so that a retained one is recognised, and
        refused, when it is made; of the rest, the flag tells an old message from a live one.
        """
        return tuple(
            Subscription(self.device("+", leaf), retain_as_published=leaf in WISHES)
            for leaf in DEVICE_LEAVES
            if leaf != STOP
        )

    def stops(self) -> tuple[Subscription, ...]:
        """Return where the brain hears emergency stops: an old one is told from a live one, retained or not."""
        return tuple(
            Subscription(topic, retain_as_published=False) for topic in (self.device("+", STOP), self.fleet_stop)
        )

    def for_device(self, device_id: str) -> tuple[str, ...]:
        """Return what a device subscribes to."""
        return (*(self.device(device_id, leaf) for leaf in BRAIN_LEAVES), self.brain_status)

    def is_own(self, topic: str) -> bool:
        """Whether a topic lies inside the root, where only the contract decides who may publish."""
        return topic == self.root or topic.startswith(f"{self.root}/")

    def is_contract_leaf(self, leaf: str) -> bool:
        """Whether the contract gives a meaning to this topic of a device, or to one below it."""
        return any(leaf == known or leaf.startswith(f"{known}/") for known in (*DEVICE_LEAVES, *BRAIN_LEAVES))

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


class DiscoveryTopics:
    """The topics of Home Assistant's discovery, and the ids under which the brain and its devices appear there.

    Args:
        prefix: Home Assistant's discovery prefix.
        root: the contract's root topic.
    """

    def __init__(self, prefix: str, root: str) -> None:
        self.birth = f"{prefix}/status"
        self.configs = f"{prefix}/device/+/config"
        # No "_" in it, so that what follows the first one in an object id is the device's id.
        self.brain_id = root if re.fullmatch("[A-Za-z0-9-]+", root) else f"naila-{_digest(root)}"
        self._configs = f"{prefix}/device/"

    def object_id(self, device_id: str) -> str:
        """Return the id under which a device appears; no two are the same, nor that of the brain."""
        return f"{self.brain_id}_{device_id}"

    def device_id(self, object_id: str) -> str | None:
        """Return the device that appears under an id of ours; None for the brain, and for anybody else's."""
        own = f"{self.brain_id}_"
        raw = object_id.removeprefix(own)
        return raw if object_id.startswith(own) and is_id(raw) else None

    def config(self, object_id: str) -> str:
        """Return where the document of an id stands."""
        return f"{self._configs}{object_id}/config"

    def own_id(self, topic: str) -> str | None:
        """Return the id whose document stands at a topic, where it is one of ours."""
        object_id, _, leaf = topic.removeprefix(self._configs).partition("/")
        is_own = object_id == self.brain_id or self.device_id(object_id) is not None
        return object_id if is_own and leaf == "config" and topic.startswith(self._configs) else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _can_be_told(raw: str) -> bool:
    """A received level holds no wildcard, so that an answer on it reaches that device and nobody else."""
    return 0 < len(raw) <= _MAX_RAW_ID and not _CONTROL.search(raw) and "+" not in raw and "#" not in raw
