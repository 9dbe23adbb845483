"""The gate: what kind of speech act a clause is. Only what asks for something may come to move anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from naila.config.lexicon import Lexicon
from naila.understanding.quantities import Token
from naila.understanding.targets import Mention
from naila.understanding.words import Phrases

Mood = Literal["plain", "request", "ability", "wish", "gerund"]
Barred = Literal["talk", "harmless", "empty"]

Mentions: TypeAlias = Callable[[Sequence[Token]], tuple[Mention, ...]]

_GOING: tuple[str, ...] = ("send", "bring", "take", "get", "move", "drive")
_LONGEST_COMPARISON = 5
_SHORTEST_RELATIVE = 5
_WHO: frozenset[str] = frozenset({"you", "we", "i"})
_OF_SOMETHING: frozenset[str] = frozenset({"your", "my", "the", "its"})
_SHORTEST_REASON = 3
_ORDINALS: frozenset[str] = frozenset({"first", "second", "third", "last", "next"})
_THITHER: frozenset[str] = frozenset({"back", "over", "off", "straight", "up", "down"})
_CALLERS: frozenset[str] = frozenset({"control", "base", "panel", "command", "headquarters", "tower"})
_CALLING: frozenset[str] = frozenset({"you", "ya", "my", "o", "oh", "dear"})
_GOING_TO: tuple[str, ...] = ("to", "home", "back", "over", "into", "forward", "away")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A clause that asks for something.

    Attributes:
        tokens: its words without what was only polite.
        mood: how it asks.
        polite: with a "please" or the like: surely a wish.
        mentions: devices that it speaks of.
        told: devices that somebody is to pass it on to; they are what it is about.
        asked: it ends in a question mark.
    """

    tokens: tuple[Token, ...]
    mood: Mood = "plain"
    polite: bool = False
    mentions: tuple[Mention, ...] = ()
    told: tuple[Mention, ...] = ()
    asked: bool = False


def _comparison(kept: Sequence[Token]) -> int:
    """Return how many words at the end only compare: `… red like the setting sun`."""
    for at in range(max(2, len(kept) - _LONGEST_COMPARISON), len(kept) - 2):
        is_like = kept[at].text == "like" and kept[at - 1].text != "would" and kept[at + 1].text in {"a", "the"}
        if is_like and not any(token.amount for token in kept[at:]):
            return len(kept) - at
    return 0


def _relative_clause(kept: Sequence[Token]) -> int:
    """Return how many words at the end only say which one is meant: `the map (that) you made`."""
    if len(kept) < _SHORTEST_RELATIVE or kept[-1].form != "past" or kept[-2].text not in _WHO:
        return 0
    length = 3 if kept[-3].text in {"that", "which"} else 2
    return length if kept[-length - 2].text in _OF_SOMETHING else 0


