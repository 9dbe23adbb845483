"""The wire form of what devices send."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from naila.errors import ContractError
from naila.events import (
    DEFAULT_CONVERSATION,
    ActionResult,
    Cancel,
    Capabilities,
    Confirmation,
    DeviceStatus,
    EmergencyStop,
    Inbound,
    Intent,
    JsonValue,
    Telemetry,
)
from naila.fleet import ID_RULE, is_id
from naila.mqtt import wire
from naila.mqtt.fields import Fields, check_text
from naila.mqtt.publication import Publication
from naila.mqtt.telemetry import read_values
from naila.mqtt.topics import (
    CANCEL,
    CAPABILITIES,
    CONFIRM,
    INTENT,
    REPLY,
    RESULT,
    STATUS,
    STOP,
    TELEMETRY,
    WISHES,
    Topics,
)

MAX_TOKENS = 131_072
MAX_EXPIRY_MS = 86_400_000
MAX_RESPONSE_TOPIC_BYTES = 1024
MAX_CORRELATION_BYTES = 4096
MAX_SPOKEN_BYTES = 4096
STATUS_REMOVED = "unknown"
JSON = "application/json"


class InboundCodec:
    """Turns what devices send into events and back.

    Args:
        topics: the topics of this installation.
        max_payload_bytes: larger messages are refused.
        make_id: makes the id of an intent that came without one.
    """

    def __init__(self, topics: Topics, max_payload_bytes: int, make_id: Callable[[], str]) -> None:
        self._topics = topics
        self._max_bytes = max_payload_bytes
        self._make_id = make_id
        self._decoders: dict[str, Callable[[Publication, str], Inbound]] = {
            INTENT: self._intent,
            CANCEL: self._cancel,
            STATUS: self._status,
            CAPABILITIES: self._capabilities,
            TELEMETRY: self._telemetry,
            RESULT: self._result,
            STOP: self._stop,
            CONFIRM: self._confirm,
        }

    def decode(self, message: Publication) -> Inbound | None:
        """Return the event that a device's message is.

        None where there is nothing to do: a retained wish was cleared, or a reading is of nobody knows when.

        Raises:
            ContractError: what was wrong and where, with the device and the request where they could be read.
        """
        if message.topic == self._topics.fleet_stop:
            _refuse_old_stop(message)
            return EmergencyStop()
        device_id, leaf = self._topics.parse(message.topic)
        decoder = self._decoders.get(leaf)
        if decoder is None:
            raise ContractError(
                "bad_topic", f"{message.topic[:300]!r} is no topic that the brain reads", device_id=device_id
            )
        if message.retain and (leaf == TELEMETRY or (leaf in WISHES and not message.payload)):
            return None
        with _refused_as(device_id, None):
            return decoder(message, device_id)

    def said(self, message: Publication) -> tuple[str, str] | None:
        """Return through which device what was said, where a message is a small, live intent; cheap, for all of them.

        Nothing else of the intent is looked at: it may still be refused.
        """
        if message.retain or len(message.payload) > MAX_SPOKEN_BYTES:
            return None
        try:
            device_id, leaf = self._topics.parse(message.topic)
            if leaf != INTENT:
                return None
            text = _intent_object(wire.decode_text(message.payload, max_bytes=self._max_bytes)).get("text")
        except ContractError:
            return None
        return (device_id, text) if isinstance(text, str) else None

    def encode(self, event: Inbound) -> Publication:
        """Return the message that a device sends for an event."""
        leaf, body = _body(event)
        return Publication(
            topic=self._topics.fleet_stop if event.device_id is None else self._topics.device(event.device_id, leaf),
            payload=body if isinstance(body, bytes) else wire.dumps(body),
            qos=0 if leaf == TELEMETRY else 1,
            retain=leaf in {STATUS, CAPABILITIES},
            response_topic=event.response_topic if isinstance(event, Intent) else None,
            correlation_data=event.correlation_data if isinstance(event, Intent) else None,
            content_type=None if isinstance(body, bytes) else JSON,
        )

    def _intent(self, message: Publication, device_id: str) -> Intent:
        text = wire.decode_text(message.payload, max_bytes=self._max_bytes)
        fields = Fields(_intent_object(text))
        with _refused_as(device_id, _readable_id(fields.values)):
            _check_device(fields, device_id)
            _refuse_retained(message, "an intent")
            return Intent(
                device_id=device_id,
                id=fields.optional_id("id") or self._make_id(),
                text=check_text(fields.string("text"), "text"),
                intent=fields.optional_id("intent"),
                entities=fields.object("entities"),
                conversation_id=fields.optional_id("conversation_id") or DEFAULT_CONVERSATION,
                user_id=fields.optional_id("user_id"),
                persona=fields.optional_id("persona"),
                stream=fields.optional_flag("stream") or False,
                partial=fields.optional_flag("partial") or False,
                max_tokens=fields.optional_integer("max_tokens", 1, MAX_TOKENS),
                temperature=fields.optional_number("temperature", 0, 2),
                expires_in_ms=fields.optional_integer("expires_in_ms", 1, MAX_EXPIRY_MS),
                context=fields.object("context"),
                response_topic=self._response_topic(message.response_topic, device_id),
                correlation_data=_correlation(message.correlation_data),
            )

    def _cancel(self, message: Publication, device_id: str) -> Cancel:
        text = wire.decode_text(message.payload, max_bytes=self._max_bytes)
        fields = Fields(wire.loads(text) if text.strip() else {})
        with _refused_as(device_id, _readable_id(fields.values)):
            _check_device(fields, device_id)
            _refuse_retained(message, "a cancel")
            return Cancel(device_id=device_id, id=fields.optional_id("id"))

    def _status(self, message: Publication, device_id: str) -> DeviceStatus:
        text = wire.decode_text(message.payload, max_bytes=self._max_bytes).strip()
        if not text:
            return DeviceStatus(device_id=device_id, status=STATUS_REMOVED)
        if not text.startswith(("{", "[")):
            return DeviceStatus(device_id=device_id, status=_status_word(text))
        fields = Fields(wire.loads(text))
        _check_device(fields, device_id)
        status = _status_word(fields.string("status"))
        return DeviceStatus(device_id=device_id, status=status, detail=fields.without("status", "device_id"))

    def _capabilities(self, message: Publication, device_id: str) -> Capabilities:
        text = wire.decode_text(message.payload, max_bytes=self._max_bytes)
        if not text.strip():
            return Capabilities(device_id=device_id, document=None)
        fields = Fields(wire.loads(text))
        _check_device(fields, device_id)
        return Capabilities(device_id=device_id, document=fields.without("device_id"))

    def _telemetry(self, message: Publication, device_id: str) -> Telemetry:
        fields = Fields(wire.loads(wire.decode_text(message.payload, max_bytes=self._max_bytes)))
        _check_device(fields, device_id)
        return Telemetry(device_id=device_id, values=read_values(fields.without("device_id")))

    def _result(self, message: Publication, device_id: str) -> ActionResult:
        fields = Fields(wire.loads(wire.decode_text(message.payload, max_bytes=self._max_bytes)))
        with _refused_as(device_id, _readable_id(fields.values)):
            _check_device(fields, device_id)
            _refuse_retained(message, "a result")
            return ActionResult(
                device_id=device_id,
                id=fields.id("id"),
                ok=fields.flag("ok"),
                result=fields.values.get("result"),
                error=fields.optional_string("error"),
            )

    def _stop(self, message: Publication, device_id: str) -> EmergencyStop:
        _refuse_old_stop(message)
        return EmergencyStop(device_id=device_id)

    def _confirm(self, message: Publication, device_id: str) -> Confirmation:
        fields = Fields(wire.loads(wire.decode_text(message.payload, max_bytes=self._max_bytes)))
        with _refused_as(device_id, _readable_id(fields.values)):
            _check_device(fields, device_id)
            _refuse_retained(message, "a confirm")
            return Confirmation(device_id=device_id, id=fields.id("id"), approve=fields.flag("approve"))

    def _response_topic(self, topic: str | None, device_id: str) -> str | None:
        """Refuse what would let a device publish, through the brain, where it may not.

        Its own reply topic is dropped, since the reply goes there anyway.
        """
        if topic is None or topic == self._topics.device(device_id, REPLY):
            return None
        problem = _topic_problem(topic)
        if problem is None and self._topics.is_own(topic) and not self._is_free(topic, device_id):
            free = self._topics.device(device_id, "…")
            problem = f"lies inside {self._topics.root}/, where a device has only {free} less the contract's own topics"
        if problem is not None:
            raise ContractError("bad_payload", f"response topic {problem}")
        return topic

    def _is_free(self, topic: str, device_id: str) -> bool:
        leaf = topic.removeprefix(self._topics.device(device_id, ""))
        return leaf != topic and bool(leaf) and not self._topics.is_contract_leaf(leaf)


@contextmanager
def _refused_as(device_id: str, request_id: str | None) -> Iterator[None]:
    """Add to a refusal whom it concerns."""
    try:
        yield
    except ContractError as exc:
        exc.device_id = exc.device_id or device_id
        exc.request_id = exc.request_id or request_id
        raise


def _intent_object(text: str) -> dict[str, JsonValue]:
    """Bare text is what somebody said; only an object, or what set out to be JSON, is read as JSON."""
    return wire.loads(text) if text.lstrip().startswith(("{", "[")) else {"text": text}


def _body(event: Inbound) -> tuple[str, bytes | Mapping[str, object]]:
    """Return an event's leaf, and its payload or the fields of it."""
    leaf, body = STOP, b""  # type: tuple[str, bytes | Mapping[str, object]]
    match event:
        case Intent():
            leaf, body = INTENT, _intent_fields(event)
        case Cancel():
            leaf, body = CANCEL, {} if event.id is None else {"id": event.id}
        case DeviceStatus():
            leaf, body = STATUS, {"status": event.status, **event.detail} if event.detail else event.status.encode()
        case Capabilities():
            leaf, body = CAPABILITIES, b"" if event.document is None else event.document
        case Telemetry():
            leaf, body = TELEMETRY, event.values
        case ActionResult():
            leaf, body = RESULT, _result_fields(event)
        case Confirmation():
            leaf, body = CONFIRM, {"id": event.id, "approve": event.approve}
    return leaf, body


