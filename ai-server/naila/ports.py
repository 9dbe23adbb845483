"""What the core asks of the world: Protocols, each with a real and a fake implementation.

The core (`agents`, `orchestration`) knows these and nothing behind them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from naila.events import Action, FinishReason, Intent, JsonValue, Outbound, Reply, Usage
from naila.fleet import FleetView, Outcome, Pending, Proposal, Sighting
from naila.kept import KeptRequest

Role = Literal["system", "user", "assistant", "ipython"]
StopCause = Literal["cancelled", "deadline"]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a prompt, OpenAI style.

    Attributes:
        role: `ipython` is Llama 3's name for the result of a tool.
        content: text; never read as control tokens, whatever it contains.
    """

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """How one answer is drawn. None means the service's default.

    Attributes:
        max_tokens: bound on the answer, in tokens.
        temperature: 0 is greedy.
        top_p: nucleus, applied after top_k.
        top_k: candidates kept before anything else.
        seed: makes the draw repeatable.
        stop: the answer ends before any of these strings.
        json_schema: the answer is JSON and valid against it, where it ends by itself (`finish_reason` is `stop`); one
            that was cut (`length`) may be half of it. Schemas that cannot be held to are refused. Not with `stop`.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: Mapping[str, JsonValue] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A finished answer of the model.

    Attributes:
        text: without special tokens or stop strings.
        finish_reason: `length` when max_tokens or the context ended it.
        usage: exact token counts.
        ttft_ms: from the request to the first token.
        total_ms: from the request to the end.
        tokens_per_second: decode speed, the first token excluded.
        model: the model's name.
        dropped_messages: history messages left out because the context was full.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage = field(default_factory=Usage)
    ttft_ms: float = 0.0
    total_ms: float = 0.0
    tokens_per_second: float = 0.0
    model: str | None = None
    dropped_messages: int = 0


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Text since the last piece, whole characters only."""

    text: str


class Cancellation:
    """A one-shot signal that a turn should end, with its cause.

    Cancel, deadline and shutdown all go through it. Belongs to the event loop's thread.
    """

    __slots__ = ("_callbacks", "_cause")

    def __init__(self) -> None:
        self._cause: StopCause | None = None
        self._callbacks: list[Callable[[StopCause], None]] = []

    @property
    def cause(self) -> StopCause | None:
        """Why the turn should end, or None while it should not."""
        return self._cause

    def cancel(self, cause: StopCause = "cancelled") -> None:
        """Signal the end; the first cause stands."""
        if self._cause is not None:
            return
        self._cause = cause
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(cause)

    def subscribe(self, callback: Callable[[StopCause], None]) -> None:
        """Call `callback` once when cancelled, at once if that has happened."""
        if self._cause is not None:
            callback(self._cause)
        else:
            self._callbacks.append(callback)


class LanguageModel(Protocol):
    """A chat model, wherever it runs."""

    @property
    def is_loaded(self) -> bool:
        """Whether it can be asked now."""
        ...

    @property
    def model_name(self) -> str | None:
        """Name of the loaded model."""
        ...

    @property
    def may_act(self) -> bool:
        """Whether the loaded model may choose among declared actions, or only talk."""
        ...

    def generate_streaming(
        self,
        messages: Sequence[ChatMessage],
        options: SamplingOptions | None = None,
        *,
        session: str | None = None,
        cancellation: Cancellation | None = None,
    ) -> AsyncIterator[TextPiece | Generation]:
        """Yield text pieces, then the one `Generation`, whose text is the pieces together.

        Args:
            messages: the conversation, the new words last.
            options: how the answer is drawn.
            session: names the conversation, `device/conversation`: what was read of it before need not be read again.
            cancellation: ends the answer early.

        Raises:
            ModelNotLoadedError: there is no model to ask.
            GenerationError: the request failed or was stopped, see `naila.errors`.
        """
        ...

    async def read_in(self, messages: Sequence[ChatMessage], *, session: str | None = None) -> None:
        """Read a prompt into the KV cache and answer nothing; the next request that begins like it is warm.

        Raises as `generate_streaming` does. Where its task is cancelled, the reading ends; what was read may stay. A
        model without such a cache does nothing.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One exchange, as remembered.

    Attributes:
        device_id: whose.
        conversation_id: which conversation.
        request_id: the request's id.
        user_id: which person spoke, if known.
        user_text: what was said.
        note: what the prompt told the model beside the words, kept so that the prompt's prefix stays the same.
        reply_text: what was answered.
        intent: what it was understood as.
        source: who wrote the answer.
        said_at: when, UTC.
    """

    device_id: str
    conversation_id: str
    request_id: str
    user_id: str | None
    user_text: str
    note: str
    reply_text: str
    intent: str
    source: str
    said_at: datetime


