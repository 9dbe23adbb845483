"""Which model file to serve on this machine, checked, and how to run it: from settings, catalogue and hardware."""

from __future__ import annotations

import glob
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from naila.config.catalogue import Catalogue, CatalogueEntry, load_catalogue
from naila.config.settings import Settings
from naila.inference.backend import build_info
from naila.inference.gguf import read_header
from naila.ports import EnginePlan, ModelHeader
from naila.server.engine_plan import EngineOverrides, plan_engine
from naila.services.model_files import PART, find_model, verify
from naila.services.verified import VerifiedFiles
from naila.utils.hardware_detection import Hardware, detect_hardware

_log = logging.getLogger(__name__)

# Of what Qwen2.5-Coder-0.5B (630 million parameters) chose for 32 doubtful sentences, every second choice was wrong.
LEAST_ACTING_PARAMETERS: Final = 1_400_000_000


@dataclass(frozen=True, slots=True)
class Chosen:
    """The model to serve.

    Attributes:
        header: what its file says about itself.
        reason: why this one.
    """

    header: ModelHeader
    reason: str


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Answers the service's two questions, what to load and how, anew each time it asks.

    Attributes:
        settings: what a person set.
        catalogue: what is known of model files.
    """

    settings: Settings
    catalogue: Catalogue

    @classmethod
    def of(cls, settings: Settings) -> ModelSource:
        """Read the catalogue.

        Raises:
            ConfigurationError: it is wrong.
        """
        return cls(settings, load_catalogue(settings.config_dir))

    def hardware(self) -> Hardware:
        """Return what the machine has now."""
        return detect_hardware(build_info())

    def plan(self, header: ModelHeader) -> EnginePlan:
        """Decide how to run a model here.

        Raises:
            ModelTooLargeError: it does not fit.
        """
        return plan_engine(header, self.hardware(), self.overrides)

    def may_act(self, header: ModelHeader) -> bool:
        """Tell whether a model may choose among declared actions: as set, as its catalogue entry says, by its size."""
        if self.settings.llm_may_act != "auto":
            return self.settings.llm_may_act == "yes"
        known = [entry for entry in self.catalogue.entries if _is_file_of(entry, header)]
        if known:
            return all(entry.may_act for entry in known)
        return header.n_parameters >= LEAST_ACTING_PARAMETERS

    @property
    def overrides(self) -> EngineOverrides:
        """What a person set of the plan."""
        settings = self.settings
        return EngineOverrides(
            n_threads=settings.llm_threads,
            n_gpu_layers=settings.llm_gpu_layers,
            n_ctx=settings.llm_context_size,
            n_cells=settings.llm_kv_cells,
            n_batch=settings.llm_batch_size,
            max_tokens=settings.llm_max_tokens,
            gpu_memory_share=settings.llm_gpu_memory_share,
            kv_type=settings.llm_kv_type,
            flash_attention=settings.llm_flash_attention,
            repack=settings.llm_repack,
        )

    def choose(self) -> Chosen:
        """Find the file to serve and check that it is whole. Blocks: run it in a thread.

        Raises:
            ModelError: there is none that can be served, or it is damaged.
        """
        headers: dict[Path, ModelHeader] = {}

        def fits(path: Path) -> str:
            headers[path] = read_header(path)
            return self.plan(headers[path]).reasons["memory"]

        choice = find_model(self.settings.llm_model_path, self.settings.models_dir, fits)
        path = choice.path
        stamps = VerifiedFiles(self.settings.memory_path.parent)
        found = verify(path, self.catalogue.by_file(path.name), stamps=stamps)
        if found.outcome == "unknown":
            _log.info("%s: nothing says what its SHA-256 should be; `naila models verify` explains", path.name)
        return Chosen(headers.get(path) or read_header(path), choice.reason)

    def files(self) -> object:
        """Return a value that changes when the files that `choose` looks at change."""
        explicit = self.settings.llm_model_path
        folder = self.settings.models_dir if explicit is None else explicit.parent
        # A model may have several parts, and a checksum beside it.
        beside = "*" if explicit is None else f"{glob.escape(PART.sub('', explicit.stem))}*"
        paths = {path for ending in (".gguf", ".gguf.sha256") for path in folder.glob(beside + ending)}
        return tuple(_signature(path) for path in sorted(paths | ({explicit} if explicit else set())))


def _is_file_of(entry: CatalogueEntry, header: ModelHeader) -> bool:
    """Tell whether a file is a catalogue entry's, by name or, where it was renamed, by its exact size."""
    return entry.file == header.path.name or entry.size_bytes == header.file_bytes


def _signature(path: Path) -> tuple[str, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return str(path), found.st_size, found.st_mtime_ns, found.st_ino
