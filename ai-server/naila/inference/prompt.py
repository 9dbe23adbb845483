"""From messages to the tokens of a prompt that fits."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Final

from naila.errors import ContextOverflowError, GenerationError
from naila.inference.model import Model
from naila.inference.prefix_cache import as_tokens
from naila.inference.tokens import Segment
from naila.ports import ChatMessage

_KEEP_SHARE: Final = 0.75


def build_prompt(model: Model, messages: Sequence[ChatMessage] | str, max_tokens: int) -> tuple[array[int], int]:
    """Return a prompt's tokens and how many history messages had to be left out.

    An answer of ordinary length must still fit behind it.

    Raises:
        ContextOverflowError: it cannot be made to fit.
        GenerationError: it is empty.
    """
    if isinstance(messages, str):
        tokens = model.vocabulary.encode([Segment(messages, is_template=False)])
        return as_tokens(_checked(tokens, model.n_ctx - 1)), 0
    limit = model.n_ctx - max(1, min(max_tokens, model.n_ctx // 4))
    tokens, dropped = fit(messages, limit, lambda kept: model.vocabulary.encode(model.chat_format.render(kept)))
    return as_tokens(tokens), dropped


def fit(
    messages: Sequence[ChatMessage], limit: int, encode: Callable[[Sequence[ChatMessage]], list[int]]
) -> tuple[list[int], int]:
    """Make a conversation fit: the oldest turns leave first, the system prompt and the last message never.

    Once something must leave, history is cut to three quarters of the limit: cutting one turn each time would change
    the prompt's beginning with every turn, and all of it would be read in again.

    Returns:
        The prompt's tokens and the number of messages left out.

    Raises:
        ContextOverflowError: the system prompt and the last message alone are too long.
    """
    tokens = encode(messages)
    if len(tokens) <= limit:
        return _checked(tokens, limit), 0
    head = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
    starts = [i for i in range(head + 1, len(messages)) if messages[i].role == "user"] or [head]
    for start in starts:
        tokens = encode([*messages[:head], *messages[start:]])
        if len(tokens) <= limit * _KEEP_SHARE:
            break
    return _checked(tokens, limit), start - head


def _checked(tokens: list[int], limit: int) -> list[int]:
    if not tokens:
        raise GenerationError("the prompt is empty")
    if len(tokens) > limit:
        raise ContextOverflowError(
            f"the message is too long: its prompt has {len(tokens)} tokens even without history, and {limit} fit; "
            "shorten it, or raise LLM_CONTEXT_SIZE",
            tokens=len(tokens),
            limit=limit,
        )
    return tokens
