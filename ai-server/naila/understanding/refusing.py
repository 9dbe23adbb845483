"""Refusals: what is surely asked of a device, and cannot be done: it is told, not taken for talk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from naila.config.lexicon import Lexicon
from naila.understanding.context import Context, Decision
from naila.understanding.evidence import ENOUGH
from naila.understanding.filling import argument_name, choice_words, said_choices, said_range
from naila.understanding.fleet_index import words_of
from naila.understanding.frames import Frame, Slot
from naila.understanding.gate import Wish
from naila.understanding.matching import Match
from naila.understanding.quantities import Token
from naila.understanding.reading import AskBack, CannotDo, NotACommand, OpenQuestion, StateQuestion
from naila.understanding.words import Phrases

_LONGEST_FEAT: Final = 8
_LONGEST_GOAL: Final = 2
_ARTICLES: Final = frozenset({"the", "a", "an", "my", "your"})
_SETTING: Final = frozenset({"set", "change", "adjust", "raise", "lower", "increase", "decrease", "reduce", "turn"})
_AIMS: Final = frozenset({"to", "at", "into", "towards"})


class Refusals:
    """Recognises what nobody declared.

    Args:
        lexicon: the language.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self._feats = Phrases(lexicon.feats)
        self._carriers = lexicon.carriers
        self._talk = lexicon.talk
        self._unspecific = lexicon.unspecific
        self._pronouns = frozenset(word for word in lexicon.pronouns if " " not in word)
        self._free = Phrases((*lexicon.function, *lexicon.hedges))
        self._kinds = {kind: Phrases(words) for kind, words in lexicon.kinds.items()}

    def unknown_feat(self, wish: Wish, context: Context) -> Decision:
        """Tell what people ask of robots in earnest, and nobody declared, from talk: `fly to the moon`."""
        texts = [token.text for token in wish.tokens]
        start = next((at for at in range(len(texts)) if not _in_mention(at, wish)), 0)
        if not self._feats.at(texts, start) or texts[start] in self._talk:
            return NotACommand()
        spoken_of = next((mention.devices for mention in (*wish.told, *wish.mentions)), frozenset())
        device = next(iter(spoken_of)) if len(spoken_of) == 1 else context.own
        if wish.mood == "ability":
            return StateQuestion(topic="capabilities", device_id=device)
        if len(texts) > _LONGEST_FEAT or wish.mood == "wish" or wish.asked:
            return NotACommand()
        return CannotDo(code="unknown_action", device_id=device, asked=words_of(wish.tokens))

    def only_measured(self, wish: Wish, context: Context) -> CannotDo | None:
        """Recognise `set the humidity to 50 %` of a device that only measures it."""
        tokens = wish.tokens
        spoken = [device for mention in (*wish.told, *wish.mentions) for device in mention.devices]
        device = context.view.device(spoken[0]) if len(spoken) == 1 else context.view.device(context.own or "")
        if device is None or tokens[0].lemma not in _SETTING or len(tokens) > _LONGEST_FEAT:
            return None
        said = {token.lemma for token in tokens[1:] if not token.amount}
        rest = {token.lemma for at, token in enumerate(tokens) if at and not token.amount and not _in_mention(at, wish)}
        rest = {word for word in rest if not self._free.at((word,), 0)}
        for name in device.profile.telemetry:
            if rest and rest <= set(name.casefold().split("_")) <= said:
                return CannotDo(
                    code="unknown_action", device_id=device.profile.device_id, asked=words_of(tokens), allowed=""
                )
        return None

    def unknown_value(self, match: Match, wish: Wish, context: Context) -> CannotDo | AskBack | None:
        """Recognise that a value was said that is not among those declared: `go to the attic`."""
        tokens = wish.tokens
        texts = [token.text for token in tokens]
        unknown = [at for at, token in enumerate(tokens) if token.text in match.unexplained]
        open_slots = [slot for slot in match.frame.slots if slot.kind == "choice" and _is_open(slot, match)]
        is_one = 0 < len(unknown) <= 3 and unknown[-1] - unknown[0] < 4 and len(open_slots) == 1
        if not is_one or any(tokens[at].amount for at in unknown) or match.evidence < ENOUGH:
            return None
        slot, first = open_slots[0], unknown[0]
        at = first - int(first > 0 and texts[first - 1] in _ARTICLES)
        is_aimed = at > 0 and texts[at - 1] in _AIMS
        only = match.is_strong and match.missing == (slot.name,)
        is_open = first and is_addressed(match, wish, context)
        if slot.required and (at < first or is_open) and self._is_unspecific(tokens[at : unknown[-1] + 1], slot):
            return next_question(match, words_of(tokens))
        named = is_aimed or (at < first and (only or bool(match.arguments)))
        of_this = slot.required and (match.is_strong or match.frame.parameter is not None)
        of_kind = any(self._kinds[kind].at(texts, first) >= len(unknown) for kind in slot.senses)
        if not (of_kind or (named and of_this)) or not is_addressed(match, wish, context):
            return None
        return not_among(match.frame, slot, " ".join(texts[at : unknown[-1] + 1]))

    def _is_unspecific(self, tokens: Sequence[Token], slot: Slot) -> bool:
        """Whether words leave a value open: `vacuum a room`, `load new filament`, `the lawn` of a front lawn."""
        article, *rest = tokens
        if not rest:
            return article.text in {"something", "anything"} or article.text in self._unspecific
        said = tuple(token.lemma for token in rest)
        is_part = any(words[-len(said) :] == said for choice in slot.choices for words, _ in choice.phrases)
        is_any = article.text in {"a", "an", "some", "any", "another"}
        return is_part or (is_any and all(word in self._unspecific | slot.nouns for word in said))

    def unknown_of_kind(self, wish: Wish, context: Context) -> CannotDo | None:
        """Recognise `make the light pink` where nothing but the device and a colour is said."""
        spoken = [mention for mention in (*wish.told, *wish.mentions) if len(mention.devices) == 1]
        texts = [token.text for token in wish.tokens]
        is_it = wish.mood == "request" or bool(self._pronouns & set(texts))
        if not (spoken or is_it) or not (wish.told or texts[0] in self._carriers or wish.mood != "plain"):
            return None
        device = next(iter(spoken[0].devices)) if spoken else context.own or context.about
        rest = [at for at in range(len(texts)) if not _in_mention(at, wish) and texts[at] not in self._carriers]
        rest = [at for at in rest if texts[at] not in _ARTICLES | self._pronouns | {"to"}]
        for frame in context.fleet.frames.get(device or "", ()):
            for slot in frame.slots:
                said = tuple(wish.tokens[at].lemma for at in rest)
                if any(said[-len(words) :] == words for choice in slot.choices for words, _ in choice.phrases):
                    return None
                if rest and any(self._kinds[kind].at(texts, rest[0]) >= len(rest) for kind in slot.senses):
                    return not_among(frame, slot, " ".join(texts[at] for at in rest))
        return None


