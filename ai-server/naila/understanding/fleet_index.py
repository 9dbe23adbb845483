"""The fleet, compiled: frames, made once for each declaration, and names, once for each fleet that a device sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from naila.config.lexicon import Lexicon
from naila.fleet import DeviceProfile, DeviceView, FleetView
from naila.understanding.compiler import Compiler
from naila.understanding.frames import Frame
from naila.understanding.gate import Wish
from naila.understanding.quantities import Token
from naila.understanding.targets import Names
from naila.understanding.words import Phrases

_MOST_CACHED = 512
_SURELY = 0.5
_ITSELF = 0.86


@dataclass(frozen=True, slots=True)
class Compiled:
    """The declarations of one fleet, compiled.

    Attributes:
        profiles: of which devices.
        frames: by device.
        by_word: places in `all_frames`, by the words that may mean them.
        all_frames: of every device.
        names: how the devices are called.
        verbs: everything that any of them can do.
        doing: the same, by device.
        words: every word of their own.
        relative: words that change a setting: `brighter`, `up`.
    """

    profiles: tuple[DeviceProfile, ...]
    frames: Mapping[str, tuple[Frame, ...]]
    by_word: Mapping[str, tuple[int, ...]]
    all_frames: tuple[Frame, ...]
    names: Names
    verbs: frozenset[str]
    doing: Mapping[str, frozenset[str]]
    words: frozenset[str]
    relative: Phrases

    def candidates(self, wish: Wish, own: str, also: Iterable[Frame] = ()) -> list[Frame]:
        """Return the frames that any word of a wish may mean."""
        places: set[int] = set()
        for token in wish.tokens:
            places.update(self.by_word.get(token.lemma, ()))
            if token.amount and token.amount.unit == "turn":
                places.update(self.by_word.get("turn", ()))
            if token.text != token.lemma:
                places.update(self.by_word.get(token.text, ()))
        found = dict.fromkeys(self.all_frames[place] for place in sorted(places))
        texts, lemmas = [token.text for token in wish.tokens], [token.lemma for token in wish.tokens]
        if self.relative.found(texts) or self.relative.found(lemmas):
            found.update(dict.fromkeys(frame for frame in self.all_frames if frame.is_setting))
        if any(token.share is not None or (token.amount and token.amount.unit) for token in wish.tokens):
            mine = self.frames.get(own, ())
            found.update(dict.fromkeys(frame for frame in mine if frame.is_setting or frame.orders))
        mentioned = {device for mention in (*wish.mentions, *wish.told) for device in mention.devices}
        for device in sorted(mentioned):
            found.update(dict.fromkeys(self.frames.get(device, ())))
        found.update(dict.fromkeys(also))
        return list(found)


class FleetIndex:
    """Compiles fleets, and keeps what it compiled.

    Args:
        lexicon: the language.
        compiler: makes the frames.
    """

    def __init__(self, lexicon: Lexicon, compiler: Compiler) -> None:
        self._lexicon = lexicon
        self._compiler = compiler
        self._relative = Phrases(lexicon.relative)
        self._frames: dict[str, tuple[DeviceProfile, tuple[Frame, ...]]] = {}
        self._fleet: dict[str, Compiled] = {}

    def compiled(self, view: FleetView) -> Compiled:
        """Return a fleet, compiled."""
        profiles = tuple(device.profile for device in view.devices)
        known = self._fleet.get(view.speaker)
        if known is not None and _same(known.profiles, profiles):
            return known
        if len(self._fleet) >= _MOST_CACHED:
            self._fleet.clear()
        self._fleet[view.speaker] = made = self._compile(profiles, self._frames_of)
        return made

    def narrowed(self, view: FleetView) -> Compiled:
        """Return a part of a fleet, compiled for one text: what is kept of the fleet stays."""
        return self._compile(tuple(device.profile for device in view.devices), self._compiler.frames)

    def _compile(
        self, profiles: tuple[DeviceProfile, ...], frames_of: Callable[[DeviceProfile], tuple[Frame, ...]]
    ) -> Compiled:
        frames = {profile.device_id: frames_of(profile) for profile in profiles}
        all_frames = tuple(frame for listed in frames.values() for frame in listed)
        by_word: dict[str, list[int]] = {}
        for place, frame in enumerate(all_frames):
            only_nouns = frame.parameter is not None and any(slot.is_switch for slot in frame.slots)
            for word in frame.nouns if only_nouns else frame.words:
                by_word.setdefault(word, []).append(place)
        verbs = frozenset(word for frame in all_frames for word, weight in frame.verbs.items() if weight > _SURELY)
        doing = {device: frozenset(_verbs(listed)) for device, listed in frames.items()}
        said = frozenset(word for frame in all_frames for word, weight in frame.verbs.items() if weight > _ITSELF)
        own = {device: said | known for device, known in doing.items()}
        names = Names(
            self._lexicon, self._compiler.related, self._compiler.lemmas, profiles, verbs=verbs, verbs_for=own
        )
        return Compiled(
            profiles=profiles,
            frames=frames,
            by_word={word: tuple(places) for word, places in by_word.items()},
            all_frames=all_frames,
            names=names,
            verbs=verbs,
            doing=doing,
            words=frozenset(by_word) | names.vocabulary,
            relative=self._relative,
        )

    def _frames_of(self, profile: DeviceProfile) -> tuple[Frame, ...]:
        known = self._frames.get(profile.device_id)
        if known is not None and known[0] is profile:
            return known[1]
        if len(self._frames) >= _MOST_CACHED:
            self._frames.clear()
        frames = self._compiler.frames(profile)
        self._frames[profile.device_id] = (profile, frames)
        return frames


def _verbs(frames: Iterable[Frame]) -> Iterator[str]:
    return (word for frame in frames for word, weight in frame.verbs.items() if weight >= _SURELY)


def _same(left: Sequence[DeviceProfile], right: Sequence[DeviceProfile]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def device_of(view: FleetView, device_id: str) -> DeviceView:
    """Return a device of a view, an empty one where it is gone."""
    return view.device(device_id) or DeviceView(profile=DeviceProfile(device_id=device_id, name=device_id))


def words_of(tokens: Sequence[Token]) -> str:
    """Return tokens as text."""
    return " ".join(token.text for token in tokens)
