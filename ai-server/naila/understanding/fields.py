"""Fields: how well the words of a question fit what a device measures, and its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from naila.config.lexicon import Lexicon
from naila.fleet import DeviceProfile, DeviceView
from naila.understanding.compiler import Compiler
from naila.understanding.quantities import PERCENT, Units

_PART, _SYNONYM, _ADJECTIVE, _DESCRIBED, _ONLY_DESCRIBED = 1.0, 0.8, 0.9, 0.4, 0.3
_LITERAL: Final = 0.05
_AIMS: Final = frozenset({"target", "setpoint", "goal"})


class Fields:
    """Finds the fields and parameters that words ask about.

    Args:
        lexicon: the language.
        compiler: knows the words of devices.
        units: units of measurement.
    """

    def __init__(self, lexicon: Lexicon, compiler: Compiler, units: Units) -> None:
        self._compiler = compiler
        self._units = units
        self._adjectives = lexicon.state.adjectives
        self._relative = lexicon.relative
        self._degrees = lexicon.state.degrees

    def asked(self, device: DeviceView, content: Sequence[tuple[str, str]]) -> list[tuple[str, float, str]]:
        """Return the fields and parameters that every word of a question fits, with how well."""
        profile = device.profile
        called = self._compiler.lemmas(profile.name)
        others = [pair for pair in content if pair[0] not in called]
        readings = (content, others) if others else (content,)  # the `fish food` of a fish feeder
        found = []
        for name, spec in profile.telemetry.items():
            score = max(self._fit(name, spec.description, said, spec.unit) for said in readings)
            if score:
                found.append((name, score, "field"))
        said = {lemma for lemma, _ in content}
        for name, parameter in profile.parameters.items():
            score = self._fit(name, parameter.description, content)
            is_aim = bool(_AIMS & set(name.casefold().split("_"))) and not _AIMS & said
            if score and not (is_aim and self._is_measured(profile, parameter.unit)):
                found.append((name, score, "parameter"))
        return found

    @staticmethod
    def _is_measured(profile: DeviceProfile, unit: str | None) -> bool:
        """Whether a device measures something of a unit: then it is that, and no aim, that is asked about."""
        return unit is not None and any(spec.unit == unit for spec in profile.telemetry.values())

    def _is_unit(self, word: str, unit: str | None) -> bool:
        """Whether a word is the unit of a field: the `watts` of a power."""
        named = self._units.named(word)
        return named not in {None, PERCENT} and named == self._units.declared(unit)

    def _fit(self, name: str, description: str, content: Sequence[tuple[str, str]], unit: str | None = None) -> float:
        parts = self._compiler.lemmas(name)
        related = {other for part in parts for other in self._compiler.related.to(part)}
        described = set(self._compiler.lemmas(description))
        total, hit = 0.0, set()
        for lemma, text in content:
            attribute = self._adjectives.get(text) or self._adjectives.get(lemma)
            compared = self._relative.get(text)
            attribute = attribute or (compared[0] if compared and text.endswith("er") else None)
            if lemma in parts or text in parts:
                total += _PART
                hit.add(lemma)
            elif attribute is not None and (attribute in parts):
                total += _ADJECTIVE + (_LITERAL if text in described else 0.0)
                hit.add(attribute)
            elif lemma in related or (attribute is not None and attribute in related):
                total += _SYNONYM
                hit.update(part for part in parts if {lemma, attribute} & self._compiler.related.to(part))
            elif self._is_unit(lemma, unit):
                total += _SYNONYM
                hit.add(lemma)
            elif {lemma, text, attribute, text.replace("any", "some")} & described:
                total += _DESCRIBED
                if attribute is not None:
                    hit.add(lemma)  # `how fast` of a field that tells how fast it turns
            elif text not in self._degrees:
                return 0.0
        if not hit:
            return _ONLY_DESCRIBED if len(content) > 1 and total >= _DESCRIBED * len(content) else 0.0
        return total / len(content) + len(hit & set(parts)) / len(parts)
