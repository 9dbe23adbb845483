"""What robots say to a party under test, and what each turn cost: the same words for everybody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import llama_cpp

from naila.config.personas import load_personas
from naila.errors import NailaError
from naila.events import Usage
from naila.inference.backend import native_log
from naila.inference.chat_format import chat_format
from naila.inference.tokens import Vocabulary
from naila.orchestration.response_generator import opening
from naila.ports import ChatMessage

ROOT = Path(__file__).parents[1]
PERSONAS = Path(__file__).parent / "personas"

KINDS = ("clever", "tired", "brave", "lonely", "noisy", "tiny", "ancient", "forgetful")
HEROES = ("fox", "lighthouse", "tractor", "dragon", "librarian", "submarine", "penguin", "violin")
# All of them are questions to the model: none is a command, or for the clock, or makes the brain add a note.
QUESTIONS = (
    "Tell a long story about a {} and describe every detail.",
    "What happened to the {} the morning after, and who came along?",
    "Describe the house of the {} from the door to the roof.",
    "Why did the {} cross the river, and what waited on the other side?",
    "Explain how the {} learned to sing, from the first note to the concert.",
    "Which three friends did the {} find, and what did each of them bring?",
    "Describe the food that the {} cooked for the feast.",
    "How did the {} cross the mountains in the snow?",
    "What did the {} write in the letter to the queen?",
    "Describe the dream that the {} had that night, from beginning to end.",
    "What became of the {} in the end, and what did the village say?",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One reply, as its robot saw it.

    Attributes:
        text: all of it.
        first: the first piece of text that came.
        first_s: from asking to that piece.
        last_s: from asking to the last piece.
        usage: tokens, as the party itself counts them.
        finish_reason: why it ended.
    """

    text: str
    first: str
    first_s: float
    last_s: float
    usage: Usage
    finish_reason: str


class Heard:
    """Puts an answer together while its pieces come in."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._pieces: list[str] = []
        self._first_s = self._last_s = 0.0

    def piece(self, text: str) -> None:
        """Note a piece, now; an empty one is none."""
        if not text:
            return
        self._last_s = time.perf_counter() - self._began
        self._first_s = self._first_s or self._last_s
        self._pieces.append(text)

    def answer(self, usage: Usage, finish_reason: str) -> Answer:
        """Return the whole.

        Raises:
            AnswerError: nothing came.
        """
        if not self._pieces:
            raise AnswerError(f"an answer without text ({finish_reason})")
        return Answer(
            text="".join(self._pieces),
            first=self._pieces[0],
            first_s=self._first_s,
            last_s=self._last_s,
            usage=usage,
            finish_reason=finish_reason,
        )


class AnswerError(Exception):
    """A turn was not answered as it should have been."""


class Talker(Protocol):
    """A party that runs."""

    async def ask(self, robot: str, history: Sequence[ChatMessage], words: str, max_tokens: int) -> Answer:
        """Say something in a robot's conversation. `history` is for parties that remember nothing themselves."""
        ...


class Party(Protocol):
    """Who is measured."""

    @property
    def name(self) -> str:
        """What to call it in tables."""
        ...

    def running(self, folder: Path, robots: int) -> AbstractAsyncContextManager[Talker]:
        """Start it afresh for so many robots, with its files in an empty folder."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn of one robot.

    Attributes:
        robot: whose.
        number: of the turn in its conversation, from 1.
        prompt_tokens: of its prompt as we lay it out; a party that counts others was asked other words.
        new_tokens: tokens of its prompt that nobody can have read before.
        answer: what came.
        error: what came instead.
        decoding_per_s: tokens a second after the first text.
    """

    robot: str
    number: int
    prompt_tokens: int
    new_tokens: int
    answer: Answer | None = None
    error: str | None = None
    decoding_per_s: float = 0.0