@dataclass(frozen=True, slots=True)
class Fact:
    """Something to keep about a person, by key: `name`, `likes`, ….

    Attributes:
        key: what kind; a new value replaces the old one.
        value: the value.
    """

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Recollection:
    """What memory holds for a turn, oldest first."""

    turns: tuple[Turn, ...] = ()
    facts: tuple[Fact, ...] = ()


class ConversationMemory(Protocol):
    """Conversations and facts, by device."""

    async def recall(self, device_id: str, conversation_id: str, user_id: str | None) -> Recollection:
        """Return the conversation's last turns and what is known of the person; never another device's."""
        ...

    async def remember(self, turn: Turn, facts: Sequence[Fact], reply: Reply) -> None:
        """Keep a turn, its facts and its reply, all or nothing."""
        ...

    async def answered(self, device_id: str, request_id: str) -> Reply | None:
        """Return the reply that this request was given before, if it was."""
        ...


class Inbox(Protocol):
    """Requests from their receipt until the broker has their answer, on disk: nothing that was accepted is lost."""

    async def keep(self, request: Intent, *, is_old: bool = False) -> KeptRequest:
        """Keep a request, and return what is known of its id; one that was answered is not kept. Durable on return.

        Args:
            request: as it came.
            is_old: nobody knows for how long it waited elsewhere.

        Raises:
            StorageError: nothing can be written.
        """
        ...

    async def undone(self) -> Sequence[KeptRequest]:
        """Return what was kept and is not done, in the order of its coming.

        Raises:
            StorageError: nothing can be read.
        """
        ...

    async def answer(self, reply: Reply) -> None:
        """Keep the answer to a request; one that was kept before stays.

        Raises:
            StorageError: nothing can be written.
        """
        ...

    async def done(self, requests: Sequence[tuple[str, str]]) -> None:
        """Forget requests, by device and id: the broker has their answers.

        Raises:
            StorageError: nothing can be written.
        """
        ...

    def outdate(self) -> None:
        """Take every request that is kept now for old: an emergency stop came after it. Never waits, nor raises."""
        ...

    async def orders(self) -> Sequence[tuple[int, str, str, str]]:
        """Return what an operator wants done: number, device, id, and `drop` or `retry`.

        Raises:
            StorageError: nothing can be read.
        """
        ...

    async def carried_out(self, number: int) -> None:
        """Forget the orders up to this number.

        Raises:
            StorageError: nothing can be written.
        """
        ...


class Journal(Protocol):
    """Actions of requests that are not answered, on disk: none is ever sent twice."""

    async def begin(self, action: Action, proposal: Proposal) -> None:
        """Note that an action is about to be sent. Durable on return.

        Raises:
            StorageError: nothing can be written: it must not be sent.
        """
        ...

    def end(self, outcome: Outcome) -> None:
        """Note what became of an action, soon. Never waits, nor raises."""
        ...


class Fleet(Protocol):
    """The devices, and the only way to move them."""

    def view(self, speaker: str) -> FleetView:
        """Return the devices that can be spoken of through a device, as they are now."""
        ...

    async def perform(self, proposal: Proposal, *, cancellation: Cancellation | None = None) -> Outcome:
        """Put a proposal through the envelope, send it, and wait for what became of it. Does not raise.

        Where a person must approve, the outcome is `pending`, and its question was published; propose it again with
        `confirmation` set once that person did.
        """
        ...

    def pending(self, speaker: str) -> tuple[Pending, ...]:
        """Return what waits for a person at this device, oldest first."""
        ...

    async def settle(self, speaker: str, pending_id: str, *, approve: bool) -> Pending:
        """Take a person's answer to a pending action. An approval is good for one `perform`, until it expires.

        Raises:
            ContractError: `not_confirmed`: nothing of that id waits for this device, or it has expired or was settled.
        """
        ...

    def stop(self, device_id: str | None, *, request_id: str, speaker: str) -> tuple[str, ...]:
        """Send the emergency stop to one device, or to all; never waits. Return whom it was sent to."""
        ...


