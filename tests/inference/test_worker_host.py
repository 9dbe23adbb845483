"""The parent's side of an engine process, with processes that say what no engine should."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from naila.errors import EngineBusyError, EngineFailedError, GenerationError, ModelLoadError
from naila.events import Usage
from naila.inference import wire, worker_host
from naila.inference.chat_format import TemplateFormat
from naila.inference.host import Ask
from naila.inference.job import EngineLimits
from naila.inference.request import Completion
from naila.inference.sampling import Sampling
from naila.inference.worker import _Worker
from naila.inference.worker_host import WorkerHost
from naila.ports import ChatMessage, EnginePlan

PLAN = EnginePlan(
    n_threads=1,
    n_threads_batch=1,
    n_gpu_layers=0,
    n_ctx=64,
    n_cells=64,
    n_sequences=1,
    n_batch=8,
    use_mmap=True,
    acceleration="cpu",
    needed_bytes=0,
    available_bytes=0,
    reasons={},
)
ASK = Ask(messages="x", max_tokens=4, sampling=Sampling())
DONE = Completion(
    finish_reason="stop", usage=Usage(), dropped_messages=0, queue_ms=0, ttft_ms=0, total_ms=0, decode_s=0
)
END = json.loads(wire.dump(wire.end_message(0, DONE)))
ALIVE = '{"figures":{},"stalled_for":0}'

_FAKE = """
import os, sys, time
def out(line): os.write(1, line.encode() + b"\\n")
def live(seconds):
    for _ in range(int(seconds / 0.1)): time.sleep(0.1); out('{"figures":{},"stalled_for":0}')
next(sys.stdin)
"""

Boot = Callable[[str], None]


@pytest.fixture
def boot(monkeypatch: pytest.MonkeyPatch) -> Boot:
    """What the process does once it has been told what to load."""
    return lambda script: monkeypatch.setattr(worker_host, "_BOOT", _FAKE + script)


def loaded(script: str) -> str:
    return f"out('{{\"loaded\":true}}')\n{script}"


def says(line: str) -> str:
    """Load, wait for a request, say something, and live on."""
    return loaded(f"next(sys.stdin); out({line!r}); live(30)")


@contextlib.asynccontextmanager
async def started(**told: Any) -> AsyncIterator[WorkerHost]:
    host = await WorkerHost.start(Path("m.gguf"), PLAN, limits=EngineLimits(), keep=None, **told)
    try:
        yield host
    finally:
        await host.close()
        assert host._process.returncode is not None


async def end_of(host: WorkerHost) -> Completion | GenerationError:
    ends: asyncio.Queue[Completion | GenerationError] = asyncio.Queue()
    await host.ask(ASK, lambda _: None, ends.put_nowait)
    async with asyncio.timeout(8):
        end = await ends.get()
    await asyncio.sleep(0.05)
    assert ends.empty()
    return end


MALFORMED = [
    '{"of":0}',
    '{"of":0,"end":{}}',
    '{"of":0,"end":5}',
    json.dumps({**END, "end": {**END["end"], "finish_reason": "because"}}),
    json.dumps({**END, "end": {**END["end"], "total_ms": "long"}}),
    json.dumps({**END, "end": {**END["end"], "decode_s": float("nan")}}),
    json.dumps({**END, "end": {**END["end"], "usage": {"prompt_tokens": "many"}}}),
    '{"of":0,"error":{}}',
    '{"of":0,"error":{"kind":"EngineFailedError","message":"x"}}',
    '{"of":0,"error":{"kind":"ContextOverflowError","message":"x"}}',
    '{"of":0,"error":{"kind":"X","message":5}}',
    '{"log":"x"}',
    '{"log":"x","level":"loud","logger":"naila.x"}',
    "garbage",
    "[]",
    "\udcff",
]


@pytest.mark.parametrize("line", MALFORMED)
def test_what_is_malformed_is_one_kind_of_error(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        wire.read_end(wire.parse(line.encode(errors="surrogateescape")))


@pytest.mark.parametrize(
    "end", [DONE, EngineBusyError("full"), EngineFailedError("f", code=-3), EngineFailedError("f"), GenerationError("")]
)
def test_an_end_arrives_as_it_was_sent(end: Completion | GenerationError) -> None:
    read = wire.read_end(wire.parse(wire.dump(wire.end_message(0, end))))
    assert type(read) is type(end)
    assert read == end or (str(read), vars(read)) == (str(end), vars(end))


@pytest.mark.parametrize(
    "line",
    [
        '{"of":0}',
        '{"of":0,"end":{}}',
        '{"of":0,"error":{"kind":"EngineFailedError","message":"x"}}',
        "[" * 100_000,
        "garbage",
        '{"figures":{"steps":"many"},"stalled_for":0}',
        '{"figures":{"steps":NaN},"stalled_for":0}',
        '{"figures":5,"stalled_for":0}',
        '{"figures":{},"stalled_for":Infinity}',
        f'{{"figures":{{}},"stalled_for":1{"0" * 400}}}',
    ],
)
async def test_an_engine_that_talks_nonsense_is_killed_and_what_was_asked_ends(boot: Boot, line: str) -> None:
    boot(says(line))
    lost: list[None] = []
    async with started(on_failure=lambda: lost.append(None)) as host:
        assert isinstance(await end_of(host), EngineFailedError)
        assert "out of order" in str(host.failure)
        assert lost == [None]
        with pytest.raises(EngineFailedError, match="out of order"):
            await host.ask(ASK, lambda _: None, lambda _: None)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("os.kill(os.getpid(), 40)", "died of signal 40"),
        ("os.kill(os.getpid(), 9)", "died of SIGKILL"),
        ("sys.exit(3)", "exit code 3"),
        ("os.close(1); time.sleep(30)", "closed its output and was killed"),
    ],
)
async def test_however_an_engine_goes_what_was_asked_ends(boot: Boot, script: str, why: str) -> None:
    boot(loaded(f"next(sys.stdin); {script}"))
    async with started() as host:
        assert why in str(await end_of(host))


async def test_a_callback_that_fails_harms_nobody_else(boot: Boot) -> None:
    boot(
        loaded(
            """