class Gate:
    """Tells wishes from talk.

    Args:
        lexicon: the language.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self._fillers = frozenset(word for word in lexicon.fillers if " " not in word)
        self._openers = Phrases(lexicon.openers)
        self._closers = Phrases(lexicon.closers)
        self._called_so = lexicon.address
        self._polite = frozenset({"please", "thanks", "thank", "will", "would", "could", "can", "kindly"})
        self._ways: tuple[tuple[Mood, Phrases], ...] = (
            ("request", Phrases(lexicon.requests)),
            ("gerund", Phrases(lexicon.gerund_requests)),
            ("wish", Phrases(lexicon.wishes)),
        )
        self._infinitive = Phrases(lexicon.infinitive_requests)
        self._delegations = Phrases(lexicon.delegations)
        self._delegated = Phrases(lexicon.delegated)
        self._questions = Phrases(lexicon.questions)
        self._modals = Phrases(lexicon.modals)
        self._bars = tuple(Phrases(words) for words in (lexicon.negations, lexicon.subordinators, lexicon.later))
        self._hearsay = Phrases(lexicon.hearsay)
        self._conditions = Phrases(lexicon.subordinators)
        told = (lexicon.state.adjectives, lexicon.state.degrees, ("low", "dirty", "messy", "late"))
        self._conditions_told = frozenset(word for words in told for word in words)
        self._subjects = frozenset(lexicon.subjects)
        self._harmless = Phrases(lexicon.harmless)
        self._pronouns = frozenset(word for word in lexicon.pronouns if " " not in word)

    def is_reported(self, tokens: Sequence[Token], verbs: frozenset[str], words: frozenset[str]) -> bool:
        """Whether a text tells what somebody said, quotes, or plays a game of words: nothing in it is a wish.

        Args:
            tokens: the words.
            verbs: what devices can do: a text that begins so is about that, as `film for a minute`.
            words: what devices are spoken of with: `song`, where one can skip it.
        """
        texts = [token.text for token in tokens]
        if '"' in texts:
            return True
        kept = self.strip(tokens)[0]
        is_done = bool(kept) and kept[0].form == "base" and kept[0].lemma in verbs and len(kept) > 1
        if not is_done:
            return self._hearsay.found(texts)
        rest = [token.text for token in kept[1:]]
        found = ((at, self._hearsay.at(rest, at)) for at in range(len(rest)))
        return any(length > 1 or (length == 1 and rest[at] not in words) for at, length in found)

    def strip(self, tokens: Sequence[Token]) -> tuple[list[Token], bool]:
        """Return the tokens without what opens and closes politely, and whether something polite was there."""
        kept = [token for token in tokens if token.text not in self._fillers]
        polite = any(token.text == "please" for token in kept)
        texts = [token.text for token in kept]
        start = 0
        while length := self._openers.at(texts, start):
            start += length
        end = len(kept)
        while end > start and (length := min(self._closers.ending(texts[:end]), end - start)):
            polite = polite or bool(self._polite & set(texts[end - length : end]))
            end -= length
        if end - start == 1 and start and texts[start - 1] in _ORDINALS:
            start -= 1  # `second floor`
        end -= self._address(texts[start:end])
        end -= _comparison(kept[start:end])
        end -= _relative_clause(kept[start:end])
        return kept[start:end], polite

    def is_address(self, tokens: Sequence[Token]) -> bool:
        """Whether words only call whom it is said to."""
        texts = [token.text for token in tokens if token.text not in self._fillers]
        is_caller = texts[:2] == ["this", "is"] and texts[-1] in _CALLERS
        return is_caller or self._address(texts) == len(texts)

    @staticmethod
    def is_comparison(tokens: Sequence[Token]) -> bool:
        """Whether words only compare: `as a reed bends in the wind`."""
        texts = [token.text for token in tokens]
        return texts[:2] in (["as", "a"], ["like", "a"], ["like", "the"]) and not any(token.amount for token in tokens)

    def is_reason(self, tokens: Sequence[Token]) -> bool:
        """Whether words only tell how things are, as one does before a wish: `it is too dark in here`."""
        texts = [token.text for token in self.strip(tokens)[0]]
        if len(texts) < _SHORTEST_REASON or texts[-1] not in self._conditions_told:
            return False
        return self._remark(texts) == "harmless" and not any(bar.found(texts) for bar in self._bars[:2])

    def going(self, tokens: Sequence[Token]) -> Sequence[Token] | None:
        """Return words that only say where to, with the verb that they leave out: `back to the dock`."""
        kept, polite = self.strip(tokens)
        texts = [token.text for token in kept]
        if texts[1:] == ["home"] and texts[0] in _THITHER:
            return [Token("go", "go"), kept[1]]
        if "to" not in texts[:3] or len(texts) < _SHORTEST_REASON:
            return None
        if texts[0] in _THITHER or (texts[0] == "to" and polite):
            return [Token("go", "go"), *kept]
        return None

    def _address(self, texts: list[str]) -> int:
        """Return how many words at the end only call whom it is said to: `soldier`, `… you beautiful machine`."""
        if not texts or texts[-1] not in self._called_so.nouns:
            return 0
        length = 1
        while length < len(texts) and texts[-length - 1] in self._called_so.adjectives:
            length += 1
        is_all = length == len(texts)
        return length if is_all or (length > 1 and texts[-length] in _CALLING) else 0

    def open(self, tokens: Sequence[Token], mentions: Mentions, *, asked: bool) -> Wish | Barred:
        """Return what a clause asks for, or why it asks for nothing."""
        kept, polite = self.strip(tokens)
        if not kept:
            return "empty"
        kept, called, more = self._asked_of(kept, mentions) or self._called(kept, mentions)
        polite = polite or more
        texts = [token.text for token in kept]
        mood, length = self._way(texts)
        if not length and (barred := self._remark(texts)) is not None:
            return barred
        if mood == "request" and texts[:length] == ["can", "you"] and not polite:
            mood = "ability"
        rest, more = self.strip(kept[length:]) if length else (kept, False)
        told = called
        delegation = self._delegate(kept if mood in {"plain", "wish"} else rest, mentions)
        if delegation is not None:
            rest, told = delegation[0], delegation[1] or called
            mood = "request" if mood in {"plain", "wish"} else mood
        if polite and not length and len(rest) > 1 and rest[0].text == "you":
            rest = rest[1:]
        if not rest or self._is_barred([token.text for token in rest], mood):
            return "talk" if rest or length else "empty"
        if mood in {"request", "ability"} and rest[0].text == "to" and not told:
            rest = rest[1:]
        return Wish(
            tokens=tuple(rest), mood=mood, polite=polite or more, mentions=mentions(rest), told=told, asked=asked
        )

    def _called(self, kept: list[Token], mentions: Mentions) -> tuple[list[Token], tuple[Mention, ...], bool]:
        """Take off whom it is said to: `rover, could you …`, `the rover should …`."""
        first = next((mention for mention in mentions(kept) if mention.start == 0), None)
        if first is None or first.end >= len(kept):
            return kept, (), False
        called = (replace(first, end=0),)
        rest, polite = self.strip(kept[first.end :])
        if rest and not first.article and self._way([token.text for token in rest])[1]:
            return rest, called, polite
        modal = self._modals.at([token.text for token in kept], first.end)
        if modal and first.end + modal < len(kept):
            return kept[first.end + modal :], called, False
        return kept, (), False

    def _asked_of(self, kept: list[Token], mentions: Mentions) -> tuple[list[Token], tuple[Mention, ...], bool] | None:
        """Take off whom it is asked of: `could the arm …`."""
        first = next((mention for mention in mentions(kept[1:]) if mention.start == 0), None)
        if first is None or kept[0].text != "could" or first.end + 1 >= len(kept):
            return None
        rest, polite = self.strip(kept[first.end + 1 :])
        if not rest or rest[0].form != "base":
            return None
        return rest, (replace(first, end=0),), polite

    def _remark(self, texts: list[str]) -> Barred | None:
        """Return what a clause is that does not ask for anything: a remark, a question."""
        if self._harmless.at(texts, 0) and not self._conditions.found(texts):
            return "harmless"
        is_statement = len(texts) > 2 and texts[1] in {"is", "are", "was", "were"}
        is_told = is_statement or (texts[0] in _OF_SOMETHING and bool({"is", "are"} & set(texts[1:4])))
        if is_told and texts[-1] in self._conditions_told:
            return "harmless"  # `your battery is low, go to the dock`
        return "talk" if is_statement or self._questions.at(texts, 0) else None

    def _is_barred(self, texts: list[str], mood: Mood) -> bool:
        """Whether words negate, doubt, report, put off, or tell of somebody."""
        if any(bar.found(texts) for bar in self._bars):
            return True
        tells = mood in {"plain", "ability"} and texts[0] in self._subjects
        return tells or (mood == "wish" and texts[0] == "to")

    def _way(self, texts: list[str]) -> tuple[Mood, int]:
        best: tuple[Mood, int] = ("plain", 0)
        for mood, phrases in self._ways:
            length = phrases.at(texts, 0)
            if length > best[1]:
                best = (mood, length)
        length = self._infinitive.at(texts, 0)
        is_place = texts[length + 1 : length + 2] and texts[length + 1] in {"the", "my", "your", "a"}
        if length and texts[length : length + 1] == ["to"] and length + 1 > best[1] and not is_place:
            return "request", length + 1
        if best[0] == "gerund" and not (len(texts) > best[1] and texts[best[1]].endswith("ing")):
            request = self._ways[0][1].at(texts, 0)
            return ("request", request) if request else ("plain", 0)
        return best

    def _delegate(self, tokens: list[Token], mentions: Mentions) -> tuple[list[Token], tuple[Mention, ...]] | None:
        """Read `tell the rover to …`, `have it …`, `send the rover to the door`."""
        texts = [token.text for token in tokens]
        length = self._delegations.at(texts, 0)
        if not length or len(tokens) <= length + 1:
            return None
        told = next((each for each in mentions(tokens[length:]) if each.start == 0), None)
        end = length + (told.end if told else int(texts[length] in self._pronouns))
        if end == length or end >= len(tokens):
            return None
        joined = self._delegated.at(texts, end)
        verb = texts[length - 1]
        if verb in _GOING:
            if texts[end] not in (_GOING_TO if verb not in {"move", "drive"} else ()):
                return None
            rest = [Token("go", "go"), *tokens[end:]]
        else:
            rest = tokens[end + joined :]
        is_said = told is not None and bool(rest) and rest[0].form == "base" and rest[0].text not in self._subjects
        if not rest or (verb in {"tell", "ask", "order", "instruct", "command"} and not joined and not is_said):
            return None
        shifted = (replace(told, start=0, end=0),) if told else ()
        return self.strip(rest)[0], shifted
