"""Halting: whether a text asks somebody to stop, and whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from naila.config.lexicon import Lexicon
from naila.understanding.quantities import Token
from naila.understanding.reading import Stop
from naila.understanding.targets import Mention
from naila.understanding.words import MARKS, Phrases

_LONGEST = 24
_WARNINGS = {
    ("there", "is"),
    ("there", "are"),
    ("it", "is"),
    ("you", "are"),
    ("he", "is"),
    ("she", "is"),
    ("look", "out"),
}


class Halting:
    """Recognises that somebody is to stop: `tell the rover in the kitchen to stop`, `stop moving`.

    Args:
        lexicon: the language.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self._verbs = Phrases(lexicon.stop.verbs)
        self._with = lexicon.stop.with_
        self._requests = Phrases((*lexicon.requests, *lexicon.delegations, *lexicon.wishes, "can you make"))
        self._delegated = Phrases(lexicon.delegated)
        self._questions = Phrases(lexicon.questions)
        values = (*lexicon.kinds["direction"], "side", "from", "around", "round", "along", "a", "your", "so", "fast")
        self._ways = frozenset(values)
        self._openers = Phrases((*lexicon.openers, *lexicon.fillers, *lexicon.stop.warnings))
        self._no_outcry = frozenset({"not", "never", '"', "?", *lexicon.hearsay}) - {"said"}

    def read(
        self,
        tokens: Sequence[Token],
        mentions: Sequence[Mention],
        doing: Mapping[str, frozenset[str]],
        *,
        own: str | None,
        about: str | None,
    ) -> Stop | None:
        """Return who is to stop, None if nobody.

        Args:
            tokens: the words, without marks.
            mentions: devices that they speak of.
            doing: what each device can be doing.
            own: the device that is spoken to, if it declared anything.
            about: the device that was spoken of before.
        """
        if not tokens or len(tokens) > _LONGEST or any(token.amount and token.text != "once" for token in tokens):
            return None
        texts = [token.text for token in tokens]
        if self._is_cried(texts):
            return self._whom(texts, mentions, own, about)
        taken = {place: mention for mention in mentions for place in range(mention.start, mention.end)}
        busy = self._busy(tokens, texts, taken, frozenset().union(*doing.values()))
        if busy is None:
            return None
        able = frozenset(device for device, known in doing.items() if busy & known)
        if own not in able and len(able) == 1:
            own = next(iter(able))  # `stop blinking`, said to a rover
        return self._whom(texts, mentions, own, about)

    def _is_cried(self, texts: list[str]) -> bool:
        """Whether it is an outcry, whatever else is said: `stop stop you idiot`, `stop, there is a child`."""
        if self._no_outcry & set(texts) or self._questions.at(texts, 0):
            return False
        again = any(texts[at : at + 2] == ["stop", "stop"] for at in range(len(texts)))
        return again or (texts[0] == "stop" and tuple(texts[1:3]) in _WARNINGS)

    def _busy(
        self, tokens: Sequence[Token], texts: list[str], taken: dict[int, Mention], verbs: frozenset[str]
    ) -> set[str] | None:
        """Return what is to be stopped, where it is said; None where the words are about anything else."""
        busy: set[str] = set()
        at, stops = self._opening(texts, taken), False
        while at is not None and at < len(texts):
            length = self._verbs.at(texts, at)
            ways = (self._requests, self._delegated, self._openers)
            if at in taken:
                at = taken[at].end
            elif length:
                stops, at = True, at + length
            elif length := max(phrases.at(texts, at) for phrases in ways):
                at += length
            elif tokens[at].form == "ing" and tokens[at].lemma in verbs:
                busy.add(tokens[at].lemma)
                at += 1
            elif texts[at] in self._with or texts[at] in MARKS or (stops and busy and self._is_manner(tokens, at)):
                at += 1
            else:
                return None
        return busy if stops and at is not None else None

    def _is_manner(self, tokens: Sequence[Token], at: int) -> bool:
        """Whether a word only says how or where it was being done: `stop turning left`, `… from side to side`."""
        return tokens[at].text in self._ways

    def _opening(self, texts: list[str], taken: dict[int, Mention]) -> int | None:
        at = 0
        while length := self._openers.at(texts, at):
            at += length
        if at < len(texts) and at not in taken and self._questions.at(texts, at) and not self._requests.at(texts, at):
            return None
        return at

    @staticmethod
    def _whom(texts: list[str], mentions: Sequence[Mention], own: str | None, about: str | None) -> Stop:
        if any(mention.every for mention in mentions):
            every = [mention.devices for mention in mentions]
            whole_fleet = {"everyone", "everybody", "everything", "all"} & set(texts)
            return Stop() if whole_fleet else Stop(device_ids=tuple(sorted(frozenset().union(*every))))
        devices = sorted({device for mention in mentions for device in mention.devices})
        if devices:
            return Stop(device_ids=tuple(devices))
        if {"everything", "all"} & set(texts):
            return Stop()
        one = own or about
        return Stop(device_ids=(one,)) if one else Stop()