class Tokens:
    """Counts tokens as the model under test does; holds its vocabulary, not its weights."""

    def __init__(self, path: Path) -> None:
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = True
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            raise SystemExit(f"{path} cannot be loaded: {native_log.take_errors()}")
        self._vocabulary = Vocabulary(self._model)
        template: bytes | None = llama_cpp.llama_model_chat_template(self._model, None)
        eos: int = llama_cpp.llama_vocab_eos(llama_cpp.llama_model_get_vocab(self._model))
        self.has_template = template is not None
        self.format = chat_format(
            template.decode("utf-8", errors="replace") if template else None,
            special=self._vocabulary.special,
            bos=self._vocabulary.text_of(self._vocabulary.bos),
            eos=self._vocabulary.text_of(eos),
        )

    def of_text(self, text: str) -> int:
        """Count the tokens of text."""
        return len(self._vocabulary.encode_text(text))

    def of_prompt(self, messages: Sequence[ChatMessage]) -> int:
        """Count the tokens of a conversation's prompt."""
        return len(self._vocabulary.encode(self.format.render(messages)))


def robot_name(number: int) -> str:
    """Return a robot's device id."""
    return f"robot-{number:02}"


def words(robot: int, number: int) -> str:
    """Return what a robot says in its turn, from 1."""
    kind = KINDS[robot // len(HEROES) % len(KINDS)]
    hero = f"{kind} {HEROES[robot % len(HEROES)]}"
    return QUESTIONS[(number - 1) % len(QUESTIONS)].format(hero)


def first_messages(persona: str) -> list[ChatMessage]:
    """Return what every prompt of a persona, ours or a shipped one, begins with."""
    personas = {**load_personas(ROOT / "config" / "personas"), **load_personas(PERSONAS)}
    return opening(personas[persona])


@dataclass(slots=True)
class Conversation:
    """One robot's talk with a party.

    Attributes:
        talker: the party.
        tokens: counts.
        number: of the robot.
        history: what was said, and the persona's opening before it.
        said: turns taken.
    """

    talker: Talker
    tokens: Tokens
    number: int
    history: list[ChatMessage]
    said: int = 0
    _known: int = 0

    @property
    def robot(self) -> str:
        """Its device id."""
        return robot_name(self.number)

    async def turn(self, max_tokens: int) -> Turn:
        """Take the next turn."""
        self.said += 1
        text = words(self.number, self.said)
        asked = [*self.history, ChatMessage("user", text)]
        prompt = self.tokens.of_prompt(asked)
        fields: dict[str, Any] = {
            "robot": self.robot,
            "number": self.said,
            "prompt_tokens": prompt,
            "new_tokens": prompt - self._known,
        }
        try:
            answer = await self.talker.ask(self.robot, self.history, text, max_tokens)
        except (NailaError, AnswerError, TimeoutError, OSError) as exc:
            return Turn(**fields, error=f"{type(exc).__name__}: {exc}")
        self.history = [*asked, ChatMessage("assistant", answer.text)]
        # What a reply that is cut off ends with was drawn, but never read by the model.
        cut = answer.finish_reason == "length"
        self._known = prompt + self.tokens.of_text(answer.text) - cut
        return Turn(**fields, answer=answer, decoding_per_s=self._speed(answer, cut=cut))

    def _speed(self, answer: Answer, *, cut: bool) -> float:
        later = answer.usage.completion_tokens - self.tokens.of_text(answer.first) - (not cut)
        took = answer.last_s - answer.first_s
        return later / took if later > 0 and took > 0 else 0.0


async def talk(conversations: Sequence[Conversation], turns: int, max_tokens: int) -> tuple[list[Turn], float]:
    """Let all talk at once, each as fast as it is answered; return their turns and the seconds in all."""

    async def one(conversation: Conversation) -> list[Turn]:
        return [await conversation.turn(max_tokens) for _ in range(turns)]

    began = time.perf_counter()
    taken = await asyncio.gather(*map(one, conversations))
    return [turn for robot in taken for turn in robot], time.perf_counter() - began
