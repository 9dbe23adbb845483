from __future__ import annotations

from pathlib import Path

import pytest

from naila.config.patterns import load_patterns
from naila.config.personas import choose_persona, load_personas
from naila.errors import ConfigurationError

CONFIG = Path(__file__).parents[2] / "config"
MINIMAL = "name: R\ndescription: d\nsystem_prompt: p\ndegraded: I am down.\ninterrupted: I broke.\n"


def persona_file(tmp_path: Path, content: str, name: str = "r.yaml") -> Path:
    (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path


def test_the_shipped_personas_are_valid() -> None:
    assert {"naila", "engineer", "storyteller"} <= load_personas(CONFIG / "personas").keys()


def test_naila_names_itself_in_its_system_prompt() -> None:
    naila = load_personas(CONFIG / "personas")["naila"]
    assert "NAILA" in naila.system_prompt


def test_every_shipped_persona_has_words_that_stop_a_robot() -> None:
    assert all("stop" in persona.stop_words["en"] for persona in load_personas(CONFIG / "personas").values())


def test_shipped_personas_speak_only_to_keys_that_exist() -> None:
    known = load_patterns(CONFIG / "patterns.yaml").replies.keys()
    for persona in load_personas(CONFIG / "personas").values():
        assert persona.replies.keys() <= known


def test_a_minimal_persona_is_enough(tmp_path: Path) -> None:
    persona = load_personas(persona_file(tmp_path, MINIMAL))["r"]
    assert (persona.id, persona.guidance, persona.examples) == ("r", {}, ())


def test_examples_are_read(tmp_path: Path) -> None:
    content = MINIMAL + "examples: [{user: Hi, answer: Hello.}]\n"
    assert load_personas(persona_file(tmp_path, content))["r"].examples[0].answer == "Hello."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (MINIMAL.replace("name: R\n", ""), "name: Field required"),
        (MINIMAL + "colour: red\n", "colour: Extra inputs"),
        (MINIMAL + "guidance: {greeting: 'two\n\n  lines'}\n", "guidance.greeting"),
        (MINIMAL + "replies: {greeting: ['Hi {nobody}']}\n", r"\{nobody\} is not known here"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_personas(persona_file(tmp_path, content))


def test_a_file_name_that_cannot_be_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="file name"):
        load_personas(persona_file(tmp_path, MINIMAL, "my robot.yaml"))


def test_a_folder_without_personas_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no persona"):
        load_personas(tmp_path)


def test_an_unknown_choice_names_what_there_is() -> None:
    with pytest.raises(ConfigurationError, match="PERSONA='nobody': not among engineer, naila, storyteller"):
        choose_persona(load_personas(CONFIG / "personas"), "nobody")