def _intent_fields(event: Intent) -> dict[str, object]:
    fields: dict[str, object] = {"id": event.id, "text": event.text}
    optional: dict[str, object] = {
        "intent": event.intent,
        "entities": event.entities or None,
        "conversation_id": event.conversation_id if event.conversation_id != DEFAULT_CONVERSATION else None,
        "user_id": event.user_id,
        "persona": event.persona,
        "stream": event.stream or None,
        "partial": event.partial or None,
        "max_tokens": event.max_tokens,
        "temperature": event.temperature,
        "expires_in_ms": event.expires_in_ms,
        "context": event.context or None,
    }
    return fields | {name: value for name, value in optional.items() if value is not None}


def _result_fields(event: ActionResult) -> dict[str, object]:
    fields: dict[str, object] = {"id": event.id, "ok": event.ok, "result": event.result, "error": event.error}
    return {name: value for name, value in fields.items() if value is not None}


def _readable_id(values: Mapping[str, JsonValue]) -> str | None:
    value = values.get("id")
    return value if isinstance(value, str) and is_id(value) else None


def _check_device(fields: Fields, device_id: str) -> None:
    claimed = fields.values.get("device_id")
    if claimed is not None and claimed != device_id:
        raise fields.wrong("device_id", f"differs from the topic's, which is {device_id!r}: leave it out")


