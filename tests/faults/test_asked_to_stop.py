"""SIGTERM while the model answers."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from naila.errors import ContractError
from naila.mqtt.device import Device
from support.often import HowOften
from support.said import story
from support.scene import Scene, running
from support.tally import Tally, percentile

pytestmark = [pytest.mark.broker, pytest.mark.model, pytest.mark.timeout(600)]
LIMIT_S = 5.0
DEVICES = 4


async def test_a_daemon_that_is_asked_to_stop_in_mid_answer(
    scene: Scene, how_often: HowOften, model_path: Path
) -> None:
    """It is out within five seconds, and each request is answered, by it or after the restart, once."""
    brain = scene.brain(scene.broker.port, LLM_MODEL_PATH=str(model_path), LLM_MAX_TOKENS="300")
    tally, out_s, finished = scene.tally, list[float](), Counter[str]()
    async with AsyncExitStack() as stack:
        settings = scene.broker.settings()
        devices = [await stack.enter_async_context(Device(settings, f"r{n}")) for n in range(DEVICES)]
        for number in range(how_often(1, 20)):
            brain.start()
            await running(brain)
            asking = [asyncio.create_task(ask(device, f"q{number}", tally)) for device in devices]
            await asyncio.sleep(scene.chance.uniform(0.2, 1.5))
            assert not all(task.done() for task in asking)
            began = time.monotonic()
            tally.fault("SIGTERM")
            brain.signal(signal.SIGTERM)
            assert await asyncio.to_thread(brain.wait) == 0
            out_s.append(time.monotonic() - began)
            brain.start()
            await running(brain)
            tally.over()
            finished.update(await asyncio.gather(*asking))
            await asyncio.to_thread(brain.stop)
    tally.extra.update(out_p50_s=percentile(out_s, 0.5), out_max_s=percentile(out_s, 1), finish_reasons=finished)
    counts = scene.report()
    assert "Traceback" not in brain.log()
    assert (counts.lost, counts.answered_twice) == (0, 0)
    assert max(out_s) <= LIMIT_S, f"of {len(out_s)}"


async def ask(device: Device, request_id: str, tally: Tally) -> str:
    """Ask for a long story until it comes, refused or not; return how it ended."""
    key = device.device_id, request_id
    while True:
        tally.sent(key)
        try:
            reply = await device.ask(story(device.device_id, id=request_id), timeout_s=60, repeat_s=2)
        except ContractError as exc:
            tally.refused(key, exc.code)
            await asyncio.sleep(0.5)
            continue
        tally.replied(key, repr(reply).encode())
        return reply.finish_reason
