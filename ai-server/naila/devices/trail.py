"""What is written down about proposals and results, and who is told of what was refused or ignored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from naila.devices.audit import Audit, AuditEntry, AuditEvent
from naila.devices.pace import Window
from naila.devices.plain_json import shown
from naila.devices.running import Match
from naila.errors import ErrorCode
from naila.events import ActionResult, ErrorNotice, JsonValue
from naila.fleet import Proposal, is_id
from naila.ports import Clock, Publisher

_COMPLAINTS_PER_MINUTE: Final = 30

_IGNORED: Final[dict[Match, tuple[ErrorCode, str]]] = {
    "late": ("expired", "the result came too late: it was told as not known"),
    "stopped": ("expired", "the action was ended by an emergency stop before"),
    "again": ("bad_payload", "the result of this action was given before; the first one stands"),
    # The same words for both: whose it is, or whether it exists, is nobody else's business.
    "foreign": ("bad_payload", "no such action was sent to this device"),
    "unknown": ("bad_payload", "no such action was sent to this device"),
}


class Trail:
    """Writes entries, and publishes notices. Never waits.

    Args:
        audit: where entries go.
        publisher: the way out for notices.
        clock: the time.
    """

    def __init__(self, audit: Audit, publisher: Publisher, clock: Clock) -> None:
        self._audit: Final = audit
        self._publisher: Final = publisher
        self._clock: Final = clock
        self._complaints: Final = Window(_COMPLAINTS_PER_MINUTE, 60.0)

    @property
    def is_full(self) -> bool:
        """Whether nothing more can be written down."""
        return self._audit.is_full

    def record(
        self,
        event: AuditEvent,
        proposal: Proposal,
        action_id: str,
        *,
        code: ErrorCode | None = None,
        reason: str | None = None,
        result: JsonValue = None,
    ) -> None:
        """Write down what happened to a proposal."""
        self._audit.write(
            AuditEntry(
                time=rfc3339(self._clock.now()),
                event=event,
                id=action_id,
                device_id=proposal.device_id,
                name=proposal.name,
                arguments=proposal.arguments,
                request_id=proposal.request_id,
                speaker=proposal.speaker,
                user_id=proposal.user_id,
                by=proposal.by,
                confirmation=proposal.confirmation,
                code=code,
                reason=reason,
                result=result,
            )
        )

    def refuse(self, event: AuditEvent, proposal: Proposal, action_id: str, *, code: ErrorCode, message: str) -> None:
        """Write down that something is not done, and tell the speaker, where one can be told."""
        self.record(event, proposal, action_id, code=code, reason=message)
        if is_id(proposal.speaker):
            request_id = proposal.request_id if is_id(proposal.request_id) else None
            self._publisher.publish(ErrorNotice(device_id=proposal.speaker, id=request_id, code=code, message=message))

    def ignore(self, result: ActionResult, match: Match) -> None:
        """Write down that a result changed nothing, and tell its sender; at most thirty times a minute each."""
        now = self._clock.monotonic()
        if self._complaints.wait_s(result.device_id, now) > 0:
            return
        self._complaints.count(result.device_id, now)
        code, reason = _IGNORED[match]
        self._audit.write(
            AuditEntry(
                time=rfc3339(self._clock.now()),
                event="ignored",
                id=shown(result.id, 64),
                device_id=result.device_id,
                code=code,
                reason=reason,
                result=result.result,
            )
        )
        # Of an action that a stop ended, a device says in good faith what became of it.
        if match != "stopped":
            self._publisher.publish(
                ErrorNotice(
                    device_id=result.device_id,
                    id=result.id if is_id(result.id) else None,
                    code=code,
                    message=f"id: {shown(repr(result.id), 80)}: {reason}",
                )
            )


def rfc3339(moment: datetime) -> str:
    """Return a moment as the contract writes it: UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
