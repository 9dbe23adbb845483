"""Targets: which devices somebody speaks of, by name, kind, room, or all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from naila.config.lexicon import Lexicon
from naila.fleet import DeviceProfile
from naila.understanding.quantities import Token
from naila.understanding.related import Related
from naila.understanding.words import Phrases

_LONGEST_NAME: Final = 5
_MOST_KEPT: Final = 32  # a text is looked through several times
_CLOSED: Final = frozenset({"the", "a", "an", "my", "your", "our", "this", "that", "another"})
_RELATIVE: Final = frozenset(
    {"with", "that", "which", "who", "for", "on", "in", "at", "of", "to", "from", "and", "by", ","}
)


@dataclass(frozen=True, slots=True)
class Mention:
    """A place in the words where devices are spoken of.

    Attributes:
        start: index of its first token.
        end: index after its last.
        devices: ids of those that may be meant.
        every: all of them are meant.
        article: it has an article: `the rover`.
    """

    start: int
    end: int
    devices: frozenset[str]
    every: bool = False
    article: bool = False


class Names:
    """How the devices of a fleet are called.

    Args:
        lexicon: the language.
        related: words that may stand for each other.
        lemmas: cuts a text into base forms.
        profiles: the devices.
        verbs: words that stand for actions: no device can be called by one alone.
        verbs_for: by device, those that it cannot be named either: its own name may be another word for what others do.
    """

    def __init__(
        self,
        lexicon: Lexicon,
        related: Related,
        lemmas: Callable[[str], tuple[str, ...]],
        profiles: Iterable[DeviceProfile],
        *,
        verbs: frozenset[str],
        verbs_for: Mapping[str, frozenset[str]],
    ) -> None:
        self._everyone = Phrases(lexicon.everyone)
        self._quantifiers = Phrases(lexicon.quantifiers)
        self._where = frozenset(lexicon.where)
        self._anyone = lexicon.anyone
        self._body = lexicon.body
        single = (*lexicon.function, *lexicon.openers, *lexicon.closers, *lexicon.fillers, *lexicon.negations)
        self._empty = frozenset(word for word in single if " " not in word)
        forbidden = self._empty | lexicon.generic | lexicon.talk | frozenset(lexicon.stop.verbs)
        self._forbidden = forbidden | verbs
        self._forbidden_names = {device: forbidden | own for device, own in verbs_for.items()}
        self._names: dict[tuple[str, ...], dict[str, int]] = {}
        self._verbal: dict[tuple[str, ...], dict[str, int]] = {}
        self._rooms: dict[tuple[str, ...], set[str]] = {}
        self._ids: set[str] = set()
        for profile in profiles:
            self._learn(profile, lemmas, related)
        self.vocabulary = frozenset(word for name in self._names for word in name)
        self._kept = lru_cache(_MOST_KEPT)(self._found)

    def mentions(self, tokens: Sequence[Token]) -> tuple[Mention, ...]:
        """Return every mention, in order."""
        return self._kept(tuple(tokens))

    def _found(self, tokens: tuple[Token, ...]) -> tuple[Mention, ...]:
        lemmas = [token.lemma for token in tokens]
        texts = [token.text for token in tokens]
        found: list[Mention] = []
        at = 0
        while at < len(tokens):
            mention = self._at(texts, lemmas, at)
            if mention:
                found.append(mention)
                at = mention.end
            else:
                at += 1
        return tuple(found)

    def room_at(self, lemmas: Sequence[str], at: int) -> tuple[frozenset[str], int]:
        """Return the devices of a room that is named, and how many words name it; 0 where none is."""
        for length in range(min(_LONGEST_NAME, len(lemmas) - at), 0, -1):
            devices = self._rooms.get(tuple(lemmas[at : at + length]))
            if devices:
                return frozenset(devices), length
        return frozenset(), 0

    def _learn(self, profile: DeviceProfile, lemmas: Callable[[str], tuple[str, ...]], related: Related) -> None:
        device = profile.device_id
        self._ids.add(device)
        name = lemmas(profile.name)
        kind = self._kind(lemmas(profile.description.partition(".")[0]))
        for words, rank in ((name, 0), (lemmas(device), 0), (kind, 1), (kind[-1:], 1), (name[-1:], 2)):
            self._call(device, words, rank)
        for word in {*name[-1:], *kind[-1:]}:
            for other in related.to(word):
                self._call(device, (other,), 3)
        if profile.room:
            self._rooms.setdefault(lemmas(profile.room)[:_LONGEST_NAME], set()).add(device)

    def _call(self, device: str, words: tuple[str, ...], rank: int) -> None:
        forbidden = self._forbidden if rank else self._forbidden_names[device]
        usable = [word for word in words if word not in forbidden]
        if len(words) > _LONGEST_NAME or (len(words) == 1 and words[0] in self._anyone):
            return
        if not usable:
            if not words or words[0] in self._empty:
                return
            self._verbal.setdefault(words, {})[device] = rank
            return
        called = self._names.setdefault(words, {})
        called[device] = min(rank, called.get(device, rank))

    def _kind(self, described: tuple[str, ...]) -> tuple[str, ...]:
        """Return what a description says that the device is: `robot arm` of `a robot arm with four joints`."""
        words = described[1:] if described[:1] in (("a",), ("an",), ("the",)) else ()
        end = next((at for at, word in enumerate(words) if word in _RELATIVE), len(words))
        return words[max(0, end - 2) : end] if end <= 4 else ()

    def _at(self, texts: list[str], lemmas: list[str], start: int) -> Mention | None:
        owned = start + 1 if texts[start] == "my" else start if start and texts[start - 1] == "my" else len(texts)
        if owned < len(texts) and lemmas[owned] in self._body:
            return None  # a person's arm
        if length := self._everyone.at(texts, start):
            rest = self._name(lemmas, start + length)
            if not rest and not (texts[start] in {"both", "all"} and length == 1):
                return Mention(start, start + length, frozenset(self._ids), every=True)
        at, article = start, False
        every = bool(length := self._quantifiers.at(texts, at))
        at += length
        if not every and texts[at] in _CLOSED:
            article, at = True, at + 1
        room, at = self._room(lemmas, at)
        while (
            at < len(texts)
            and texts[at] in {"little", "big", "small", "good", "dear", "robot"}
            and self._name(lemmas, at + 1)
        ):
            at += 1
        named = self._name(lemmas, at) or (self._verbal_name(lemmas, at) if article else None)
        if named is None:
            return self._anybody(texts, lemmas, start, at, room, every=every, article=article) or self._elsewhere(
                texts, lemmas, start
            )
        devices, length = named
        end = at + length
        if room is None:
            room, end = self._in_room(texts, lemmas, end)
        plural = texts[end - 1] != lemmas[end - 1] and len(devices) > 1 and texts[at + length - 1].endswith("s")
        ranked = self._best(devices, room)
        if not ranked:
            return None
        return Mention(start, end, ranked, every=every or plural, article=article)

    def _best(self, devices: dict[str, int], room: set[str] | None) -> frozenset[str]:
        within = {device: rank for device, rank in devices.items() if room is None or device in room}
        best = min(within.values(), default=0)
        return frozenset(device for device, rank in within.items() if rank == best or (best and rank <= 3))

    def _name(self, lemmas: list[str], at: int) -> tuple[dict[str, int], int] | None:
        for length in range(min(_LONGEST_NAME, len(lemmas) - at), 0, -1):
            called = self._names.get(tuple(lemmas[at : at + length]))
            if called:
                return called, length
        return None

    def _verbal_name(self, lemmas: list[str], at: int) -> tuple[dict[str, int], int] | None:
        """Return a device that is called like something that devices do: `the pump`."""
        called = self._verbal.get(tuple(lemmas[at : at + 1]))
        return (called, 1) if called else None

    def _room(self, lemmas: list[str], at: int) -> tuple[set[str] | None, int]:
        for length in range(min(_LONGEST_NAME, len(lemmas) - at), 0, -1):
            devices = self._rooms.get(tuple(lemmas[at : at + length]))
            after = at + length
            if devices and after < len(lemmas) and (self._name(lemmas, after) or lemmas[after] in self._anyone):
                return devices, after
        return None, at

    def _in_room(self, texts: list[str], lemmas: list[str], at: int) -> tuple[set[str] | None, int]:
        if at >= len(texts) or texts[at] not in self._where:
            return None, at
        after = at + 1
        after += int(after < len(texts) and texts[after] in _CLOSED)
        for length in range(min(_LONGEST_NAME, len(lemmas) - after), 0, -1):
            devices = self._rooms.get(tuple(lemmas[after : after + length]))
            if devices:
                return devices, after + length
        return None, at

    def _anybody(
        self,
        texts: list[str],
        lemmas: list[str],
        start: int,
        at: int,
        room: set[str] | None,
        *,
        every: bool,
        article: bool,
    ) -> Mention | None:
        """Read `the robot in the workshop`, `the kitchen robot`, `all robots`."""
        if at >= len(lemmas) or lemmas[at] not in self._anyone:
            return None
        end = at + 1
        if room is None:
            room, end = self._in_room(texts, lemmas, end)
        if room is None:
            return Mention(start, end, frozenset(self._ids), every=True) if every else None
        return Mention(start, end, frozenset(room), every=every, article=article)

    def _elsewhere(self, texts: list[str], lemmas: list[str], start: int) -> Mention | None:
        """Read `in the kitchen`."""
        room, end = self._in_room(texts, lemmas, start)
        return Mention(start, end, frozenset(room)) if room else None
