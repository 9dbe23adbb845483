"""Keeps a model loaded: tries again until it is there, and again when it fails."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from naila.errors import ModelCorruptError, ModelError, ModelTruncatedError, NotAGgufError
from naila.events import Alert, ComponentHealth
from naila.services.llm_service import LlmService

_log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 1.0
_FIRST_RETRY_S: Final = 2.0
_LAST_RETRY_S: Final = 60.0
_FAILURES: Final = 3
_WRONG_FILE: Final = (ModelCorruptError, ModelTruncatedError, NotAGgufError)


class ModelKeeper:
    """Loads the service's model and heals it, without a restart of the daemon.

    A failed load is tried again with growing pauses, and at once when the files on disk have changed. A file that was
    found wrong is not read again until it has changed: checking a large one takes its time.
    """

    def __init__(
        self,
        service: LlmService,
        *,
        files: Callable[[], object],
        alert: Callable[[Alert], None],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Make a keeper.

        Args:
            service: whose model it keeps.
            files: a value that changes when the model files on disk change.
            alert: told when the model is lost and when it is back.
            on_change: called whenever `health` changes.
        """
        self._service = service
        self._files = files
        self._alert = alert
        self._on_change = on_change
        self._error: ModelError | None = None
        self._loading: float | None = None

    @property
    def failed(self) -> bool:
        """Whether the last attempt to load failed."""
        return self._error is not None

    def progress(self, share: float) -> bool:
        """Take note of how much is loaded; for the service's `on_progress`."""
        self._loading = share
        return True

    def health(self) -> ComponentHealth:
        """Say how the model is."""
        if self._service.is_loaded:
            return ComponentHealth(status="ok", detail=self._service.model_name)
        if self._error is not None:
            return ComponentHealth(status="down", detail=f"{self._error} (trying again in the background)")
        return ComponentHealth(status="degraded", detail=f"loading, {round((self._loading or 0.0) * 100)}%")

    async def load(self) -> bool:
        """Try once; tell whether a model is there now."""
        was_lost = self._error is not None
        try:
            await self._service.load_model()
        except ModelError as exc:
            if str(exc) != str(self._error):
                _log.error("no language model: %s", exc)
                self._alert(Alert(code="model_failed", severity="critical", message=str(exc)))
            self._error = exc
        else:
            self._error = None
            if was_lost:
                _log.info("the language model is back: %s", self._service.model_name)
                self._alert(
                    Alert(code="model_recovered", severity="info", message=f"{self._service.model_name} is loaded")
                )
        self._on_change()
        return self._error is None

    async def run(self) -> None:
        """Watch over the model for ever."""
        while True:
            if self._service.is_loaded and self._service.failures < _FAILURES:
                await asyncio.sleep(_LOOK_EVERY_S)
                continue
            if self._service.is_loaded:
                _log.error("the model failed %d times in a row: loading it again", self._service.failures)
            await self._heal()

    async def _heal(self) -> None:
        pause = _FIRST_RETRY_S
        seen = self._files() if self._error is not None else None
        while True:
            # seen is None where nothing was tried yet: then try at once.
            if seen is not None:
                await self._pause(pause, seen)
                pause = min(pause * 2, _LAST_RETRY_S)
            seen = self._files()
            if await self.load():
                return

    async def _pause(self, pause: float, seen: object) -> None:
        """Wait for the pause to pass or the files to change, whichever a retry may hope for."""
        waited, limit = 0.0, pause * random.uniform(0.8, 1.2)  # noqa: S311
        while self._files() == seen and (isinstance(self._error, _WRONG_FILE) or waited < limit):
            await asyncio.sleep(_LOOK_EVERY_S)
            waited += _LOOK_EVERY_S
