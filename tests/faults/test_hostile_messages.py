"""A hundred thousand messages that nobody should send, over a real broker, into a real daemon."""

from __future__ import annotations

import asyncio
import time

import pytest

from support.crew import Robot
from support.ear import Ear
from support.hostile import Hostility
from support.often import HowOften
from support.raw import RawClient
from support.scene import Scene, assert_well
from support.tally import percentile

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]
CLIENTS = 4
BATCH = 1000


async def test_hostile_messages_change_nothing(scene: Scene, how_often: HowOften) -> None:
    """After each thousand a good request is answered within a second; no exit, no surprise, no action."""
    settings = scene.broker.settings()
    brain = scene.brain(scene.broker.port, LOG_LEVEL="WARNING").start()
    hostility, answered_s = Hostility(scene.chance), list[float]()
    async with (
        Ear(settings, "naila/devices/+/action", "naila/devices/+/action/pending", "naila/ai/metrics") as ear,
        Robot(settings, "victim", scene.tally) as victim,
        asyncio.TaskGroup() as group,
    ):
        assert await victim.ask("q0", "What time is it?", repeat_s=1, timeout_s=60)
        clients = [await RawClient(scene.broker.port).__aenter__() for _ in range(CLIENTS)]
        for batch in range(how_often(3, 100)):
            fuzzing = [group.create_task(publish(client, hostility, BATCH // CLIENTS)) for client in clients]
            await asyncio.gather(*fuzzing)
            began = time.monotonic()
            assert await victim.ask(f"good-{batch}", "What time is it?", repeat_s=1, timeout_s=10)
            answered_s.append(time.monotonic() - began)
            ear.messages[:] = [message for message in ear.messages if "/action" in message.topic]
        for client in clients:
            await client.__aexit__(None, None, None)
        moved = [message for message in ear.messages if "/action" in message.topic and not message.retain]
    scene.tally.extra.update(
        messages=len(answered_s) * BATCH,
        thrown_out_by_the_broker=sum(client.thrown_out for client in clients),
        actions_seen=len(moved),
        good_request_p50_s=percentile(answered_s, 0.5),
        good_request_max_s=percentile(answered_s, 1),
    )
    scene.report()
    assert_well(brain)
    assert moved == []
    assert max(answered_s) <= 1


async def publish(client: RawClient, hostility: Hostility, count: int) -> None:
    """Publish so many messages and wait until the broker has them."""
    for _ in range(count):
        topic, payload, qos, retain = hostility.message()
        await client.publish(topic, payload, qos=qos, retain=retain)
    await client.settle()
