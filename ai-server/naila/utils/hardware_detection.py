"""What this machine can do, and how a model is to be run on it.

`detect_hardware` reads what the kernel says: cores within the affinity mask, the CPU quota and memory limit of the
control group, memory and board. `plan_engine` works from that and the model's header, and gives each decision a reason.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from naila.errors import ModelTooLargeError
from naila.ports import BuildInfo, EnginePlan, GpuDevice, ModelHeader

MIB: Final = 2**20
GB: Final = 10**9

CONTEXT_STEP: Final = 256
CONTEXT_FLOOR: Final = 512
UBATCH: Final = 512  # llama.cpp computes at most this many tokens at once, whatever the batch
GPU_RESERVE: Final = 256 * MIB  # what the driver and its libraries take on a GPU beside the model
MAIN_RESERVE: Final = 256 * MIB  # least main memory that stays free, for the daemon and the rest of the machine
SMALLER_MODELS: Final = (("llama-3.2-3b", 2.9 * GB), ("tinyllama-1.1b", 0.95 * GB), ("smollm2-135m", 0.4 * GB))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOverrides:
    """What a person set; None is worked out.

    Attributes:
        n_threads: LLM_THREADS.
        n_gpu_layers: LLM_GPU_LAYERS, -1 for all.
        n_ctx: LLM_CONTEXT_SIZE, the most that is wanted.
        n_batch: LLM_BATCH_SIZE, the most that is wanted.
        max_tokens: LLM_MAX_TOKENS; the context stays larger.
        gpu_memory_share: LLM_GPU_MEMORY_SHARE.
    """

    n_threads: int | None = None
    n_gpu_layers: int | None = None
    n_ctx: int = 4096
    n_batch: int = 512
    max_tokens: int = 512
    gpu_memory_share: float = 0.9


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


# The plan.


def plan_engine(header: ModelHeader, hardware: Hardware, overrides: EngineOverrides | None = None) -> EnginePlan:
    """Decide how to run a model so that it fits with room left.

    Args:
        header: the model.
        hardware: the machine.
        overrides: what a person set.

    Raises:
        ModelTooLargeError: it does not fit even with the smallest useful context, or not with the GPU layers set.
    """
    fitting = _Fitting(header, hardware, overrides or EngineOverrides())
    n_ctx = fitting.context()
    layers = fitting.layers(n_ctx)
    (threads, threads_reason), (batch_threads, batch_threads_reason) = _threads(hardware, fitting.overrides)
    use_mmap, mmap_reason = _mmap(hardware, layers)
    n_batch = min(fitting.overrides.n_batch, n_ctx)
    return EnginePlan(
        n_threads=threads,
        n_threads_batch=batch_threads,
        n_gpu_layers=layers,
        n_ctx=n_ctx,
        n_batch=n_batch,
        use_mmap=use_mmap,
        acceleration=hardware.gpus[0].backend if layers else "cpu",
        needed_bytes=fitting.main(n_ctx, layers),
        available_bytes=hardware.memory_available,
        reasons={
            "threads": threads_reason,
            "batch_threads": batch_threads_reason,
            "gpu_layers": fitting.layers_reason(n_ctx, layers),
            "context": fitting.context_reason(n_ctx),
            "batch": "LLM_BATCH_SIZE" if n_batch == fitting.overrides.n_batch else "no larger than the context",
            "mmap": mmap_reason,
            "memory": fitting.memory_reason(n_ctx, layers),
        },
    )


@dataclass(frozen=True, slots=True)
class _Fitting:
    """One model in one machine's memory.

    Sizes are estimates, rather too large than too small, and within a few percent of llama.cpp's own log: weights are
    the file, spread evenly over the blocks and the output; the KV cache has 16 bits a value; the compute buffer is
    ruled by the logits of one step or, without flash attention, by its attention scores.
    """

    header: ModelHeader
    hardware: Hardware
    overrides: EngineOverrides

    def kv(self, n_ctx: int) -> int:
        header = self.header
        return n_ctx * header.n_layers * header.n_kv_heads * (header.head_dim_k + header.head_dim_v) * 2

    def compute(self, n_ctx: int) -> int:
        tokens = min(self.overrides.n_batch, UBATCH, n_ctx)
        widest = max(self.header.n_vocab, n_ctx * self.header.n_heads)
        return tokens * (widest + 10 * self.header.n_embd) * 4

    def gpu(self, n_ctx: int, layers: int) -> int:
        """Return what so many layers take on the GPU."""
        if not layers:
            return 0
        kv = self.kv(n_ctx) * min(layers, self.header.n_layers) // max(1, self.header.n_layers)
        return self.header.file_bytes * layers // self.all_layers + kv + self.compute(n_ctx)

    def main(self, n_ctx: int, layers: int) -> int:
        """Return what it takes of main memory with so many layers on the GPU."""
        whole = self.header.file_bytes + self.kv(n_ctx) + self.compute(n_ctx)
        if not layers or self.hardware.gpu_shares_main_memory:
            return whole
        # The token embedding stays in main memory, here at a byte a weight; so does a compute buffer.
        embedding = min(self.header.file_bytes // 3, self.header.n_vocab * self.header.n_embd)
        return whole - self.gpu(n_ctx, layers) + embedding + self.compute(n_ctx)

    @property
    def all_layers(self) -> int:
        """The blocks and the output, which llama.cpp counts as one more."""
        return self.header.n_layers + 1

    @property
    def reserve(self) -> int:
        """Main memory that is left alone."""
        return max(MAIN_RESERVE, self.hardware.memory_available // 10)

    @property
    def gpu_free(self) -> int:
        return sum(max(0, gpu.free_bytes - GPU_RESERVE) for gpu in self.hardware.gpus)

    @property
    def gpu_room(self) -> int:
        """GPU memory that the model may take: the share is of the whole, whoever has already taken the rest."""
        share, gpus = self.overrides.gpu_memory_share, self.hardware.gpus
        return sum(min(max(0, gpu.free_bytes - GPU_RESERVE), int(gpu.total_bytes * share)) for gpu in gpus)

    @property
    def wanted_context(self) -> int:
        trained, asked = self.header.n_ctx_train, self.overrides.n_ctx
        return min(trained, asked) if trained > 0 else asked

    def layers(self, n_ctx: int) -> int:
        """Return how many layers go on the GPU: as set, else as many as fit."""
        wish = self.overrides.n_gpu_layers
        if not self.hardware.gpus:
            return 0
        if wish is not None:
            return self.all_layers if wish < 0 else min(wish, self.all_layers)
        return next((n for n in range(self.all_layers, 0, -1) if self.gpu(n_ctx, n) <= self.gpu_room), 0)

    def context(self) -> int:
        """Return the largest context up to the wanted one that fits in memory."""
        wanted, least = self.wanted_context, self.overrides.max_tokens + CONTEXT_STEP
        floor = min(wanted, max(CONTEXT_FLOOR, -(-least // CONTEXT_STEP) * CONTEXT_STEP))
        steps: list[int] = [wanted, *range((wanted - 1) // CONTEXT_STEP * CONTEXT_STEP, floor, -CONTEXT_STEP), floor]
        for n_ctx in steps:
            if self._fits(n_ctx, self.layers(n_ctx)):
                return n_ctx
        raise self._too_large(floor, self.layers(floor))

    def _fits(self, n_ctx: int, layers: int) -> bool:
        on_gpu = self.gpu(n_ctx, layers) <= self.gpu_free
        return on_gpu and self.main(n_ctx, layers) <= self.hardware.memory_available - self.reserve

    def _too_large(self, n_ctx: int, layers: int) -> ModelTooLargeError:
        name, available = self.header.name, self.hardware.memory_available
        on_gpu = self.gpu(n_ctx, layers)
        if on_gpu > self.gpu_free:
            return ModelTooLargeError(
                f"{name}: {layers} layers need {_gb(on_gpu)} of GPU memory even with a context of {n_ctx} tokens, and "
                f"{_gb(self.gpu_free)} are free: set LLM_GPU_LAYERS lower or to auto",
                needed=on_gpu,
                available=self.gpu_free,
                path=self.header.path,
            )
        needed = self.main(n_ctx, layers) + self.reserve
        smaller = [model for model, size in SMALLER_MODELS if size + self.reserve <= min(available, needed - 1)]
        names = f" ({', '.join(smaller)})" if smaller else ""
        limit = ", raise the control group's memory limit" * (self.hardware.memory_limit is not None)
        return ModelTooLargeError(
            f"{name} needs {_gb(needed)} of memory even with a context of {n_ctx} tokens ({_gb(self.reserve)} of it to "
            f"stay free), and there are {_gb(available)}: take a smaller model"
            f"{names}{limit} or free some memory",
            needed=needed,
            available=available,
            path=self.header.path,
        )

    def layers_reason(self, n_ctx: int, layers: int) -> str:
        wish, taken, room = self.overrides.n_gpu_layers, self.gpu(n_ctx, layers), self.gpu_room
        if not self.hardware.gpus:
            return f"LLM_GPU_LAYERS={wish} has no effect: " * bool(wish) + "this llama.cpp sees no GPU"
        if wish is not None:
            over = f"; its {_gb(taken)} are more than LLM_GPU_MEMORY_SHARE leaves ({_gb(room)})" * (taken > room)
            return f"set by LLM_GPU_LAYERS{over}"
        gpus = " and ".join(gpu.description for gpu in self.hardware.gpus)
        memory = f"{_gb(room)} of {gpus} (LLM_GPU_MEMORY_SHARE={self.overrides.gpu_memory_share:g} and what is free)"
        if layers == self.all_layers:
            return f"all: {_gb(taken)} fit in {memory}"
        return f"{layers} of {self.all_layers} fit in {memory}" if layers else f"not one layer fits in {memory}"

    def context_reason(self, n_ctx: int) -> str:
        asked, wanted = self.overrides.n_ctx, self.wanted_context
        reason = "LLM_CONTEXT_SIZE"
        if wanted < asked:
            reason += f"={asked} is more than the {wanted} that the model was trained with"
        if n_ctx < wanted:
            reason += f"; less than {wanted}, so that its KV cache fits in memory"
        if n_ctx <= self.overrides.max_tokens:
            reason += f"; LLM_MAX_TOKENS={self.overrides.max_tokens} cannot be reached: set it lower"
        return reason

    def memory_reason(self, n_ctx: int, layers: int) -> str:
        needed, available = self.main(n_ctx, layers), self.hardware.memory_available
        where = " within the control group's limit" * (self.hardware.memory_limit is not None)
        on_gpu = layers and not self.hardware.gpu_shares_main_memory
        return (
            f"{_gb(needed)} of the {_gb(available)} free{where}"
            + f", and {_gb(self.gpu(n_ctx, layers))} on the GPU" * bool(on_gpu)
            + f"; in all {_gb(self.header.file_bytes)} weights, {_gb(self.kv(n_ctx))} KV cache and "
            f"{_gb(self.compute(n_ctx))} for computing"
        )


def _threads(hardware: Hardware, overrides: EngineOverrides) -> tuple[tuple[int, str], tuple[int, str]]:
    """Choose the threads that decode and those that read prompts in.

    They meet at a barrier several times a token and spin there: one that is not scheduled holds up all others.
    Measured with two threads on two cores: 190 tokens/s alone, 16 beside one busy process, where one thread makes 70
    to 140. So a core is left for everything else where that costs little: decoding is bound by memory, and three
    cores of four fill its bus. Reading in is bound by arithmetic, where every core counts and a sibling does not.
    """
    if overrides.n_threads is not None:
        many = overrides.n_threads > hardware.logical_cpus
        reason = "set by LLM_THREADS" + f"; slow, for there are {hardware.logical_cpus} CPUs" * many
        return (overrides.n_threads, reason), (overrides.n_threads, reason)
    cores, words = hardware.usable_cores, _cores_in_words(hardware)
    reading = (cores, f"{words}: reading in is bound by arithmetic")
    return ((cores - 1, f"{words}, less one for everything else that runs") if cores >= 4 else (cores, words)), reading


def _cores_in_words(hardware: Hardware) -> str:
    words = f"{hardware.physical_cores} physical core{'s' * (hardware.physical_cores != 1)} may be used"
    if hardware.logical_cpus > hardware.physical_cores:
        words += f" (of {hardware.logical_cpus} logical CPUs; hyper-threads do not help)"
    if hardware.fast_cores < hardware.physical_cores:
        words += f", {hardware.fast_cores} of them fast"
    if hardware.cpu_quota is not None and hardware.usable_cores < hardware.fast_cores:
        words += f", the control group's quota grants {hardware.cpu_quota:g}"
    return words


def _mmap(hardware: Hardware, layers: int) -> tuple[bool, str]:
    if not hardware.build.supports_mmap:
        return False, "off: this llama.cpp cannot map files"
    if layers and hardware.gpu_shares_main_memory and hardware.gpus[0].backend != "metal":
        return False, "off: the GPU shares main memory, where the weights would lie twice"
    return True, "on: the file's pages are used as they are, and a restart finds them in memory"


def _gb(size: int) -> str:
    return f"{size / GB:.1f} GB" if size >= GB else f"{size / 10**6:.0f} MB"
