"""Machines as their kernels describe them: fake /proc and /sys trees, read by the real parser."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from naila.ports import BuildInfo, GpuDevice
from naila.utils.hardware_detection import Hardware, detect_hardware

MIB = 2**20
GIB = 2**30
CPU_BUILD = BuildInfo(version="0.3.36", cpu_features=("AVX2",))
V2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"


@dataclass
class Machine:
    """Writes what a kernel would show."""

    root: Path

    def write(self, path: str, text: object) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    def cpus(self, siblings: list[str], *, allowed: str | None = None, online: str | None = None) -> None:
        """`siblings` has for each CPU the list that its core's CPUs form."""
        for cpu, core in enumerate(siblings):
            self.write(f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", core)
        everyone = f"0-{len(siblings) - 1}"
        self.write("sys/devices/system/cpu/online", online or everyone)
        self.write("proc/self/status", f"Name:\tnaila\nCpus_allowed:\tff\nCpus_allowed_list:\t{allowed or everyone}")

    def memory(self, total: int, available: int) -> None:
        self.write("proc/meminfo", f"MemTotal: {total // 1024} kB\nMemFree: 1 kB\nMemAvailable: {available // 1024} kB")

    def cgroup(self, membership: str, *mounts: str) -> None:
        self.write("proc/self/cgroup", membership)
        self.write("proc/self/mountinfo", "\n".join(["22 28 0:21 / /proc rw - proc proc rw", *mounts]))

    def detect(self, build: BuildInfo = CPU_BUILD, *, system: str = "Linux", machine: str = "x86_64") -> Hardware:
        return detect_hardware(build, root=self.root, system=system, machine=machine)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.memory(16 * GIB, 12 * GIB)
    return machine


def smt(cores: int) -> list[str]:
    """Each core's siblings are n and n + cores, as on most PCs."""
    return [f"{cpu % cores},{cpu % cores + cores}" for cpu in range(2 * cores)]


def cores_of(hardware: Hardware) -> tuple[int, int, int]:
    return hardware.logical_cpus, hardware.physical_cores, hardware.usable_cores


def test_a_pc_with_8_cores_and_hyper_threads(machine: Machine) -> None:
    machine.cpus(smt(8))
    hardware = machine.detect()
    assert cores_of(hardware) == (16, 8, 8)
    assert (hardware.memory_total, hardware.memory_available) == (16 * GIB, 12 * GIB)
    assert (hardware.cpu_quota, hardware.memory_limit, hardware.board) == (None, None, None)
    assert (hardware.machine, hardware.is_macos, hardware.build) == ("x86_64", False, CPU_BUILD)


@pytest.mark.parametrize(
    ("allowed", "logical", "physical"),
    [("0-1", 2, 2), ("0,8", 2, 1), ("8", 1, 1), ("8-15", 8, 8), ("0-3,8-11", 8, 4), ("3,5,13", 3, 2)],
)
def test_only_what_the_affinity_mask_allows_counts(machine: Machine, allowed: str, logical: int, physical: int) -> None:
    machine.cpus(smt(8), allowed=allowed)
    assert cores_of(machine.detect()) == (logical, physical, physical)


def test_cpus_that_are_switched_off_do_not_count(machine: Machine) -> None:
    machine.cpus(smt(4), allowed="0-127", online="0-2,4-6")
    assert cores_of(machine.detect()) == (6, 3, 3)


def test_without_a_topology_every_cpu_is_a_core(machine: Machine) -> None:
    machine.write("proc/self/status", "Cpus_allowed_list:\t0-3")
    assert cores_of(machine.detect()) == (4, 4, 4)


@pytest.mark.parametrize(("quota", "usable"), [("150000", 1), ("200000", 2), ("399999", 3), ("50000", 1), ("max", 8)])
def test_the_quota_of_a_version_2_group(machine: Machine, quota: str, usable: int) -> None:
    machine.cpus(smt(8))
    machine.cgroup("0::/system.slice/naila.service", V2)
    machine.write("sys/fs/cgroup/system.slice/naila.service/cpu.max", f"{quota} 100000")
    hardware = machine.detect()
    assert hardware.usable_cores == usable
    assert hardware.physical_cores == 8
    assert hardware.cpu_quota == (None if quota == "max" else int(quota) / 100_000)


def test_the_tightest_of_nested_version_2_groups_counts(machine: Machine) -> None:
    machine.cpus(smt(8))
    machine.cgroup("0::/a/b/c", V2)
    for group, quota, limit, used in (("a", "300000", 8, 7), ("a/b", "600000", 4, 1), ("a/b/c", "max", "max", 1)):
        machine.write(f"sys/fs/cgroup/{group}/cpu.max", f"{quota} 100000")
        machine.write(f"sys/fs/cgroup/{group}/memory.max", limit if limit == "max" else int(limit) * GIB)
        machine.write(f"sys/fs/cgroup/{group}/memory.current", used * GIB)
    hardware = machine.detect()
    assert hardware.cpu_quota == 3
    assert (hardware.memory_limit, hardware.memory_total) == (4 * GIB, 4 * GIB)
    assert hardware.memory_available == 1 * GIB  # `a` has one left, though its limit is wider


def test_file_cache_within_the_limit_counts_as_free(machine: Machine) -> None:
    machine.cgroup("0::/naila", V2)
    machine.write("sys/fs/cgroup/naila/memory.max", 4 * GIB)
    machine.write("sys/fs/cgroup/naila/memory.current", 3 * GIB)
    machine.write(
        "sys/fs/cgroup/naila/memory.stat", f"anon {GIB}\nfile {2 * GIB}\nactive_file {GIB}\ninactive_file {GIB // 2}"
    )
    assert machine.detect().memory_available == 2.5 * GIB


def test_memory_high_is_a_limit_too(machine: Machine) -> None:
    machine.cgroup("0::/naila", V2)
    machine.write("sys/fs/cgroup/naila/memory.max", "max")
    machine.write("sys/fs/cgroup/naila/memory.high", 2 * GIB)
    machine.write("sys/fs/cgroup/naila/memory.current", GIB)
    assert (machine.detect().memory_limit, machine.detect().memory_available) == (2 * GIB, GIB)


def test_a_limit_above_what_the_machine_has_is_none(machine: Machine) -> None:
    machine.cgroup("0::/naila", V2)
    machine.write("sys/fs/cgroup/naila/memory.max", 64 * GIB)
    machine.write("sys/fs/cgroup/naila/memory.current", GIB)
    hardware = machine.detect()
    assert (hardware.memory_limit, hardware.memory_total, hardware.memory_available) == (None, 16 * GIB, 12 * GIB)


def test_more_used_than_allowed_leaves_nothing(machine: Machine) -> None:
    machine.cgroup("0::/naila", V2)
    machine.write("sys/fs/cgroup/naila/memory.max", GIB)
    machine.write("sys/fs/cgroup/naila/memory.current", 2 * GIB)
    assert machine.detect().memory_available == 0


def test_version_1_groups_each_in_its_tree(machine: Machine) -> None:
    machine.cpus(smt(8))
    machine.cgroup(
        "9:name=systemd:/\n4:memory:/robots/naila\n1:cpu,cpuacct:/robots/naila\n0::/",
        "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
        "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
    )
    for group, quota, limit in (("robots", 250_000, 6 * GIB), ("robots/naila", -1, 2**63 - 4096)):
        machine.write(f"sys/fs/cgroup/cpu,cpuacct/{group}/cpu.cfs_quota_us", quota)
        machine.write(f"sys/fs/cgroup/cpu,cpuacct/{group}/cpu.cfs_period_us", 100_000)
        machine.write(f"sys/fs/cgroup/memory/{group}/memory.limit_in_bytes", limit)
        machine.write(f"sys/fs/cgroup/memory/{group}/memory.usage_in_bytes", 5 * GIB)
        machine.write(
            f"sys/fs/cgroup/memory/{group}/memory.stat",
            f"active_file 1\ninactive_file 1\ntotal_active_file {GIB}\ntotal_inactive_file {GIB}",
        )
    hardware = machine.detect()
    assert hardware.cpu_quota == 2.5
    assert hardware.usable_cores == 2
    assert (hardware.memory_limit, hardware.memory_available) == (6 * GIB, 3 * GIB)


def test_a_container_sees_its_group_as_the_mount(machine: Machine) -> None:
    machine.cpus(smt(8))
    machine.cgroup(
        "4:memory:/docker/abc\n1:cpu:/docker/abc",
        "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu",
        "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory",
    )
    machine.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", 400_000)
    machine.write("sys/fs/cgroup/cpu/cpu.cfs_period_us", 100_000)
    machine.write("sys/fs/cgroup/memory/memory.limit_in_bytes", 2 * GIB)
    machine.write("sys/fs/cgroup/memory/memory.usage_in_bytes", GIB)
    hardware = machine.detect()
    assert (hardware.cpu_quota, hardware.memory_available) == (4, GIB)


@pytest.mark.parametrize("own", ["/", "/../../elsewhere", "/not/visible/here"])
def test_a_group_outside_the_namespace_falls_back_on_the_mount(machine: Machine, own: str) -> None:
    machine.cgroup(f"0::{own}", V2)
    machine.write("sys/fs/cgroup/memory.max", 2 * GIB)
    machine.write("sys/fs/cgroup/memory.current", GIB)
    assert machine.detect().memory_available == GIB


@pytest.mark.parametrize("text", ["", "max", "-1 100000", "x 100000", "100000 0", "1 2 3", "\N{SNOWMAN}", "²"])
def test_files_that_make_no_sense_limit_nothing(machine: Machine, text: str) -> None:
    machine.cpus(smt(8))
    machine.cgroup("0::/naila\nnonsense\n::", V2, "short line", "1 2 3 4 5 - x")
    for name in ("cpu.max", "memory.max", "memory.high", "memory.stat"):
        machine.write(f"sys/fs/cgroup/naila/{name}", text)
    hardware = machine.detect()
    assert (hardware.cpu_quota, hardware.memory_limit, hardware.memory_available) == (None, None, 12 * GIB)


def test_a_raspberry_pi_names_itself(machine: Machine) -> None:
    machine.cpus(["0", "1", "2", "3"])
    machine.write("proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0")
    hardware = machine.detect(machine="aarch64")
    assert (hardware.board, hardware.usable_cores) == ("Raspberry Pi 5 Model B Rev 1.0", 4)
    assert not hardware.gpu_shares_main_memory


def test_slow_cores_of_an_arm_processor_are_left_out_where_they_hold_up_the_fast(machine: Machine) -> None:
    machine.cpus([str(cpu) for cpu in range(8)])
    for cpu in range(8):
        machine.write(f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity", 1024 if cpu >= 4 else 414)
    assert (machine.detect().physical_cores, machine.detect().usable_cores) == (8, 4)
    for cpu in range(4):
        machine.write(f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity", 800)
    assert machine.detect().usable_cores == 8


def test_intels_efficient_cores_are_left_out(machine: Machine) -> None:
    machine.cpus(["0-1", "0-1", "2-3", "2-3", "4", "5", "6", "7"])
    machine.write("sys/devices/cpu_core/cpus", "0-3")
    machine.write("sys/devices/cpu_atom/cpus", "4-7")
    assert cores_of(machine.detect()) == (8, 6, 2)
    machine.write("proc/self/status", "Cpus_allowed_list:\t4-7")
    assert cores_of(machine.detect()) == (4, 4, 4)


def gpu(backend: str = "cuda", *, shared: bool = False) -> BuildInfo:
    device = GpuDevice(
        name="GPU0",
        description="a GPU",
        backend=backend,  # type: ignore[arg-type]
        free_bytes=6 * GIB,
        total_bytes=8 * GIB,
        shares_main_memory=shared,
    )
    return BuildInfo(version="0.3.36", gpus=(device,))


def test_which_gpus_share_main_memory(machine: Machine) -> None:
    assert not machine.detect(gpu()).gpu_shares_main_memory
    assert machine.detect(gpu(shared=True)).gpu_shares_main_memory
    assert machine.detect(gpu("metal")).gpu_shares_main_memory
    machine.write("proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0")
    assert machine.detect(gpu()).gpu_shares_main_memory
    assert not machine.detect().gpu_shares_main_memory


def test_a_mac_has_no_proc_and_is_still_described(tmp_path: Path) -> None:
    hardware = detect_hardware(gpu("metal"), root=tmp_path, system="Darwin", machine="arm64")
    assert hardware.is_macos
    assert hardware.logical_cpus >= hardware.physical_cores >= hardware.usable_cores >= 1
    assert hardware.memory_total >= hardware.memory_available > 0
    assert (hardware.cpu_quota, hardware.memory_limit, hardware.board) == (None, None, None)


def test_this_machine_is_described() -> None:
    hardware = detect_hardware(CPU_BUILD)
    assert hardware.logical_cpus >= hardware.physical_cores >= hardware.usable_cores >= 1
    assert hardware.memory_total >= hardware.memory_available > 0
    assert hardware.machine
