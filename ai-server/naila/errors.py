"""Everything NAILA raises on purpose.

::

    NailaError
    ├── ConfigurationError          a setting or data file is wrong: the start stops (exit code 78)
    ├── ContractError               what a device sent was refused: becomes an `error` message
    ├── BrokerError                 the broker cannot be reached or refused us
    ├── StorageError                the database cannot be opened, read or written
    ├── ModelError                  no model can be served: the brain is degraded
    │   ├── ModelNotFoundError
    │   ├── NotAGgufError
    │   ├── ModelTruncatedError
    │   ├── ModelCorruptError       the file's SHA-256 is not the expected one
    │   ├── ModelTooLargeError      does not fit in memory
    │   ├── ModelLoadError          llama.cpp refused it
    │   ├── ModelNotLoadedError
    │   └── DownloadError
    └── GenerationError             one request failed, the model lives on
        ├── ContextOverflowError    the prompt cannot be made to fit
        ├── UnsupportedSchemaError  an answer cannot be held to this JSON Schema
        ├── EngineBusyError         too many requests wait for the model
        ├── EngineFailedError       llama.cpp reported a failure while decoding
        └── GenerationStoppedError  ended early; `partial` holds what was written
            ├── GenerationCancelledError
            └── DeadlineExceededError

Data travels as attributes, so that no caller parses a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from naila.ports import Generation

ErrorCode = Literal[
    "bad_topic",
    "bad_payload",
    "too_large",
    "busy",
    "expired",
    "unknown_action",
    "bad_arguments",
    "out_of_range",
    "rate_limited",
    "not_confirmed",
    "device_offline",
    "action_failed",
    "internal",
]


class NailaError(Exception):
    """Base of everything raised on purpose."""


class ConfigurationError(NailaError):
    """A setting or a data file is wrong; the message names it, its value and what is allowed."""


class ContractError(NailaError):
    """A message from a device was refused.

    Attributes:
        code: the contract's error code.
        device_id: the device as its topic names it, where the topic names one.
        request_id: the `id` of the refused message, where one could be read.
    """

    def __init__(
        self, code: ErrorCode, message: str, *, device_id: str | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.device_id = device_id
        self.request_id = request_id


class BrokerError(NailaError):
    """The broker cannot be reached, or refused the connection."""


class StorageError(NailaError):
    """The database cannot be opened, read or written."""


class ModelError(NailaError):
    """No model can be served.

    Attributes:
        path: the file concerned, if one was chosen.
    """

    def __init__(self, message: str, *, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class ModelNotFoundError(ModelError):
    """There is no model file where one was expected."""


class NotAGgufError(ModelError):
    """The file is not a GGUF file, or its header makes no sense."""


class ModelTruncatedError(ModelError):
    """The file ends before the tensors that its header announces.

    Attributes:
        size: bytes in the file.
        expected: bytes that the header announces.
    """

    def __init__(self, message: str, *, path: Path, size: int, expected: int) -> None:
        super().__init__(message, path=path)
        self.size = size
        self.expected = expected


class ModelCorruptError(ModelError):
    """The file's SHA-256 is not the one that its catalogue entry or sidecar file states."""


class ModelTooLargeError(ModelError):
    """The model does not fit in the memory that is there.

    Attributes:
        needed: bytes needed.
        available: bytes available.
    """

    def __init__(self, message: str, *, needed: int, available: int, path: Path | None = None) -> None:
        super().__init__(message, path=path)
        self.needed = needed
        self.available = available


class ModelLoadError(ModelError):
    """llama.cpp refused to load the file or to make a context for it."""


class ModelNotLoadedError(ModelError):
    """Generation was asked for while no model is loaded."""


class DownloadError(ModelError):
    """A model could not be fetched.

    Attributes:
        needed: bytes of disk needed, where the disk was the reason.
        free: bytes of disk free, where the disk was the reason.
    """

    def __init__(
        self, message: str, *, path: Path | None = None, needed: int | None = None, free: int | None = None
    ) -> None:
        super().__init__(message, path=path)
        self.needed = needed
        self.free = free


class GenerationError(NailaError):
    """One request to the model failed; the model itself lives on."""


class ContextOverflowError(GenerationError):
    """The prompt does not fit the context even without any history.

    Attributes:
        tokens: tokens that the smallest possible prompt has.
        limit: tokens that a prompt may have.
    """

    def __init__(self, message: str, *, tokens: int, limit: int) -> None:
        super().__init__(message)
        self.tokens = tokens
        self.limit = limit


class UnsupportedSchemaError(GenerationError):
    """An answer cannot be held to this JSON Schema.

    Attributes:
        keyword: which of its keywords is the reason, if one is.
        path: where, as `#/properties/name`.
    """

    def __init__(self, message: str, *, keyword: str | None = None, path: str = "#") -> None:
        super().__init__(message)
        self.keyword = keyword
        self.path = path


class EngineBusyError(GenerationError):
    """Too many requests wait for the model; come back later."""


class EngineFailedError(GenerationError):
    """llama.cpp reported a failure while decoding.

    Attributes:
        code: what `llama_decode` returned, if it was that.
    """

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class GenerationStoppedError(GenerationError):
    """A request ended before the model was done.

    Attributes:
        partial: what was written until then, with exact usage.
    """

    def __init__(self, message: str, *, partial: Generation) -> None:
        super().__init__(message)
        self.partial = partial


class GenerationCancelledError(GenerationStoppedError):
    """Somebody cancelled the request."""


class DeadlineExceededError(GenerationStoppedError):
    """The request's time was up."""
