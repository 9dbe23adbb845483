"""Chat messages to prompt segments: Llama 3.1 built in, any other model by the template in its own GGUF.

A template is rendered with placeholders where the contents go, then cut at them, so that what the template wrote and
what people said never mix; see `naila.inference.tokens`. Since only the sequence of roles reaches the template, a
rendering is made once for each sequence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NoReturn, Protocol

import jinja2
import jinja2.sandbox

from naila.errors import ModelLoadError
from naila.inference.tokens import Segment
from naila.ports import ChatMessage, Role

_LLAMA3_MARKS: Final = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Private-use characters: no template contains them, and no content passes through a template.
_PLACEHOLDER: Final = re.compile("\ue000([0-9]+)\ue001")


class ChatFormat(Protocol):
    """How a model wants its conversations written."""

    @property
    def name(self) -> str:
        """What to call it in logs."""
        ...

    def render(self, messages: Sequence[ChatMessage]) -> list[Segment]:
        """Write the conversation, ending where the assistant's answer begins."""
        ...


class Llama31Format:
    """The format of Llama 3, 3.1, 3.2 and 3.3, tool results in the `ipython` role.

    Source: Meta's model card "Llama 3.1 prompt formats" and `ChatFormat` in the `llama-models` repository, which
    strips contents and writes no dates of its own.
    """

    name: Final = "llama-3.1"

    def render(self, messages: Sequence[ChatMessage]) -> list[Segment]:
        """Write the conversation, ending where the assistant's answer begins."""
        segments = [Segment("<|begin_of_text|>", is_template=True)]
        for message in messages:
            segments += [
                Segment(f"<|start_header_id|>{message.role}<|end_header_id|>\n\n", is_template=True),
                Segment(message.content.strip(), is_template=False),
                Segment("<|eot_id|>", is_template=True),
            ]
        segments.append(Segment("<|start_header_id|>assistant<|end_header_id|>\n\n", is_template=True))
        return segments


class TemplateFormat:
    """The Jinja template that a GGUF file carries, in a sandbox, since a model file is not to be trusted."""

    def __init__(self, template: str, *, bos: str, eos: str, name: str = "template of the GGUF file") -> None:
        """Compile and try the template.

        Raises:
            ModelLoadError: it does not compile, or cannot even render one user message.
        """
        self.name: Final = name
        self._variables = {"bos_token": bos, "eos_token": eos, "tools": None, "documents": None}
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(template)
            # Rendered as data, the roles decide everything else.
            plain = self._pieces(("user",), padded=True)
        except Exception as exc:
            raise ModelLoadError(f"the model's chat template cannot be used: {exc}; take another file") from exc
        self._strips = not any(piece.endswith(" ") for piece in plain[:1])
        self._has_system = self._takes(("system", "user"))
        self._has_tool_role = self._takes(("system", "user", "assistant", "ipython"))
        self._render_roles = lru_cache(256)(self._pieces)

    def render(self, messages: Sequence[ChatMessage]) -> list[Segment]:
        """Write the conversation, ending where the assistant's answer begins."""
        fitted = self._fit_roles(messages)
        pieces = self._render_roles(tuple(message.role for message in fitted))
        segments: list[Segment] = []
        for index, piece in enumerate(pieces):
            if index % 2 == 0:
                segments.append(Segment(piece, is_template=True))
            else:
                content = fitted[int(piece)].content
                segments.append(Segment(content.strip() if self._strips else content, is_template=False))
        return segments

    def _fit_roles(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        """Fold the roles that the template refuses into the user's messages."""
        fitted: list[ChatMessage] = []
        pending = ""
        for message in messages:
            role: Role = message.role
            if role == "ipython" and not self._has_tool_role:
                role = "user"
            if role == "system" and not self._has_system:
                pending += f"{message.content}\n\n"
                continue
            content = message.content
            if role == "user" and pending:
                content, pending = pending + content, ""
            if fitted and not self._has_tool_role and fitted[-1].role == role == "user":
                fitted[-1] = ChatMessage("user", f"{fitted[-1].content}\n\n{content}")
            else:
                fitted.append(ChatMessage(role, content))
        return fitted

    def _takes(self, roles: tuple[Role, ...]) -> bool:
        """Tell whether the template renders all these roles' contents."""
        try:
            pieces = self._pieces(roles)
        except Exception:  # noqa: BLE001 - a foreign template may raise whatever it likes
            return False
        return {int(piece) for piece in pieces[1::2]} == set(range(len(roles)))

    def _pieces(self, roles: tuple[Role, ...], *, padded: bool = False) -> list[str]:
        """Render; even items are the template's words, odd ones the number of the message whose content goes there."""
        pad = " " if padded else ""
        messages: list[Mapping[str, str]] = [
            {"role": "tool" if role == "ipython" else role, "content": f"{pad}\ue000{index}\ue001{pad}"}
            for index, role in enumerate(roles)
        ]
        text = self._template.render(messages=messages, add_generation_prompt=True, **self._variables)
        return _PLACEHOLDER.split(text)


def chat_format(template: str | None, *, special: Mapping[str, int], bos: str, eos: str) -> ChatFormat:
    """Choose the format of a model.

    Args:
        template: the GGUF's own template, if it has one.
        special: the vocabulary's control strings.
        bos: text of the token that begins a prompt.
        eos: text of the token that ends one.

    Raises:
        ModelLoadError: the template is broken, or there is none and nothing in the vocabulary tells the format.
    """
    if all(mark in special for mark in _LLAMA3_MARKS) and (not template or _LLAMA3_MARKS[0] in template):
        return Llama31Format()
    if template:
        return TemplateFormat(template, bos=bos, eos=eos)
    if "<|im_start|>" in special and "<|im_end|>" in special:
        return TemplateFormat(_CHATML, bos=bos, eos=eos, name="ChatML")
    raise ModelLoadError(
        "the file has no chat template and its vocabulary is neither Llama 3's nor ChatML's: "
        "it is probably a base model; use an instruct or chat model"
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(layout: str) -> str:
    return datetime.now(UTC).astimezone().strftime(layout)