next(sys.stdin), next(sys.stdin)
out('{"text":"a","of":0}')
out('{"of":0,"error":{"kind":"EngineBusyError","message":"full"}}')
out('{"of":1,"error":{"kind":"EngineBusyError","message":"full"}}')
live(30)
"""
        )
    )

    def fail(_: object) -> None:
        raise asyncio.InvalidStateError

    async with started(on_failure=lambda: fail(None)) as host:
        await host.ask(ASK, fail, fail)
        assert isinstance(await end_of(host), EngineBusyError)
        assert host.failure is None
        await host.ask(ASK, fail, fail)
        os.kill(host.pid, signal.SIGKILL)
        assert isinstance(await end_of(host), EngineFailedError)


@pytest.mark.parametrize(
    "line", ["garbage", "[" * 100_000, *(f'{{"progress":{share}}}' for share in ("NaN", "Infinity", "-1", "2", '"x"'))]
)
async def test_nonsense_while_loading_is_a_model_that_cannot_be_loaded(boot: Boot, line: str) -> None:
    boot(f"out({line!r}); time.sleep(30)")
    with pytest.raises(ModelLoadError, match="out of order"):
        async with asyncio.timeout(8), started(on_progress=lambda share: int(share * 10) >= 0):
            pass


async def test_a_daemon_that_stood_still_does_not_take_its_engine_for_silent(
    boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_host, "_SILENCE_S", 0.5)
    boot(loaded("live(30)"))
    async with started() as host:
        await asyncio.sleep(0.3)
        time.sleep(1)  # noqa: ASYNC251 - the loop is to stand still
        await asyncio.sleep(0.3)
        assert host.failure is None
        os.kill(host.pid, signal.SIGSTOP)
        assert "was silent" in str(await end_of(host))


async def test_an_engine_that_puts_much_on_disk_is_left_the_time(
    boot: Boot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(worker_host, "_CLOSE_SILENCE_S", 0.6)
    boot(loaded(f"for _ in sys.stdin: pass\nlive(2); open({str(tmp_path / 'kept')!r}, 'w')"))
    async with started():
        pass
    assert (tmp_path / "kept").exists()


@pytest.mark.parametrize("script", ["time.sleep(30)", "live(30)"])
async def test_an_engine_that_does_not_close_is_killed(
    boot: Boot, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(worker_host, "_CLOSE_SILENCE_S", 0.6)
    monkeypatch.setattr(worker_host, "_CLOSE_S", 1.5)
    boot(loaded(script))
    before = time.monotonic()
    async with started():
        pass
    assert 0.5 < time.monotonic() - before < 5


async def test_a_real_engine_beats_until_its_conversations_are_on_disk(
    monkeypatch: pytest.MonkeyPatch, model_path: Path
) -> None:
    slow = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from naila.inference.engine import Engine\n"
        "close = Engine.close\n"
        "Engine.close = lambda self: (time.sleep(2.5), close(self), sys.stderr.write('closed'))[0]\n"
        "from naila.inference.worker import main; sys.exit(main())"
    )
    monkeypatch.setattr(worker_host, "_BOOT", slow)
    monkeypatch.setattr(worker_host, "_CLOSE_SILENCE_S", 1.8)
    host = await WorkerHost.start(model_path, PLAN, limits=EngineLimits(), keep=None)
    await host.close()
    assert host._process.returncode == 0


def test_a_template_that_refuses_a_conversation_costs_that_request_only(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[wire.Message] = []

    class Fake:
        n_ctx = 100
        chat_format = TemplateFormat(
            "{% if messages|length > 1 and messages[-1].role == messages[-2].role %}"
            "{{ raise_exception('roles must alternate') }}{% endif %}"
            "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}",
            bos="",
            eos="",
        )

        def encode(self, _: object) -> list[int]:
            return [1]

        def send(self, message: wire.Message) -> None:
            sent.append(message)

    Fake.vocabulary = Fake()  # type: ignore[attr-defined]
    fake = cast("Any", Fake())
    refused = Ask(messages=[ChatMessage("user", "a"), ChatMessage("user", "b")], max_tokens=3, sampling=Sampling())
    with caplog.at_level(logging.ERROR):
        _Worker(fake, fake, fake).obey(wire.parse(wire.dump(wire.ask_message(1, refused))))
    end = wire.read_end(sent[0])
    assert type(end) is GenerationError
    assert "roles must alternate" in str(end)
    assert "cannot be put to the model" in caplog.text


async def test_what_the_process_logs_is_a_line_of_this_log(boot: Boot, caplog: pytest.LogCaptureFixture) -> None:
    lines = [
        {"log": "a dead file", "level": logging.WARNING, "logger": "naila.inference.kv_store"},
        {"log": "x" * 100_000, "level": 10**6, "logger": "root"},
    ]
    boot("".join(f"out({json.dumps(line)!r})\n" for line in lines) + loaded(f"out({json.dumps(lines[0])!r}); live(1)"))
    async with started():
        await asyncio.sleep(0.3)
    said = [(record.name, record.levelno, len(record.getMessage())) for record in caplog.records]
    assert said.count(("naila.inference.kv_store", logging.WARNING, 11)) == 2
    assert ("naila.inference.worker.root", logging.CRITICAL, wire.MAX_LOG_CHARS) in said
