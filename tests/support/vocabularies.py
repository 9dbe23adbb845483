"""The vocabulary of a model file, without its weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import llama_cpp

from naila.inference import backend
from naila.inference.tokens import Vocabulary


@cache
def vocabulary_of(path: Path) -> Vocabulary:
    """Load a vocabulary; it stays until the tests end."""
    assert backend.build_info().version
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
    assert model
    return Vocabulary(model)