class DeviceStore(Protocol):
    """What is known of devices and pending actions, on disk."""

    async def load_devices(self) -> Mapping[str, Mapping[str, JsonValue]]:
        """Return the capabilities documents as they were kept, by device id."""
        ...

    async def keep_device(self, device_id: str, document: Mapping[str, JsonValue] | None) -> None:
        """Keep a device's capabilities document; None forgets it."""
        ...

    async def load_pending(self) -> Sequence[Pending]:
        """Return the actions that wait for a person, oldest first."""
        ...

    async def keep_pending(self, pending: Pending) -> None:
        """Keep an action that waits for a person; durable on return."""
        ...

    async def settle_pending(self, pending_id: str) -> bool:
        """Use a pending action up, once and for ever; false where it was used up before. Durable on return."""
        ...


class SightingStore(Protocol):
    """When devices were last heard, on disk: for those who look while the daemon does not run."""

    async def keep_sightings(self, sightings: Sequence[Sighting]) -> None:
        """Keep when some devices were last heard; the others' stay as they are."""
        ...


class Publisher(Protocol):
    """The way out."""

    def publish(self, event: Outbound, *, to: Intent | None = None) -> None:
        """Send an event; never blocks.

        Args:
            event: what to send.
            to: the request that it answers, whose MQTT 5 response topic gets a copy.
        """
        ...


class Clock(Protocol):
    """Time, injected where behaviour depends on it."""

    def now(self) -> datetime:
        """Return the local time, aware of its zone."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelHeader:
    """What a GGUF file says about itself, as far as planning needs it.

    Attributes:
        path: the file.
        name: `general.name`, else the file's stem.
        architecture: `general.architecture`, for example `llama`.
        file_bytes: size on disk.
        n_layers: transformer blocks.
        n_ctx_train: context that it was trained with, in tokens.
        n_embd: width.
        n_heads: attention heads.
        n_kv_heads: key/value heads (fewer than heads under grouped-query attention).
        head_dim_k: width of one key head.
        head_dim_v: width of one value head.
        n_vocab: vocabulary size.
        n_parameters: weights in all tensors together; 0 where that is not known.
        weight_type: ggml's name of the type that most of its bytes are of, such as `Q4_K`; empty where not known.
    """

    path: Path
    name: str
    architecture: str
    file_bytes: int
    n_layers: int
    n_ctx_train: int
    n_embd: int
    n_heads: int
    n_kv_heads: int
    head_dim_k: int
    head_dim_v: int
    n_vocab: int
    n_parameters: int = 0
    weight_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuDevice:
    """A GPU that llama.cpp can use.

    Attributes:
        name: for example `CUDA0`.
        description: the product's name.
        backend: what drives it.
        free_bytes: memory free now.
        total_bytes: memory in all.
        shares_main_memory: an integrated GPU, whose memory is the machine's own (Jetson, Apple, most laptops).
    """

    name: str
    description: str
    backend: Literal["cuda", "metal", "vulkan"]
    free_bytes: int
    total_bytes: int
    shares_main_memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildInfo:
    """What the llama.cpp at hand was built for.

    Attributes:
        version: of llama-cpp-python.
        cpu_features: such as `AVX2`, `NEON`.
        gpus: devices that it can use now; empty on a CPU build.
        supports_mmap: whether model files can be mapped.
    """

    version: str
    cpu_features: tuple[str, ...] = ()
    gpus: tuple[GpuDevice, ...] = ()
    supports_mmap: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """How a model is to be run on this machine.

    Attributes:
        n_threads: threads that decode.
        n_threads_batch: threads that read prompts in.
        n_gpu_layers: layers on the GPU, 0 for none.
        n_ctx: tokens of context that one conversation may have.
        n_cells: tokens that the KV cache holds, for all conversations together.
        n_sequences: conversations that the KV cache can tell apart.
        n_batch: most tokens in one decode call.
        kv_type: how the KV cache is stored.
        flash_attention: whether attention is computed in tiles; `auto` leaves it to llama.cpp.
        use_mmap: map the file instead of reading it.
        repack: let llama.cpp rearrange weights for the processor while it loads them.
        acceleration: where it will run.
        needed_bytes: main memory that it will take.
        available_bytes: main memory that was there.
        reasons: for each decision by name, why.
    """

    n_threads: int
    n_threads_batch: int
    n_gpu_layers: int
    n_ctx: int
    n_cells: int
    n_sequences: int
    n_batch: int
    kv_type: Literal["f16", "q8_0"] = "f16"
    flash_attention: Literal["auto", "on", "off"] = "auto"
    use_mmap: bool
    repack: bool = True
    acceleration: Literal["cpu", "cuda", "metal", "vulkan"]
    needed_bytes: int
    available_bytes: int
    reasons: dict[str, str]