def _refuse_retained(message: Publication, what: str) -> None:
    if message.retain:
        raise ContractError(
            "bad_payload",
            f"{what} must not be retained: an old wish is not a wish. Publish it without retain, "
            "and clear the old one with an empty retained message",
        )


def _refuse_old_stop(message: Publication) -> None:
    """Refuse what the broker kept: the subscription asks that a live message comes without the flag."""
    if message.retain:
        raise ContractError(
            "bad_payload",
            "a retained stop is an old one, and was not acted on: publish a stop without retain, "
            "and clear the old one with an empty retained message",
        )


def _status_word(text: str) -> str:
    if not is_id(text):
        raise ContractError(
            "bad_payload", f"status must be a word such as online or offline ({ID_RULE}), or an object with one"
        )
    return text


def _topic_problem(topic: str) -> str | None:
    if not topic:
        return "is empty"
    if len(topic.encode("utf-8", "replace")) > MAX_RESPONSE_TOPIC_BYTES:
        return f"is longer than {MAX_RESPONSE_TOPIC_BYTES} bytes"
    if "+" in topic or "#" in topic:
        return "holds a wildcard"
    if topic.startswith("$"):
        return "starts with '$', which belongs to the broker"
    if any(char < " " or "\x7f" <= char <= "\x9f" or "\ud800" <= char <= "\udfff" for char in topic):
        return "holds a control character"
    return None


def _correlation(data: bytes | None) -> bytes | None:
    if data is not None and len(data) > MAX_CORRELATION_BYTES:
        raise ContractError(
            "bad_payload", f"correlation data has {len(data)} bytes, the limit is {MAX_CORRELATION_BYTES}"
        )
    return data
