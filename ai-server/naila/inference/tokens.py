"""Text to tokens and back, with one rule: text can't become control.

A prompt is a sequence of `Segment`s. What the chat format writes is template: its control strings become control
tokens. What a person, a device, a tool or a memory said is text: whatever it contains, no control token comes of it.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import llama_cpp

_SPECIAL: Final = (
    llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
)
_CACHED_RUNS: Final = 512
_CACHED_LENGTH: Final = 4096  # characters; so the runs that are remembered are a few megabytes at most


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a prompt.

    Attributes:
        text: the characters.
        is_template: written by the chat format, and so allowed to contain control tokens.
    """

    text: str
    is_template: bool


class Vocabulary:
    """A model's vocabulary. Reading it is safe from any thread.

    Attributes:
        native: llama.cpp's own, for its samplers.
        special: control string → token id, user-defined ones included.
        silent: tokens that neither write text nor end a turn.
    """

    def __init__(self, model: int) -> None:
        self.native: int = llama_cpp.llama_model_get_vocab(model)
        self._buffer_size = 64
        self.size: int = llama_cpp.llama_vocab_n_tokens(self.native)
        self.bos: int = llama_cpp.llama_vocab_bos(self.native)
        self.adds_bos = bool(llama_cpp.llama_vocab_get_add_bos(self.native))
        self.special: dict[str, int] = {}
        self._attributes: dict[int, int] = {}
        for token in range(self.size):
            attributes = llama_cpp.llama_vocab_get_attr(self.native, token)
            if attributes & _SPECIAL or llama_cpp.llama_vocab_is_eog(self.native, token):
                name = llama_cpp.llama_vocab_get_text(self.native, token).decode("utf-8", errors="replace")
                self.special[name] = token
                self._attributes[token] = attributes
        self.silent = frozenset(t for t in self._attributes if not self.decode(t) and not self.is_end(t))
        self._special_pattern = _any_of(self.special)
        # llama.cpp parses user-defined tokens even where it was told to parse none: such strings are broken in two.
        # White space is no control string: some vocabularies define runs of it only to be shorter.
        user_defined = llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED
        breakable = [s for s, t in self.special.items() if self._attributes[t] & user_defined and len(s) > 1]
        self._breakable_pattern = _any_of(s for s in breakable if not s.isspace())
        # A conversation's old turns come back with every new one.
        self._encode_run = lru_cache(_CACHED_RUNS)(self._encode_text)

    def encode(self, segments: Iterable[Segment]) -> list[int]:
        """Return the tokens of a prompt.

        Text between two control tokens is tokenised in one run, whoever wrote which part of it, so that the result is
        the one that the whole prompt as a string would have, wherever that string is harmless.
        """
        tokens: list[int] = []
        run = ""
        for segment in segments:
            if not segment.is_template or self._special_pattern is None:
                run += segment.text
                continue
            position = 0
            for match in self._special_pattern.finditer(segment.text):
                token = self.special[match[0]]
                run += segment.text[position : match.start()]
                position = match.end()
                if self._attributes[token] & llama_cpp.LLAMA_TOKEN_ATTR_LSTRIP:
                    run = run.rstrip()
                tokens += self.encode_text(run)
                tokens.append(token)
                run = ""
                if self._attributes[token] & llama_cpp.LLAMA_TOKEN_ATTR_RSTRIP:
                    position += len(segment.text[position:]) - len(segment.text[position:].lstrip())
            run += segment.text[position:]
        tokens += self.encode_text(run)
        if self.adds_bos and tokens[:1] != [self.bos]:
            tokens.insert(0, self.bos)
        return tokens

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Return the tokens of text, none of them a control token."""
        if not text:
            return ()
        return self._encode_run(text) if len(text) <= _CACHED_LENGTH else self._encode_text(text)

    def _encode_text(self, text: str) -> tuple[int, ...]:
        if self._breakable_pattern is None:
            return tuple(self._tokenize(text))
        tokens: list[int] = []
        start = 0
        for match in self._breakable_pattern.finditer(text):
            tokens += self._tokenize(text[start : match.start() + 1])
            start = match.start() + 1
        return (*tokens, *self._tokenize(text[start:]))

    def _tokenize(self, text: str) -> list[int]:
        data = text.encode("utf-8", errors="replace")
        room = len(data) + 2
        buffer = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self.native, data, len(data), buffer, room, False, False)
        if count < 0:
            raise ValueError(f"{len(data)} bytes of text became {-count} tokens")
        return list(buffer[:count])

    def decode(self, token: int) -> bytes:
        """Return the bytes of one token; nothing for a control token. They may end inside a character."""
        buffer = ctypes.create_string_buffer(self._buffer_size)
        size = llama_cpp.llama_token_to_piece(self.native, token, buffer, len(buffer), 0, False)
        if size < 0:
            self._buffer_size = -size
            return self.decode(token)
        return buffer.raw[:size]

    def is_like(self, other: Vocabulary) -> bool:
        """Whether every token is the same in both, so that the tokens of one can be given to the other's model."""
        return self.size == other.size and all(
            llama_cpp.llama_vocab_get_text(self.native, token) == llama_cpp.llama_vocab_get_text(other.native, token)
            for token in range(self.size)
        )

    def is_end(self, token: int) -> bool:
        """Tell whether the model ends its turn with this token."""
        return bool(llama_cpp.llama_vocab_is_eog(self.native, token))

    def is_control(self, token: int) -> bool:
        """Tell whether the token is one that text must never become."""
        return token in self._attributes

    def text_of(self, token: int) -> str:
        """Return a token's own spelling, control tokens included; empty for none (-1)."""
        if token < 0:
            return ""
        return str(llama_cpp.llama_vocab_get_text(self.native, token).decode("utf-8", errors="replace"))


def _any_of(strings: Iterable[str]) -> re.Pattern[str] | None:
    """Match any of the strings, the longest first."""
    longest_first = sorted((s for s in strings if s), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
