"""A day of requests: what each leaves behind in the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.crew import crew, work
from support.ear import Ear
from support.often import HowOften
from support.scene import Scene, assert_nothing_lost_or_twice, assert_well, running
from support.vitals import METRICS, Sample, slope, watch

pytestmark = [pytest.mark.broker, pytest.mark.timeout(900)]
SLACK_BYTES = 5_000_000


async def endure(
    scene: Scene, requests: int, robots: int, *, warm_up: float = 0.25, **environ: str
) -> Sequence[Sample]:
    """Ask so many things; return what was seen after the warm-up."""
    brain = scene.brain(scene.broker.port, LOG_LEVEL="WARNING", METRICS_INTERVAL_S="0.2", **environ).start()
    samples: list[Sample] = []
    await running(brain)
    async with (
        Ear(scene.broker.settings(), METRICS) as ear,
        crew(scene.broker.settings(), robots, scene.tally) as crew_members,
    ):
        await work(crew_members, range(robots), repeat_s=10)
        ear.messages.clear()
        idle = (await ear.until_object(METRICS, lambda _: True))["tasks"]
        watching = asyncio.create_task(watch(brain.pid, ear, lambda: scene.tally.answered, samples))
        await work(crew_members, range(robots, requests), repeat_s=10)
        watching.cancel()
        await ear.until_object(METRICS, lambda told: told["tasks"] <= idle)
    warm = [sample for sample in samples if sample.requests >= requests * warm_up]
    scene.tally.extra.update(
        bytes_per_request=round(slope(warm), 1),
        growth_bytes=warm[-1].rss - warm[0].rss,
        rss_mb=round(warm[-1].rss / 1e6, 1),
        descriptors=(warm[0].descriptors, max(sample.descriptors for sample in warm), warm[-1].descriptors),
        threads=(warm[0].threads, max(sample.threads for sample in warm), warm[-1].threads),
        tasks=(warm[0].tasks, max(sample.tasks for sample in warm), warm[-1].tasks, idle),
    )
    assert_nothing_lost_or_twice(scene.report())
    assert_well(brain)
    return warm


async def test_a_day_of_requests_without_a_model(scene: Scene, how_often: HowOften) -> None:
    requests = how_often(600, 86_400)
    warm = await endure(scene, requests, 10)
    assert warm[-1].rss - warm[0].rss <= max(1000 * requests, SLACK_BYTES)
    if requests > 50_000:  # of fewer, the slope is noise
        assert slope(warm) <= 1000
    assert warm[-1].descriptors <= warm[0].descriptors + 2
    assert warm[-1].threads <= warm[0].threads + 2


@pytest.mark.model
async def test_requests_to_the_model(scene: Scene, how_often: HowOften, model_path: Path) -> None:
    requests = how_often(16, 500)
    # A KV cell takes memory when it is first used: so few that all have been when the warm-up is over.
    few = {"LLM_CONTEXT_SIZE": "1024", "LLM_KV_CELLS": "2048"}
    warm = await endure(scene, requests, 4, warm_up=0.6, LLM_MODEL_PATH=str(model_path), LLM_MAX_TOKENS="8", **few)
    if requests == 500:  # of fewer, all is warm-up
        assert warm[-1].rss - warm[0].rss <= SLACK_BYTES
    assert warm[-1].descriptors <= warm[0].descriptors + 2
    assert warm[-1].threads <= warm[0].threads + 2
