"""What this machine can do, as the kernel tells it.

Cores within the affinity mask, the CPU quota and memory limit of the control group, memory and board. What follows from
it for a model is `naila.server.engine_plan`.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from naila.ports import BuildInfo, GpuDevice


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What there is to run a model on.

    Attributes:
        system: `Linux`, `Darwin`, ….
        machine: the architecture: `x86_64`, `aarch64`, `arm64`, ….
        board: what the board calls itself, where it does (Raspberry Pi, Jetson).
        logical_cpus: CPUs within the affinity mask.
        physical_cores: cores within the affinity mask, siblings (hyper-threads) counted once.
        fast_cores: how many of them are worth using together: slow cores of a mixed processor hold up the fast ones.
        cpu_quota: CPUs that the tightest control group grants; None without a limit.
        memory_total: main memory in bytes, or the control group's limit where that is less.
        memory_available: bytes that can be taken now without swapping or hitting the limit.
        memory_limit: the tightest control group's limit in bytes; None without one.
        build: what llama.cpp was built for, with the GPUs that it sees.
    """

    system: str
    machine: str
    board: str | None
    logical_cpus: int
    physical_cores: int
    fast_cores: int
    cpu_quota: float | None
    memory_total: int
    memory_available: int
    memory_limit: int | None
    build: BuildInfo

    @property
    def usable_cores(self) -> int:
        """Cores that threads can keep busy: of a quota of 1.5, one, for a second thread would often be throttled."""
        return self.fast_cores if self.cpu_quota is None else max(1, min(self.fast_cores, math.floor(self.cpu_quota)))

    @property
    def is_macos(self) -> bool:
        """Whether this is a Mac."""
        return self.system == "Darwin"

    @property
    def gpus(self) -> tuple[GpuDevice, ...]:
        """The GPUs that llama.cpp will use: an integrated one only where there is no other."""
        return tuple(gpu for gpu in self.build.gpus if not self._is_integrated(gpu)) or self.build.gpus

    @property
    def gpu_shares_main_memory(self) -> bool:
        """Whether what lies on the GPU takes main memory."""
        return any(self._is_integrated(gpu) for gpu in self.gpus)

    def _is_integrated(self, gpu: GpuDevice) -> bool:
        return gpu.shares_main_memory or gpu.backend == "metal" or "Jetson" in (self.board or "")


