"""Evidence: what in a wish speaks for an action itself, apart from the devices and arguments that it names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from naila.config.lexicon import Lexicon
from naila.understanding.attempt import Filling
from naila.understanding.frames import MOVERS, WAYS, Frame
from naila.understanding.gate import Wish
from naila.understanding.related import Related
from naila.understanding.words import Phrases, template_of

ENOUGH: Final = 0.6
_TOO_LITTLE: Final = ENOUGH / 2
_PHRASE: Final = 1.0
_AIMED: Final = 0.4
_PERSONS: Final = frozenset({"my", "his", "her", "our", "their"})
_TURN: Final = "turn"
_GOING: Final = "go"
_IT: Final = frozenset({"it", "them", "that", "those"})
_DOING: Final = "do"
_TIMES: Final = frozenset({"second", "minute", "hour", "day"})  # `five minutes please` asks for patience
_LIMITS: Final = frozenset({"max", "maximum", "top", "default", "target", "normal"})
_ATTRIBUTES: Final = frozenset({"speed", "level", "temperature", "size", "rate", "delay", "volume", "power", "force"})
_CHOOSERS: Final = frozenset({"use", "select", "choose", "switch", "change", "mount", "attach", "pick", "equip"})
_PLURAL_AFTER: Final = frozenset({"a", "an", "the", "some", "your", "my", "few", "more", "another"})


@dataclass(slots=True)
class Weighed:
    """What was found for a frame in a wish.

    Attributes:
        nouns: weight of what is not a verb: nouns, values, amounts.
        verb: weight of the verb.
        strong: a verb or phrase of its own was said.
        phrase: an example was said.
        carried: the verb only says that something should be so.
        explained: places of the words that were found.
    """

    nouns: float
    verb: float = 0.0
    strong: bool = False
    phrase: bool = False
    carried: bool = False
    explained: set[int] = field(default_factory=set)


class Scales:
    """Weighs what speaks for an action.

    Args:
        lexicon: the language.
        related: words that may stand for each other.
    """

    def __init__(self, lexicon: Lexicon, related: Related) -> None:
        self._related = related
        self._empty = Phrases((*lexicon.function, *lexicon.hedges, *lexicon.manners, *lexicon.particles))
        self._articles = Phrases(lexicon.function)
        self._carriers = lexicon.carriers
        self._setters = lexicon.setters
        self._going_on = lexicon.going_on
        self._body = lexicon.body

    def weigh(self, frame: Frame, wish: Wish, head: int | None, filling: Filling) -> tuple[float, bool, set[int]]:
        """Return how much speaks for a frame, whether its own verb was said, and the words that this explains.

        Args:
            frame: the frame.
            wish: the words.
            head: place of the word where the verb should be.
            filling: the arguments that were found.
        """
        found = self._found(frame, wish, head, filling)
        if _all_named(frame, filling) or _is_put(frame, wish, head, filling):
            found.verb, found.strong = max(found.verb, _PHRASE), True
        self._find_way(frame, wish, filling, found)
        self._find_phrase(frame, wish, filling, found)
        self._find_template(frame, wish, filling, found)
        idle = not found.verb and not found.carried and not filling.used
        if idle and not wish.polite and wish.mood in {"plain", "ability"}:
            return min(found.nouns, _TOO_LITTLE), False, found.explained
        if not (found.strong or found.phrase) and found.nouns == filling.evidence:
            found.nouns, found.verb = self._alone(frame, wish, head, filling), 0.0
        if frame.parameter is not None and not self._is_parameter(frame, wish, head, filling, found):
            return min(found.nouns, _TOO_LITTLE), False, found.explained
        evidence = found.nouns + found.verb
        verb_only = found.strong and not found.phrase and found.nouns == filling.evidence and not filling.used
        if verb_only and not any(token.lemma in frame.whole_verbs for token in wish.tokens):
            evidence = min(evidence, _TOO_LITTLE)  # `forget` alone is not `clear_map`
        return evidence, found.strong, found.explained

    def _found(self, frame: Frame, wish: Wish, head: int | None, filling: Filling) -> Weighed:
        found = Weighed(filling.evidence)
        for at, token in enumerate(wish.tokens):
            if token.amount and token.amount.unit == _TURN and at in filling.used and head is not None and head < at:
                found.verb = max(found.verb, frame.verbs.get(_TURN, 0.0))  # `do half a turn`
                found.strong = found.verb > ENOUGH
            if token.amount or at in filling.used or self._is_a_persons(wish, at):
                continue
            verb, noun = frame.verbs.get(token.lemma, 0.0), frame.nouns.get(token.lemma, 0.0)
            if verb and (self._is_base(wish, at, head) or _is_noun(wish, at)):
                found.explained.add(at)
                found.strong = found.strong or verb > ENOUGH
                if at == head or verb > ENOUGH:
                    found.verb = max(found.verb, verb)
            elif noun and token.form != "past" and not (at == head and token.form == "ing"):
                found.explained.add(at)
                found.nouns += noun
            elif at == head and token.lemma in self._carriers and self._is_base(wish, at, head):
                found.explained.add(at)
                found.carried = True
        return found

    def _is_a_persons(self, wish: Wish, at: int) -> bool:
        """Whether it is a part of a person: `hold my hand` is no wish to close a gripper called so."""
        return at > 0 and wish.tokens[at - 1].text in _PERSONS and wish.tokens[at].lemma in self._body

    @staticmethod
    def _find_way(frame: Frame, wish: Wish, filling: Filling, found: Weighed) -> None:
        """Find the `down` of `pull the blind down`, where an example says that of the device."""
        spoken_of = any(frame.device_id in mention.devices for mention in (*wish.told, *wish.mentions))
        if not frame.ways or not (spoken_of or wish.polite or _IT & {token.text for token in wish.tokens}):
            return
        words = frozenset().union(*(WAYS[way] for way in frame.ways))
        said = {at for at, token in enumerate(wish.tokens) if token.lemma in words and at not in filling.used}
        if said:
            found.explained |= said
            found.explained.update(at for at, token in enumerate(wish.tokens) if token.lemma in MOVERS)
            found.verb, found.strong, found.phrase = max(found.verb, _PHRASE), True, True

    def _find_phrase(self, frame: Frame, wish: Wish, filling: Filling, found: Weighed) -> None:
        """Find an example in the words, its verb perhaps another of the same meaning."""
        if not frame.phrases:
            return
        lemmas = [token.lemma for token in wish.tokens]
        called = wish.mentions[0].end if wish.mentions and not wish.mentions[0].start else 0
        content = [
            at
            for at, lemma in enumerate(lemmas)
            if not self._empty.at((lemma,), 0) or (lemma == "in" and at == len(lemmas) - 1)
        ]
        ways = {tuple(lemmas[at] for at in content if at >= start) for start in (0, called)}
        is_all = tuple(lemmas) in frame.phrases
        if not is_all and not any(self._is_said(phrase, said) for said in ways for phrase in frame.phrases):
            return
        words = {word for phrase in frame.phrases for word in phrase}
        for at, lemma in enumerate(lemmas):
            if at not in filling.used and {lemma, *self._related.to(lemma)} & words:
                found.explained.add(at)
        found.verb, found.strong, found.phrase = max(found.verb, _PHRASE), True, True

    def _find_template(self, frame: Frame, wish: Wish, filling: Filling, found: Weighed) -> None:
        """Find an example in which only the values and amounts are others."""
        texts, lemmas = [token.text for token in wish.tokens], [token.lemma for token in wish.tokens]
        said = template_of(texts, lemmas, filling.used, self._articles) if frame.templates else ()
        rest = [token.form for at, token in enumerate(wish.tokens) if at not in filling.used]
        if said in frame.templates and rest[:1] == ["base"] and "past" not in rest:
            found.verb, found.phrase = max(found.verb, _PHRASE), True
            found.strong = found.strong or "*" not in said or len(set(said)) > 2
            found.explained.update(range(len(texts)))

    def _is_said(self, phrase: tuple[str, ...], content: tuple[str, ...]) -> bool:
        def same(word: str, said: str) -> bool:
            return word == said or said in self._related.to(word)

        begins = content[:1] == phrase[:1] and len(content) >= len(phrase)
        if begins and all(same(word, said) for word, said in zip(phrase, content, strict=False)):
            return True
        if len(phrase) < 3:
            return False
        said = set(content)
        if phrase[0] in said:
            return all(word in said or self._related.to(word) & said for word in phrase[1:])
        return set(phrase[1:]) <= said and bool(self._related.to(phrase[0]) & said)

    def _is_parameter(self, frame: Frame, wish: Wish, head: int | None, filling: Filling, found: Weighed) -> bool:
        """Whether a parameter is spoken of by its whole name, or by a value that only it can have."""
        lemmas = [token.lemma for token in wish.tokens]
        said = {other for lemma in lemmas for other in (lemma, *self._related.to(lemma))} | filling.attributes
        is_choice = frame.slots[0].kind == "choice" and not frame.slots[0].is_switch
        chosen = is_choice and head is not None and lemmas[head] in _CHOOSERS and bool(filling.used)
        own = frame.own - _LIMITS if filling.attributes else frame.own
        exact = any(at in filling.used and token.amount and token.amount.unit for at, token in enumerate(wish.tokens))
        part = frame.own - _ATTRIBUTES if exact and frame.slots[0].kind == "number" else frozenset()
        if not (own <= said or chosen or (part and part <= set(lemmas))):
            return False
        if not frame.writable and found.carried:
            found.explained.update(range(len(lemmas)))
        if found.carried or filling.used or wish.polite:
            found.nouns = max(found.nouns, 2 * ENOUGH)
        return True

    def _alone(self, frame: Frame, wish: Wish, head: int | None, filling: Filling) -> float:
        """Return how much a value or an amount says where no word for the action stands beside it."""
        tokens, used = wish.tokens, filling.used
        verb = tokens[head].lemma if head is not None and head not in used else ""
        values = [at for at in used if tokens[at].amount is None and tokens[at].share is None]
        another_switch = not frame.states_itself and any(slot.is_switch for slot in frame.slots)
        wanted = bool(verb) or wish.polite or wish.mood != "plain"
        ordered = (frame.orders and (wanted or len(values) < len(used))) or (wanted and _is_number_of(frame, filling))
        picked = bool(values) and _GOING not in frame.verbs and (verb == _DOING or (not verb and wish.polite))
        spoken_of = any(frame.device_id in mention.devices for mention in (*wish.told, *wish.mentions))
        is_led = verb == _GOING or (not verb and spoken_of and any(token.text == "to" for token in tokens))
        is_goal = is_led and _GOING in frame.verbs
        is_meant = frame.sets or ordered or picked or is_goal or bool(filling.missing)
        only_values = len(values) == len(used) and not is_meant
        chosen = any(slot.kind == "choice" and slot.name in filling.arguments for slot in frame.slots)
        is_bare = len(tokens) == 1 and chosen and not (wish.polite or filling.missing or wish.mood == "request")
        loose = is_bare and tokens[0].text not in _said_values(filling)
        is_other = bool(verb) and verb not in self._setters and not (picked and verb == _DOING)
        if is_other or (values and (another_switch or only_values or loose)):
            return min(filling.evidence, _TOO_LITTLE)
        at = min((at for at in used if tokens[at].amount), default=0)
        before = {token.text for token in tokens[max(0, at - 2) : at] if token.amount is None}
        is_aimed = bool(before & {"to", "at"}) and (bool(verb) or spoken_of) and not chosen
        if values or not used:
            return filling.evidence + (_AIMED if is_aimed else 0.0)
        if ordered and wanted:
            return max(filling.evidence, ENOUGH)
        lasts = not verb and all(token.amount and token.amount.unit in _TIMES for token in tokens)
        if not frame.is_setting or lasts or not (wanted or spoken_of):
            return min(filling.evidence, _TOO_LITTLE)
        return filling.evidence + (_AIMED if is_aimed else 0.0)

    def _is_base(self, wish: Wish, at: int, head: int | None) -> bool:
        """Whether a word has the form of a command; one with -ing only after `would you mind`, `start`."""
        if wish.tokens[at].form != "ing":
            return wish.tokens[at].form == "base"
        before = wish.tokens[at - 1].lemma if at else ""
        return (wish.mood == "gerund" and at == head) or before in self._going_on


def _all_named(frame: Frame, filling: Filling) -> bool:
    """Whether several arguments, and all that are required, are given by name: `azimuth 180 altitude 45`."""
    given = [slot for slot in frame.slots if slot.kind == "number" and slot.name in filling.arguments]
    return len(given) > 1 and len(filling.named) >= len(given) and not (filling.missing or filling.problems)


def _is_put(frame: Frame, wish: Wish, head: int | None, filling: Filling) -> bool:
    """Whether what an action sets is named, and where it is to come to, and nothing else: `bed to 60`."""
    tokens = wish.tokens
    at = next((at for at, token in enumerate(tokens) if token.amount and at in filling.used), 0)
    is_aimed = at > 1 and at == len(tokens) - 1 and tokens[at - 1].text in {"to", "at"}
    named = tokens[head].lemma if head is not None and is_aimed and head == at - 2 else ""
    return frame.is_setting and frame.parameter is None and named in frame.own and frame.nouns.get(named, 0.0) > ENOUGH


def _is_number_of(frame: Frame, filling: Filling) -> bool:
    """Whether it is said how many, or which one, of what an action counts: `two portions`, `second floor`."""
    counted = any(slot.kind == "number" and not slot.unit and slot.name in filling.arguments for slot in frame.slots)
    return counted and bool(filling.named)


def _said_values(filling: Filling) -> set[str]:
    booleans = {True: "on", False: "off"}
    return {booleans[v] if isinstance(v, bool) else str(v).casefold() for v in filling.arguments.values()}


def _is_noun(wish: Wish, at: int) -> bool:
    """Whether a word with -s is one of several things: `two beeps`."""
    if wish.tokens[at].form != "s" or not at:
        return False
    before = wish.tokens[at - 1]
    return before.amount is not None or before.text in _PLURAL_AFTER
