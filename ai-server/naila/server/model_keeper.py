"""Keeps a model loaded: tries again until it is there, and again when it fails."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from naila.errors import ModelCorruptError, ModelError, ModelTruncatedError, NotAGgufError
from naila.events import Alert, ComponentHealth

_log = logging.getLogger(__name__)

_WATCH_EVERY_S: Final = 0.2
_LOOK_EVERY_S: Final = 0.5
_FIRST_RETRY_S: Final = 1.0
_LAST_RETRY_S: Final = 60.0
_GROWTH: Final = 1.5  # after half a minute of trying, what is mended is still seen within ten seconds
_FAILURES: Final = 3
_STABLE_S: Final = 10.0
_STEPS: Final = 10
_TELL_EVERY_S: Final = 1.0
_WRONG_FILE: Final = (ModelCorruptError, ModelTruncatedError, NotAGgufError)


class LoadsModel(Protocol):
    """What a keeper keeps: the model's service."""

    @property
    def is_loaded(self) -> bool:
        """Whether a model can be asked now."""
        ...

    @property
    def model_name(self) -> str | None:
        """Its name."""
        ...

    @property
    def failures(self) -> int:
        """How many requests in a row it failed on."""
        ...

    @property
    def has_answered(self) -> bool:
        """Whether it has finished an answer since it was loaded."""
        ...

    @property
    def failure(self) -> str | None:
        """Why the engine that was there is lost, if it is."""
        ...

    async def load_model(self) -> object:
        """Load the model, in place of the one that may be there.

        Raises:
            ModelError: it cannot be served.
        """
        ...


class ModelKeeper:
    """Loads the service's model and heals it, without a restart of the daemon.

    A failed load is tried again with growing pauses, and at once when the files on disk have changed. A file that was
    found wrong is not read again until it has changed: checking a large one takes its time.
    """

    def __init__(
        self,
        service: LoadsModel,
        *,
        files: Callable[[], object],
        alert: Callable[[Alert], None],
        on_change: Callable[[], None] = lambda: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        """Make a keeper.

        Args:
            service: whose model it keeps.
            files: a value that changes when the model files on disk change.
            alert: told when the model is lost and when it is back.
            on_change: called whenever `health` changes.
            sleep: lets time pass.
            rng: source of the jitter between attempts.
        """
        self._service = service
        self._files = files
        self._alert = alert
        self._on_change = on_change
        self._sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not cryptography
        self.restarts = 0
        self._error: ModelError | None = None
        self._tried: object = None  # the files at the last attempt
        self._step = 0
        self._shown = 0
        self._told_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def failed(self) -> bool:
        """Whether the last attempt to load failed."""
        return self._error is not None

    def progress(self, share: float) -> bool:
        """Take note of how much is loaded, in any thread; for the service's `on_progress`."""
        step = int(share * _STEPS)
        if step != self._step and self._loop is not None:
            self._step = step
            self._loop.call_soon_threadsafe(self._progressed, step)
        return True

    def _progressed(self, step: int) -> None:
        self._shown = step
        now = time.monotonic()
        if now - self._told_at >= _TELL_EVERY_S:
            self._told_at = now
            _log.info("loading the model: %d%%", step * 100 // _STEPS)
        self._on_change()

    def health(self) -> ComponentHealth:
        """Say how the model is."""
        if self._service.is_loaded:
            return ComponentHealth(status="ok", detail=self._service.model_name)
        if self._error is not None:
            return ComponentHealth(status="down", detail=f"{self._error} (trying again in the background)")
        if self._service.failure is not None:
            return ComponentHealth(status="down", detail=f"{self._service.failure} (loading the model again)")
        return ComponentHealth(status="degraded", detail=f"loading, {self._shown * 100 // _STEPS}%")

    async def load(self) -> bool:
        """Try once; tell whether a model is there now."""
        was_lost = self._error is not None
        # Before the attempt: what changes while a file is read is a reason to read it again.
        self._tried = self._files()
        self._step = self._shown = 0
        self._told_at = time.monotonic()
        self._loop = asyncio.get_running_loop()
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
        losses, held = 0, 0.0
        while True:
            if self._service.is_loaded and self._service.failures < _FAILURES:
                await self._sleep(_WATCH_EVERY_S)
                held += _WATCH_EVERY_S
                continue
            if self._service.is_loaded:
                _log.error("the model failed %d times in a row: loading it again", self._service.failures)
            # An engine that dies as soon as it is there would keep the machine busy with loading.
            is_well = held >= _STABLE_S or self._service.has_answered
            losses = 0 if is_well else losses + 1
            if losses > 1:
                await self._sleep(min(_FIRST_RETRY_S * _GROWTH ** (losses - 2), _LAST_RETRY_S))
            held = 0.0
            self.restarts += 1
            await self._heal()

    async def _heal(self) -> None:
        pause = _FIRST_RETRY_S
        while True:
            if self._error is not None:
                await self._pause(pause)
                pause = min(pause * _GROWTH, _LAST_RETRY_S)
            if await self.load():
                return

    async def _pause(self, pause: float) -> None:
        """Wait for the pause to pass or the files to change, whichever a retry may hope for."""
        waited, limit = 0.0, pause * self._rng.uniform(0.8, 1.2)
        while self._files() == self._tried and (isinstance(self._error, _WRONG_FILE) or waited < limit):
            await self._sleep(_LOOK_EVERY_S)
            waited += _LOOK_EVERY_S
