"""Halting: whether a text asks somebody to stop, and whom."""

from __future__ import annotations

from collections.abc import Sequence

from naila.config.lexicon import Lexicon
from naila.understanding.quantities import Token
from naila.understanding.reading import Stop
from naila.understanding.targets import Mention
from naila.understanding.words import MARKS, Phrases

_LONGEST = 24


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
        self._openers = Phrases((*lexicon.openers, *lexicon.fillers))

    def read(
        self,
        tokens: Sequence[Token],
        mentions: Sequence[Mention],
        verbs: frozenset[str],
        *,
        own: str | None,
        about: str | None,
    ) -> Stop | None:
        """Return who is to stop, None if nobody.

        Args:
            tokens: the words, without marks.
            mentions: devices that they speak of.
            verbs: what devices can be doing.
            own: the device that is spoken to, if it declared anything.
            about: the device that was spoken of before.
        """
        if not tokens or len(tokens) > _LONGEST or any(token.amount for token in tokens):
            return None
        texts = [token.text for token in tokens]
        taken = {place: mention for mention in mentions for place in range(mention.start, mention.end)}
        at, stops = self._opening(texts, taken), False
        if at is None:
            return None
        while at < len(texts):
            if at in taken:
                at = taken[at].end
            elif length := self._verbs.at(texts, at):
                stops, at = True, at + length
            elif length := max(
                self._requests.at(texts, at), self._delegated.at(texts, at), self._openers.at(texts, at)
            ):
                at += length
            elif (
                texts[at] in self._with
                or texts[at] in MARKS
                or (tokens[at].form == "ing" and tokens[at].lemma in verbs)
            ):
                at += 1
            else:
                return None
        return self._whom(texts, mentions, own, about) if stops else None

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
            every = [mention.devices for mention in mentions if mention.every]
            whole_fleet = {"everyone", "everybody", "everything", "all"} & set(texts)
            return Stop() if whole_fleet else Stop(device_ids=tuple(sorted(frozenset().union(*every))))
        devices = sorted({device for mention in mentions for device in mention.devices})
        if devices:
            return Stop(device_ids=tuple(devices))
        if {"everything", "all"} & set(texts):
            return Stop()
        one = own or about
        return Stop(device_ids=(one,)) if one else Stop()
