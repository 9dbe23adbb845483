"""Takes secrets out of what leaves the daemon as text: log lines and reports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final

_STARS: Final = "***"
# What is shorter is no secret, and replacing it everywhere would make a text unreadable.
_SHORTEST: Final = 3
_NAMES: Final = r"(?:password|passwd|secret|api_?key|authorization|(?:access_|auth_)token)"
_SHAPES: Final = (
    # user:password@ in an address
    re.compile(r"(?<=://)([^\s/:@]{1,256}):[^\s/@]{1,256}(?=@)"),
    # password=…, 'password': '…'
    re.compile(rf"({_NAMES}=)(?:\"[^\"]{{1,512}}\"|'[^']{{1,512}}'|[^\s,;\"')}}\]]{{1,512}})", re.IGNORECASE),
    re.compile(rf"({_NAMES}[\"']\s?[:=]\s?)(?:\"[^\"]{{1,512}}\"|'[^']{{1,512}}')", re.IGNORECASE),
    # the bearer of an access token; Hugging Face's own
    re.compile(r"(\bBearer )[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(r"(\bhf_)[A-Za-z0-9]{16,}"),
)


class Redaction:
    """Replaces secrets by stars: those that are known, and what looks like one.

    Args:
        secrets: the known ones.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {form for secret in secrets if len(secret) >= _SHORTEST for form in _forms(secret)}
        # The longest first: one may begin like another.
        ordered = sorted(known, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, text: str) -> str:
        """Return the text without them."""
        if self._known is not None:
            text = self._known.sub(_STARS, text)
        first, *others = _SHAPES
        text = first.sub(rf"\1:{_STARS}", text)
        for shape in others:
            text = shape.sub(rf"\1{_STARS}", text)
        return text


def _forms(secret: str) -> set[str]:
    """Return the ways in which a secret may stand in a text: plain, in a repr, in JSON."""
    return {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
