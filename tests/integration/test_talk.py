"""`naila say` and `naila chat` as real processes on a real Mosquitto, with the brain away, back, or never there."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.brain import COMMAND
from support.mosquitto import Mosquitto
from support.robots import EchoBrain, until

pytestmark = pytest.mark.broker

AWAY = "the brain is offline; waiting for it — Ctrl-C ends this"
DEGRADED = b"(degraded: no language model)\n"  # so the echo says of itself


@asynccontextmanager
async def naila(
    folder: Path, broker: Mosquitto, *arguments: str, stdin: int = PIPE, stdout: int = PIPE
) -> AsyncIterator[asyncio.subprocess.Process]:
    environ = {"PATH": os.environ["PATH"], "MQTT_HOST": "127.0.0.1", "MQTT_PORT": str(broker.port)}
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, cwd=folder, env=environ, stdin=stdin, stdout=stdout, stderr=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def told(process: asyncio.subprocess.Process, timeout_s: float = 10) -> str:
    """Return the next line on standard error."""
    assert process.stderr is not None
    return (await asyncio.wait_for(process.stderr.readline(), timeout_s)).decode().rstrip()


async def connected(broker: Mosquitto) -> None:
    await until(lambda: "as naila-device-cli" in broker.log())


async def a_brain_that_left(broker: Mosquitto) -> None:
    async with EchoBrain(broker.settings()).running():
        pass


@pytest.mark.parametrize("left", [False, True], ids=["never there", "left"])
async def test_say_tells_that_nobody_is_there_and_is_answered_when_somebody_comes(
    tmp_path: Path, mosquitto: Mosquitto, left: bool
) -> None:
    if left:
        await a_brain_that_left(mosquitto)
    async with naila(tmp_path, mosquitto, "say", "hello") as saying:
        await connected(mosquitto)
        assert await told(saying, 2) == AWAY
        async with EchoBrain(mosquitto.settings()).running():
            # Well before the next repeat, which comes every ten seconds.
            out, err = await asyncio.wait_for(saying.communicate(), 4)
    assert (saying.returncode, out.decode()) == (0, "you said: hello\n")
    assert err == DEGRADED


async def test_say_gives_up_and_says_why(tmp_path: Path, mosquitto: Mosquitto) -> None:
    await a_brain_that_left(mosquitto)
    async with naila(tmp_path, mosquitto, "say", "hello", "--timeout", "1.5") as saying:
        assert await told(saying) == AWAY
        assert await told(saying) == (
            "naila: no reply came within 1.5 s, and the brain is offline; is the brain running? `naila doctor` looks"
        )
        assert await saying.wait() == 1


async def test_say_does_not_call_a_silent_brain_offline(tmp_path: Path, mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings(), answers=False)
    async with brain.running(), naila(tmp_path, mosquitto, "say", "hello", "--timeout", "2") as saying:
        said = await told(saying)
        assert await saying.wait() == 1
    assert said == "naila: no reply came within 2 s; is the brain running? `naila doctor` looks"


async def test_say_tells_when_the_brain_leaves_while_it_waits(tmp_path: Path, mosquitto: Mosquitto) -> None:
    brain = EchoBrain(mosquitto.settings(), answers=False)
    async with naila(tmp_path, mosquitto, "say", "hello") as saying:
        async with brain.running():
            await until(lambda: brain.texts == ["hello"])
        assert await told(saying, 4) == AWAY


async def test_chat_tells_at_its_start_that_nobody_is_there(tmp_path: Path, mosquitto: Mosquitto) -> None:
    async with naila(tmp_path, mosquitto, "chat") as chatting:
        await connected(mosquitto)
        assert await told(chatting, 2) == AWAY
        asked = asyncio.create_task(chatting.communicate(b"hello\n"))
        await until(lambda: "devices/cli/intent" in mosquitto.log())
        async with EchoBrain(mosquitto.settings()).running():
            out, err = await asyncio.wait_for(asked, 5)
    assert (chatting.returncode, err) == (0, DEGRADED)
    assert b"you said: hello" in out


async def test_ctrl_c_ends_the_waiting(tmp_path: Path, mosquitto: Mosquitto) -> None:
    async with naila(tmp_path, mosquitto, "say", "hello") as waiting:
        assert await told(waiting) == AWAY
        waiting.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(waiting.wait(), 3) == 130
        assert await told(waiting) == ""


async def test_ctrl_c_ends_a_chat_that_waits_for_the_keyboard(tmp_path: Path, mosquitto: Mosquitto) -> None:
    keyboard, terminal = os.openpty()
    try:
        async with naila(tmp_path, mosquitto, "chat", stdin=terminal, stdout=terminal) as chatting:
            assert await told(chatting) == AWAY
            shown = b""
            while b"Ctrl-D ends" not in shown:
                shown += await asyncio.to_thread(os.read, keyboard, 1000)
            await asyncio.sleep(0.3)  # until it waits for the keyboard
            chatting.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(chatting.wait(), 3) == 130
            assert "Traceback" not in await told(chatting)
    finally:
        os.close(keyboard)
        os.close(terminal)


async def test_chat_with_a_brain_says_nothing_of_it(tmp_path: Path, mosquitto: Mosquitto) -> None:
    async with EchoBrain(mosquitto.settings()).running(), naila(tmp_path, mosquitto, "chat") as chatting:
        out, err = await asyncio.wait_for(chatting.communicate(b"hello\n"), 10)
    assert (chatting.returncode, err) == (0, DEGRADED)
    assert b"you said: hello" in out


async def test_chat_gives_up_and_says_why(tmp_path: Path, mosquitto: Mosquitto) -> None:
    async with naila(tmp_path, mosquitto, "chat", "--timeout", "1") as chatting:
        _, err = await asyncio.wait_for(chatting.communicate(b"hello\n"), 10)
    assert chatting.returncode == 1
    assert "no reply came within 1 s, and the brain is offline" in err.decode()