def detect_hardware(
    build: BuildInfo, *, root: Path = Path("/"), system: str | None = None, machine: str | None = None
) -> Hardware:
    """Read what this machine has and what this process may use of it.

    Args:
        build: what llama.cpp was built for.
        root: where `proc` and `sys` are; another one in tests.
        system: the operating system, if not this one.
        machine: the architecture, if not this one's.
    """
    cpus = _allowed_cpus(root)
    cores = _cores(root, cpus) if cpus else {}
    physical = len(cores) or psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    total, available = _main_memory(root)
    rooms = [room for folder in _cgroups(root, "memory") if (room := _memory_room(folder))]
    quotas = [quota for folder in _cgroups(root, "cpu") if (quota := _cpu_quota(folder))]
    limit = min((room[0] for room in rooms if room[0] < total), default=None)
    return Hardware(
        system=system or platform.system(),
        machine=machine or platform.machine(),
        board=(_text(root / "proc/device-tree/model") or "").strip("\0\n ") or None,
        logical_cpus=len(cpus) or psutil.cpu_count() or physical,
        physical_cores=physical,
        fast_cores=_fast(root, cores) or physical,
        cpu_quota=min(quotas, default=None),
        memory_total=total if limit is None else limit,
        memory_available=max(0, min([available, *(free for _, free in rooms)])),
        memory_limit=limit,
        build=build,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReading:
    """Main memory at one moment, in bytes.

    Attributes:
        available: what can be taken without swapping.
        total: what the machine has.
        process: what this process holds.
    """

    available: int
    total: int
    process: int


def read_memory() -> MemoryReading:
    """Look at main memory now; cheap enough for every few seconds."""
    whole = psutil.virtual_memory()
    return MemoryReading(available=whole.available, total=whole.total, process=psutil.Process().memory_info().rss)


# Processors.


def _allowed_cpus(root: Path) -> set[int]:
    """Return the CPUs of the affinity mask that are switched on; empty where the kernel does not say (macOS)."""
    status = _text(root / "proc/self/status") or ""
    mask = next((line.partition(":")[2] for line in status.splitlines() if line.startswith("Cpus_allowed_list:")), "")
    online = _cpu_list(_text(root / "sys/devices/system/cpu/online") or "")
    allowed = _cpu_list(mask)
    return allowed & online if allowed and online else allowed or online


def _cores(root: Path, cpus: set[int]) -> dict[int, set[int]]:
    """Return the physical cores as their first CPU within the mask and all of those."""
    cores: dict[int, set[int]] = {}
    for cpu in sorted(cpus):
        siblings = _cpu_list(_text(_topology(root, cpu) / "thread_siblings_list") or "") & cpus | {cpu}
        cores.setdefault(min(siblings), set()).update(siblings)
    return cores


def _fast(root: Path, cores: dict[int, set[int]]) -> int:
    """Count the cores worth using together: all threads wait for the slowest after every step.

    Intel's mixed processors list their fast cores. ARM's state a capacity each: of the n fastest, all go at the pace
    of the slowest, so the best n is the one with the largest n times capacity.
    """
    performance = _cpu_list(_text(root / "sys/devices/cpu_core/cpus") or "") & cores.keys()
    if performance:
        return len(performance)
    capacities = sorted((_number(_topology(root, core).parent / "cpu_capacity") or 0 for core in cores), reverse=True)
    return max(range(1, len(cores) + 1), key=lambda n: (n * capacities[n - 1], n), default=0)


def _topology(root: Path, cpu: int) -> Path:
    return root / f"sys/devices/system/cpu/cpu{cpu}/topology"


def _cpu_list(text: str) -> set[int]:
    """Read the kernel's `0-3,8`."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.strip().partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            cpus.update(range(int(first), int(last or first) + 1))
    return cpus


# Control groups: version 2 has one tree, version 1 one for each controller, and a machine may have both.


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Yield this process's folder of a controller and its ancestors: the tightest of them counts."""
    mounts = list(_cgroup_mounts(root, controller))
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, own = (*line.split(":", 2), "", "")[:3]
        version = 2 if not controllers else 1
        if version == 1 and controller not in controllers.split(","):
            continue
        for mount_version, mount_root, mount in mounts:
            if mount_version == version:
                folder = mount / _below(own, mount_root)
                yield from (each for each in (folder, *folder.parents) if each.is_relative_to(mount) and each.is_dir())


def _cgroup_mounts(root: Path, controller: str) -> Iterator[tuple[int, str, Path]]:
    """Yield version, root within the hierarchy and folder of each mounted tree that may have the controller."""
    for line in (_text(root / "proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        mount = root / fields[4].lstrip("/")
        if kind[0] == "cgroup2":
            yield 2, fields[3], mount
        elif kind[0] == "cgroup" and controller in kind[2].split(","):
            yield 1, fields[3], mount


def _below(own: str, mount_root: str) -> str:
    """Return a group's path below a mount; a container sees its own group as the mount itself."""
    path = Path(own.strip())
    if ".." in path.parts:
        return ""
    return str(path.relative_to(mount_root) if path.is_relative_to(mount_root) else path).lstrip("/")


def _cpu_quota(folder: Path) -> float | None:
    """Return how many CPUs a group grants, if it limits them."""
    maximum = (_text(folder / "cpu.max") or "").split()
    quota, period = maximum if len(maximum) == 2 else ("", "")
    if not maximum:
        quota, period = (_text(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period"))
    try:
        cpus = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return cpus if cpus > 0 else None


def _memory_room(folder: Path) -> tuple[int, int] | None:
    """Return a group's memory limit and what is free below it, if it has one.

    File cache is given back under pressure, so it counts as free. Version 1 writes "none" as 2**63 less a page.
    """
    sizes = [_number(folder / name) for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
    limit = min((size for size in sizes if size is not None and size < 2**62), default=None)
    if limit is None:
        return None
    used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes") or 0
    stat = dict(line.split(maxsplit=1) for line in (_text(folder / "memory.stat") or "").splitlines() if " " in line)
    prefix = "total_" if "total_active_file" in stat else ""  # version 1: with all groups below
    cache = [stat.get(f"{prefix}{name}_file", "").strip() for name in ("active", "inactive")]
    return limit, limit - max(0, used - sum(int(size) for size in cache if size.isdecimal()))


def _main_memory(root: Path) -> tuple[int, int]:
    """Return main memory in all and what can be taken without swapping, in bytes."""
    lines = (line.split() for line in (_text(root / "proc/meminfo") or "").splitlines())
    sizes = {words[0]: int(words[1]) * 1024 for words in lines if len(words) > 1 and words[1].isdecimal()}
    if "MemTotal:" in sizes and "MemAvailable:" in sizes:
        return sizes["MemTotal:"], sizes["MemAvailable:"]
    memory = psutil.virtual_memory()
    return int(memory.total), int(memory.available)


def _text(path: Path) -> str | None:
    """Return a file's text; what cannot be read is as if it were not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = (_text(path) or "").strip()
    return int(text) if text.isdecimal() else None
