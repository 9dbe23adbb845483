"""Watching an answer while it is written: no template pieces, no endless repetition, no stray blanks.

The same code serves streamed and whole answers, and how the text is cut into pieces makes no difference. Only what a
template piece could still begin with is held back.
"""

from __future__ import annotations

import re
from typing import Final

TEMPLATE_PIECES: Final = (
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"),
    *("<|eot_id|>", "<|eom_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>"),
    *("<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|reserved_special_token_"),
    *("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "</s>", "<start_of_turn>", "<end_of_turn>"),
    *("### Instruction", "### Response", "### Human", "### Assistant", "### User"),
    *("\nUser:", "\nuser\n", "\nHuman:", "\nAssistant:", "\nassistant\n", "\nsystem\n"),
)
# A header before the answer proper is taken off; the same later ends the answer.
HEADERS: Final = (
    "<|im_start|>assistant\n",
    "<|start_header_id|>assistant<|end_header_id|>",
    "Assistant:",
    "assistant\n",
)
PIECE = re.compile("|".join(re.escape(piece) for piece in TEMPLATE_PIECES))
BEGINNINGS: Final = frozenset(piece[:length] for piece in TEMPLATE_PIECES for length in range(1, len(piece)))
LONGEST: Final = max(map(len, TEMPLATE_PIECES)) - 1
UNFINISHED: Final = ("<|", "<<", "</", "[INST", "[/INST", "<start_of", "<end_of")

STRIDE: Final = 16  # how many characters pass between two looks for a loop
WINDOW: Final = 1200  # how far back a look goes
PROBE: Final = 12  # a loop's last characters must have occurred before
MIN_LOOP: Final = 80  # repeated text shorter than this is emphasis ("ha ha ha"), not a loop
LONG_BLOCK: Final = 30  # three times this much is a loop; of anything shorter four times
DIGITS = str.maketrans("123456789", "000000000")  # "1. yes 2. yes 3. yes" is a loop too
MIN_LETTERS: Final = 10  # … but "1 2 3 4" and "2 x 7 = 14" are not
SENTENCE = re.compile(r"[.!?…](?=[\"'”’)\]]*(?:\s|$))[\"'”’)\]]*|[。！？]")  # noqa: RUF001 - full-width marks are meant
ABBREVIATION = re.compile(r"(?:\b(?:Dr|Mr|Mrs|Ms|St|e\.g|i\.e|etc|No|vs)|(?:^|\s)\d{1,3})\.$")


class StreamGuard:
    """Takes an answer in pieces and gives back what may be said.

    Attributes:
        ended: nothing more will be let through: the generation may stop.
        looped: it ended because the answer repeated itself.
        text: everything let through.
    """

    def __init__(self) -> None:
        self.ended = False
        self.looped = False
        self.text = ""
        self._seen = 0
        self._held = "\n"  # an answer begins on a new line
        self._begun = False
        self._cut: int | None = None

    @property
    def once(self) -> str:
        """The text with one copy of what was repeated."""
        return self.text if self._cut is None else self.text[: self._cut].rstrip()

    def feed(self, piece: str) -> str:
        """Take a piece; return what may be said now."""
        said_before = len(self.text)
        while piece and not self.ended:
            take = STRIDE - self._seen % STRIDE
            chunk, piece = piece[:take], piece[take:]
            self._seen += len(chunk)
            self._take(chunk)
            if self._seen % STRIDE == 0 and not self.ended:
                self._look_for_loop()
        return self.text[said_before:]

    def finish(self) -> str:
        """Take note that nothing follows; return what was held back and may be said."""
        if self.ended:
            return ""
        self.ended = True
        rest = self._held.rstrip() if self._begun else self._held.strip()
        if rest.lstrip().startswith(UNFINISHED):
            return ""
        self.text += rest
        return rest

    def _take(self, chunk: str) -> None:
        self._held += chunk
        if not self._begun and not self._begin():
            return
        found = PIECE.search(self._held)
        if found is not None:
            self._let_through(self._held[: found.start()].rstrip())
            self._held = ""
            self.ended = True
            return
        self._let_through(self._held[: _free(self._held)])

    def _begin(self) -> bool:
        """Take off blanks and a header at the beginning; return whether the answer proper has begun."""
        while True:
            text = self._held.lstrip()
            header = next((header for header in HEADERS if text.startswith(header)), None)
            if header is None:
                break
            self._held = "\n" + text[len(header) :]
        if not text or any(header.startswith(text) for header in HEADERS):
            return False
        # What is looked through keeps a line's beginning: "User:" is a template piece only there.
        self._held = "\n" + text
        found = PIECE.match(self._held)
        if found is None and self._held[:LONGEST] in BEGINNINGS:
            return False
        if found is None:
            self._held = text
        self._begun = True
        return True

    def _let_through(self, text: str) -> None:
        self.text += text
        self._held = self._held[len(text) :]

    def _look_for_loop(self) -> None:
        tail = (self.text[-WINDOW:] + self._held)[-WINDOW:]
        found = find_loop(tail)
        if found is None:
            return
        start, period = found
        length = len(self.text) + len(self._held)
        cut = length - len(tail) + start + period
        if self.text[cut : cut + 1] in {".", "!", "?"}:
            cut += 1
        self._cut = cut
        self._held = ""
        self.looped = self.ended = True


def find_loop(text: str) -> tuple[int, int] | None:
    """Return where a text starts to repeat itself up to its end, and the length of what it repeats."""
    return _loop(text, 0) or _loop(text.translate(DIGITS), MIN_LETTERS)


def _loop(text: str, min_letters: int) -> tuple[int, int] | None:
    end = len(text)
    if end < MIN_LOOP:
        return None
    probe = text[-PROBE:]
    at = text.rfind(probe, 0, end - 1)
    while at >= 0:
        period = end - PROBE - at
        if period > end // 3:
            return None
        start = end - period
        while start > 0 and text[start - 1] == text[start - 1 + period]:
            start -= 1
        repeated = end - start
        times = repeated // period
        enough = repeated >= MIN_LOOP and (times >= 4 or (times >= 3 and period >= LONG_BLOCK))
        if enough and sum(map(str.isalpha, text[end - period :])) >= min_letters:
            return start, period
        at = text.rfind(probe, 0, at + PROBE - 1)
    return None


def cut_at_sentence(text: str) -> str:
    """Return a truncated text up to its last whole sentence, or as it is if it has none."""
    whole = 0
    for mark in SENTENCE.finditer(text):
        if not ABBREVIATION.search(text[max(0, mark.end() - 8) : mark.end()]):
            whole = mark.end()
    return text[:whole] if whole else text


def _free(text: str) -> int:
    """Return how much of a text no template piece and no blank at its end can still claim."""
    free = len(text.rstrip())
    for start in range(max(0, len(text) - LONGEST), len(text)):
        if text[start:] in BEGINNINGS:
            free = min(free, start)
            break
    return len(text[:free].rstrip())
