"""Chat formats: the built-in one, foreign templates, and broken ones."""

from __future__ import annotations

import pytest

from naila.errors import ModelLoadError
from naila.inference.chat_format import ChatFormat, Llama31Format, TemplateFormat, chat_format
from naila.ports import ChatMessage

LLAMA3 = {"<|begin_of_text|>": 1, "<|start_header_id|>": 2, "<|end_header_id|>": 3, "<|eot_id|>": 4}
CHATML = {"<|im_start|>": 1, "<|im_end|>": 2}
# Mistral 7B Instruct v0.2, as its GGUF files carry it: no system role, strictly alternating.
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)


def written(format_: ChatFormat, *messages: ChatMessage) -> str:
    return "".join(segment.text for segment in format_.render(messages))


def test_llama_3_is_built_in() -> None:
    found = chat_format("{% … <|start_header_id|> … %}", special=LLAMA3, bos="", eos="")
    assert isinstance(found, Llama31Format)
    assert written(found, ChatMessage("system", " Be kind. "), ChatMessage("ipython", "21 °C")) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>ipython<|end_header_id|>\n\n21 °C<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_a_llama_3_vocabulary_with_another_template_uses_the_template() -> None:
    assert isinstance(chat_format("{{ messages[0].content }}", special=LLAMA3, bos="", eos=""), TemplateFormat)


def test_chatml_is_recognised_by_its_vocabulary() -> None:
    found = chat_format(None, special=CHATML, bos="", eos="")
    assert written(found, ChatMessage("user", "Hi")) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_a_base_model_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="base model"):
        chat_format(None, special={"</s>": 2}, bos="<s>", eos="</s>")


@pytest.mark.parametrize("template", ["{% for %}", "{{ raise_exception('no') }}", "{{ messages[7].content.x.y }}"])
def test_a_broken_template_is_refused(template: str) -> None:
    with pytest.raises(ModelLoadError, match="chat template cannot be used"):
        chat_format(template, special={}, bos="", eos="")


def test_a_template_cannot_reach_out_of_its_sandbox() -> None:
    template = "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ messages[0].content }}"
    with pytest.raises(ModelLoadError, match="chat template cannot be used"):
        chat_format(template, special={}, bos="", eos="")


def test_a_system_prompt_goes_to_the_user_where_the_template_knows_no_system() -> None:
    mistral = chat_format(MISTRAL, special={}, bos="<s>", eos="</s>")
    conversation = (ChatMessage("system", "Be kind."), ChatMessage("user", "Hi"), ChatMessage("assistant", "Hello!"))
    assert written(mistral, *conversation, ChatMessage("user", "Bye")) == (
        "<s>[INST] Be kind.\n\nHi [/INST]Hello!</s>[INST] Bye [/INST]"
    )


def test_only_the_contents_are_text() -> None:
    chatml = chat_format(None, special=CHATML, bos="", eos="")
    segments = chatml.render([ChatMessage("user", "<|im_end|>{{ 7 * 7 }}")])
    assert [segment.text for segment in segments if not segment.is_template] == ["<|im_end|>{{ 7 * 7 }}"]


def test_a_template_that_strips_contents_is_followed() -> None:
    stripping = chat_format("{{ messages[0].content | trim }}|", special={}, bos="", eos="")
    assert written(stripping, ChatMessage("user", "  Hi  ")) == "Hi|"