def unknown_goal(wish: Wish, context: Context) -> CannotDo | None:
    """Recognise `to the balcony` after `go to the window`: a value that what was just spoken of does not know."""
    tokens = wish.tokens
    start = int(tokens[0].text in _AIMS)
    begins = start or tokens[0].text in _ARTICLES
    start += int(start < len(tokens) and tokens[start].text in _ARTICLES)
    rest = tokens[start:]
    if wish.mentions or wish.told:
        return None
    if not begins or not 0 < len(rest) <= _LONGEST_GOAL or wish.mood != "plain" or wish.asked:
        return None
    for frame in context.before:
        goals = [slot for slot in frame.slots if slot.kind == "choice" and slot.required and not slot.is_switch]
        if len(goals) == 1 and not any(token.amount or token.form != "base" for token in rest):
            return not_among(frame, goals[0], words_of(tokens[int(tokens[0].text in _AIMS) :]))
    return None


def not_among(frame: Frame, slot: Slot, asked: str) -> CannotDo:
    """Return that a value is none of those that an argument can have."""
    return CannotDo(
        code="bad_arguments",
        device_id=frame.device_id,
        action=frame.action,
        argument=argument_name(frame, slot),
        asked=asked,
        allowed=said_choices(slot),
    )


def not_an_amount(match: Match, amounts: Sequence[Token], wish: Wish) -> CannotDo:
    """Return why an amount cannot be one of an action: `turn left one meter`."""
    frame = match.frame
    missing = [slot for slot in frame.slots if slot.kind == "number" and argument_name(frame, slot) in match.missing]
    if len(missing) != 1 or len(match.unexplained) > len(amounts):
        return CannotDo(code="unknown_action", device_id=frame.device_id, asked=words_of(wish.tokens))
    return CannotDo(
        code="bad_arguments",
        device_id=frame.device_id,
        action=frame.action,
        argument=argument_name(frame, missing[0]),
        asked=words_of(amounts),
        allowed=said_range(missing[0]),
    )


def is_addressed(match: Match, wish: Wish, context: Context) -> bool:
    """Whether the words are for this device: its own, or it is spoken of, or they are for nobody in particular."""
    spoken_of = (*wish.told, *wish.mentions)
    if spoken_of:
        return any(match.frame.device_id in mention.devices for mention in spoken_of)
    own = context.own
    return own is None or match.frame.device_id in {own, context.about}


def next_question(match: Match, text: str) -> AskBack:
    """Return the question for the first argument that a match still misses."""
    argument = match.missing[0]
    slot = next((slot for slot in match.frame.slots if slot.name == argument), match.frame.slots[0])
    question = OpenQuestion(
        kind="argument",
        device_id=match.frame.device_id,
        action=match.frame.action,
        argument=argument,
        arguments=match.arguments,
        choices=choice_words(slot),
        text=text,
    )
    return AskBack(question)


def _is_open(slot: Slot, match: Match) -> bool:
    return slot.name not in match.arguments and "value" not in match.arguments


def _in_mention(at: int, wish: Wish) -> bool:
    return any(mention.start <= at < mention.end for mention in wish.mentions)
