"""`naila doctor`: looks at everything that a running brain needs, and says how to mend what is missing."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import naila
from naila.commands.report import Finding, write_report
from naila.config.settings import Settings
from naila.errors import ModelError, NailaError, StorageError
from naila.memory.database import Database
from naila.mqtt.device import Device
from naila.mqtt.topics import Topics
from naila.server.model_source import ModelSource


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `doctor`; sets `run(args, settings) -> exit code`."""
    doctor = subparsers.add_parser(
        "doctor",
        help="look at broker, model, memory, GPU and database, and say how to mend them",
        description="Look at everything that a running brain needs. Exit code 1 if something must be mended.",
    )
    doctor.add_argument("--json", action="store_true", help="print JSON, for scripts")
    doctor.add_argument(
        "--report",
        nargs="?",
        type=Path,
        const=Path(),
        metavar="FILE",
        help="also write one file for whoever helps: settings without secrets, hardware, the last turns and log lines",
    )
    doctor.set_defaults(run=_doctor)


def _doctor(args: argparse.Namespace, settings: Settings) -> int:
    findings = [_versions(), *_model(settings), asyncio.run(_database(settings)), *asyncio.run(_broker(settings))]
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.status:<4}  {finding.name:<12} {finding.detail}")
            if finding.fix:
                print(f"{'':<19}-> {finding.fix}")
    failed = any(finding.status == "fail" for finding in findings)
    if args.report is not None:
        return int(not _report(args.report, settings, findings) or failed)
    return int(failed)


def _report(path: Path, settings: Settings, findings: list[Finding]) -> bool:
    """Write the report, under a name of its own where none or a folder was given; return whether that worked."""
    if path.is_dir():
        path /= f"naila-report-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    try:
        asyncio.run(write_report(path, settings, findings))
    except OSError as exc:
        print(f"naila: {path}: cannot be written: {exc.strerror or exc}", file=sys.stderr)
        return False
    words = "AND WHAT WAS SAID" if settings.record_words == "yes" else "no password and no words of a turn"
    print(
        f"\n{path}: written. It holds device ids, log lines and paths, {words}: look before you send it",
        file=sys.stderr,
    )
    return True


def _versions() -> Finding:
    return Finding(
        "versions", "ok", f"NAILA {naila.__version__}, Python {platform.python_version()}, {platform.platform()}"
    )


def _model(settings: Settings) -> Iterator[Finding]:
    source = ModelSource.of(settings)
    hardware = source.hardware()
    build = hardware.build
    yield Finding(
        "llama.cpp", "ok", f"llama-cpp-python {build.version}, built for {' '.join(build.cpu_features) or 'any CPU'}"
    )
    yield Finding(
        "processor",
        "ok",
        f"{hardware.usable_cores} of {hardware.physical_cores} cores usable, {hardware.logical_cpus} logical CPUs"
        + (f", quota {hardware.cpu_quota:g} CPUs" if hardware.cpu_quota else ""),
    )
    low = hardware.memory_available < hardware.memory_total * 0.1
    yield Finding(
        "memory",
        "warn" if low else "ok",
        f"{hardware.memory_available / 1e9:.1f} GB of {hardware.memory_total / 1e9:.1f} GB available",
        "close something, or use a smaller model" if low else None,
    )
    for gpu in build.gpus:
        yield Finding("gpu", "ok", f"{gpu.description}: {gpu.free_bytes / 1e9:.1f} GB free")
    if not build.gpus:
        yield Finding("gpu", "ok", "none that this llama.cpp can use: models run on the processor")
    try:
        chosen = source.choose()
        loaded = source.plan(chosen.header)
    except ModelError as exc:
        yield Finding("model", "fail", str(exc), "naila models pull smollm2-135m, or set LLM_MODEL_PATH")
        return
    may = "may act" if source.may_act(chosen.header) else "may talk, not act"
    yield Finding("model", "ok", f"{chosen.header.path} ({chosen.reason}); {may}")
    for what, why in loaded.reasons.items():
        value = {
            "threads": loaded.n_threads,
            "batch_threads": loaded.n_threads_batch,
            "gpu_layers": loaded.n_gpu_layers,
            "context": loaded.n_ctx,
            "cells": loaded.n_cells,
            "batch": loaded.n_batch,
            "mmap": "on" if loaded.use_mmap else "off",
            "repack": "on" if loaded.repack else "off",
            "memory": f"{loaded.needed_bytes / 1e6:.0f} MB",
        }[what]
        yield Finding(f"  {what}", "ok", f"{value}: {why}")


async def _database(settings: Settings) -> Finding:
    path = settings.memory_path
    try:
        if not path.exists():
            return _folder(path)
        async with Database(path, move_corrupt=False):
            size = path.stat().st_size
    except StorageError as exc:
        return Finding("database", "fail", str(exc), "see above; MEMORY_PATH names another file")
    return Finding("database", "ok", f"{path}, {size / 1e6:.1f} MB, whole")


def _folder(path: Path) -> Finding:
    """Look whether a database could be made: in the nearest folder that is there."""
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if os.access(nearest, os.W_OK):
        return Finding("database", "ok", f"{path} will be made at the first start")
    return Finding("database", "fail", f"{nearest} is not writable", "set MEMORY_PATH to a writable place")


async def _broker(settings: Settings) -> list[Finding]:
    where = f"{settings.mqtt_host or '127.0.0.1'}:{settings.mqtt_port}"
    if settings.embedded_broker and not _listens(settings.mqtt_port):
        detail = f"embedded, will listen at {where} while the daemon runs (MQTT_HOST is empty)"
        return [Finding("broker", "ok", detail)]
    try:
        async with Device(settings, "doctor", connect_timeout_s=5) as device:
            version = device.connection.protocol
            try:
                state = await device.wait_for_brain("online", "degraded", "starting", "stopping", timeout_s=2)
            except TimeoutError:
                state = device.brain_status or "offline"
    except NailaError as exc:
        return [Finding("broker", "fail", str(exc), "start the broker, or correct the MQTT_… settings")]
    old = version != "5"
    found = [
        Finding(
            "broker",
            "warn" if old and not settings.embedded_broker else "ok",
            f"{where}, MQTT {version}",
            "a broker with MQTT 5, such as Mosquitto 2, adds message expiry and response topics" if old else None,
        )
    ]
    is_well = state == "online"
    fix = (
        None
        if is_well
        else "start it: naila run"
        if state == "offline"
        else f"{Topics(settings.mqtt_topic_root).health} says why"
    )
    found.append(Finding("brain", "ok" if is_well else "warn", f"is {state}", fix))
    return found


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
