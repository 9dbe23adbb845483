"""Plans for machines that people have, and what holds for every plan."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naila.errors import ModelTooLargeError
from naila.ports import BuildInfo, GpuDevice, ModelHeader
from naila.server.engine_plan import EngineOverrides, plan_engine
from naila.utils.hardware_detection import Hardware

MIB = 2**20
GIB = 2**30
SMOLLM2 = ModelHeader(
    path=Path("smol.gguf"),
    name="SmolLM2 135M",
    architecture="llama",
    file_bytes=98_362_432,
    n_layers=30,
    n_ctx_train=8192,
    n_embd=576,
    n_heads=9,
    n_kv_heads=3,
    head_dim_k=64,
    head_dim_v=64,
    n_vocab=49_152,
)
LLAMA_8B = ModelHeader(
    path=Path("8b.gguf"),
    name="Llama 3.1 8B",
    architecture="llama",
    file_bytes=4_920_739_232,
    n_layers=32,
    n_ctx_train=131_072,
    n_embd=4096,
    n_heads=32,
    n_kv_heads=8,
    head_dim_k=128,
    head_dim_v=128,
    n_vocab=128_256,
)


def gpu(
    free: int, total: int, backend: Literal["cuda", "metal", "vulkan"] = "cuda", *, shared: bool = False
) -> GpuDevice:
    return GpuDevice(
        name="GPU0",
        description="Test GPU",
        backend=backend,
        free_bytes=free,
        total_bytes=total,
        shares_main_memory=shared,
    )


def machine(
    *,
    cores: int = 4,
    logical: int | None = None,
    fast: int | None = None,
    quota: float | None = None,
    available: int = 12 * GIB,
    limit: int | None = None,
    gpus: tuple[GpuDevice, ...] = (),
    mmap: bool = True,
    board: str | None = None,
    features: tuple[str, ...] = ("AVX2",),
) -> Hardware:
    return Hardware(
        system="Linux",
        machine="x86_64",
        board=board,
        logical_cpus=logical or cores,
        physical_cores=cores,
        fast_cores=fast or cores,
        cpu_quota=quota,
        memory_total=limit or available + GIB,
        memory_available=available,
        memory_limit=limit,
        build=BuildInfo(version="0.3.36", cpu_features=features, gpus=gpus, supports_mmap=mmap),
    )


@pytest.mark.parametrize(
    ("hardware", "threads", "batch_threads"),
    [
        (machine(cores=1), 1, 1),
        (machine(cores=2), 2, 2),
        (machine(cores=3), 3, 3),
        (machine(cores=4), 3, 4),
        (machine(cores=8, logical=16), 7, 8),
        (machine(cores=8, logical=16, quota=1.5), 1, 1),
        (machine(cores=8, quota=0.2), 1, 1),
        (machine(cores=8, quota=6.5), 5, 6),
        (machine(cores=8, fast=4), 3, 4),
    ],
)
def test_threads_follow_the_cores(hardware: Hardware, threads: int, batch_threads: int) -> None:
    plan = plan_engine(SMOLLM2, hardware)
    assert (plan.n_threads, plan.n_threads_batch) == (threads, batch_threads)


def test_the_reasons_say_what_decided() -> None:
    reasons = plan_engine(SMOLLM2, machine(cores=8, logical=16, fast=6, quota=1.5)).reasons
    made = {"threads", "batch_threads", "gpu_layers", "context", "cells", "batch", "mmap", "repack", "memory"}
    assert set(reasons) == made
    assert reasons["threads"] == (
        "8 physical cores may be used (of 16 logical CPUs; hyper-threads do not help), 6 of them fast, "
        "the control group's quota grants 1.5"
    )
    assert reasons["gpu_layers"] == "this llama.cpp sees no GPU"
    assert reasons["memory"] == (
        "877 MB of the 12.9 GB free; in all 98 MB weights, 755 MB KV cache and 23 MB for computing"
    )
    assert reasons["cells"] == "8 whole contexts, in all conversations together"
    assert "less one for everything else" in plan_engine(SMOLLM2, machine(cores=4)).reasons["threads"]


def test_the_estimate_agrees_with_what_llama_cpp_logs() -> None:
    # llama.cpp's log for this file with 4096 cells and steps of 63: 92.10 + 90.00 + 12.16 + 9.00 MiB
    plan = plan_engine(SMOLLM2, machine(), EngineOverrides(n_cells=4096))
    assert 203.26 * MIB <= plan.needed_bytes <= 1.1 * 203.26 * MIB


def test_the_kv_cache_holds_eight_contexts_where_they_fit_and_fewer_where_not() -> None:
    assert plan_engine(SMOLLM2, machine()).n_cells == 8 * 4096
    assert plan_engine(LLAMA_8B, machine(available=7_400_000_000)).n_cells == 3 * 4096
    assert plan_engine(LLAMA_8B, machine(available=6_200_000_000)).n_cells == 4096


def test_kv_cells_that_were_set_are_taken_or_refused() -> None:
    plan = plan_engine(SMOLLM2, machine(), EngineOverrides(n_cells=10_000))
    assert (plan.n_cells, plan.reasons["cells"]) == (10_000, "set by LLM_KV_CELLS")
    assert plan_engine(SMOLLM2, machine(), EngineOverrides(n_cells=300)).n_cells == 4096
    with pytest.raises(ModelTooLargeError):
        plan_engine(LLAMA_8B, machine(), EngineOverrides(n_cells=1_000_000))


def test_threads_that_were_set_are_taken() -> None:
    plan = plan_engine(SMOLLM2, machine(cores=2), EngineOverrides(n_threads=6))
    assert (plan.n_threads, plan.n_threads_batch) == (6, 6)
    assert plan.reasons["threads"] == "set by LLM_THREADS; slow, for there are 2 CPUs"
    plan = plan_engine(SMOLLM2, machine(cores=2), EngineOverrides(n_threads=1))
    assert plan.reasons["batch_threads"] == "set by LLM_THREADS"


def test_a_raspberry_pi_5_with_8_gb_runs_the_8b_model() -> None:
    plan = plan_engine(LLAMA_8B, machine(cores=4, available=7_400_000_000))
    assert (plan.n_threads, plan.n_threads_batch, plan.n_gpu_layers, plan.acceleration) == (3, 4, 0, "cpu")
    assert (plan.n_ctx, plan.n_batch, plan.use_mmap) == (4096, 63, True)
    assert plan.needed_bytes < 6_660_000_000


def test_a_busy_raspberry_pi_gets_a_smaller_context() -> None:
    plan = plan_engine(LLAMA_8B, machine(available=5_900_000_000))
    assert 768 <= plan.n_ctx < 4096
    assert plan.n_ctx % 256 == 0
    assert "less than 4096, so that its KV cache fits in memory" in plan.reasons["context"]


def test_a_machine_that_is_too_small_is_told_what_to_take() -> None:
    with pytest.raises(ModelTooLargeError) as error:
        plan_engine(LLAMA_8B, machine(available=4 * GIB))
    assert error.value.path == LLAMA_8B.path
    assert error.value.needed > error.value.available == 4 * GIB
    assert str(error.value) == (
        "Llama 3.1 8B needs 5.5 GB of memory even with a context of 768 tokens (429 MB of it to stay free), and there "
        "are 4.3 GB: take a smaller model (llama-3.2-3b, tinyllama-1.1b, smollm2-135m) or free some memory"
    )
    with pytest.raises(ModelTooLargeError, match=r"take a smaller model, raise the control group's memory limit or"):
        plan_engine(SMOLLM2, machine(available=200 * MIB, limit=300 * MIB))
    with pytest.raises(ModelTooLargeError):
        plan_engine(SMOLLM2, machine(available=0))


def test_a_laptop_with_a_gpu_of_6_gb_takes_the_8b_model_in_part_or_whole() -> None:
    laptop = machine(cores=8, logical=16, available=12 * GIB, gpus=(gpu(5 * GIB, 6 * GIB),))
    plan = plan_engine(LLAMA_8B, laptop)
    assert 20 <= plan.n_gpu_layers < 33
    assert plan.acceleration == "cuda"
    assert plan.use_mmap
    assert plan.needed_bytes < 2_500_000_000
    assert f"{plan.n_gpu_layers} of 33 fit in 5.1 GB of Test GPU" in plan.reasons["gpu_layers"]
    assert "on the GPU" in plan.reasons["memory"]
    assert plan_engine(LLAMA_8B, machine(gpus=(gpu(8 * GIB, 8 * GIB),))).n_gpu_layers == 33
    assert plan_engine(SMOLLM2, laptop).reasons["gpu_layers"].startswith("all: ")


def test_the_layers_fit_the_share_beside_a_simulation() -> None:
    share = EngineOverrides(gpu_memory_share=0.15)
    before = plan_engine(LLAMA_8B, machine(gpus=(gpu(24 * GIB, 24 * GIB),)), share)
    assert 0 < before.n_gpu_layers < 33
    # The simulation has taken the rest: the share is of the whole, not of what is left.
    after = plan_engine(LLAMA_8B, machine(gpus=(gpu(4 * GIB, 24 * GIB),)), share)
    assert after.n_gpu_layers == before.n_gpu_layers
    crowded = plan_engine(LLAMA_8B, machine(gpus=(gpu(300 * MIB, 24 * GIB),)), share)
    assert (crowded.n_gpu_layers, crowded.acceleration) == (0, "cpu")
    assert crowded.reasons["gpu_layers"].startswith("not one layer fits in ")


def test_several_gpus_share_the_layers() -> None:
    pair = machine(gpus=(gpu(4 * GIB, 4 * GIB), gpu(4 * GIB, 4 * GIB)))
    assert plan_engine(LLAMA_8B, pair).n_gpu_layers == 33


def test_an_integrated_gpu_beside_another_is_not_counted() -> None:
    alone = plan_engine(LLAMA_8B, machine(gpus=(gpu(4 * GIB, 4 * GIB),)))
    integrated = gpu(12 * GIB, 16 * GIB, "vulkan", shared=True)
    assert plan_engine(LLAMA_8B, machine(gpus=(integrated, gpu(4 * GIB, 4 * GIB)))) == alone


def test_a_model_too_large_for_main_memory_fits_with_the_gpus_help() -> None:
    plan = plan_engine(LLAMA_8B, machine(available=3 * GIB, gpus=(gpu(8 * GIB, 8 * GIB),)))
    assert (plan.n_gpu_layers, plan.n_ctx) == (33, 4096)


def test_metal_takes_all_layers_and_counts_them_in_main_memory() -> None:
    mac = machine(cores=8, available=12 * GIB, gpus=(gpu(10 * GIB, 11 * GIB, "metal"),))
    plan = plan_engine(LLAMA_8B, mac)
    assert (plan.n_gpu_layers, plan.acceleration, plan.use_mmap) == (33, "metal", True)
    assert plan.needed_bytes > LLAMA_8B.file_bytes
    with pytest.raises(ModelTooLargeError):
        plan_engine(LLAMA_8B, machine(available=4 * GIB, gpus=(gpu(10 * GIB, 11 * GIB, "metal"),)))


def test_a_jetson_does_not_count_its_memory_twice() -> None:
    orin = {"cores": 6, "board": "NVIDIA Jetson Orin Nano Developer Kit"}
    plan = plan_engine(SMOLLM2, machine(available=6 * GIB, gpus=(gpu(6 * GIB, 8 * GIB),), **orin))  # type: ignore[arg-type]
    assert (plan.n_gpu_layers, plan.use_mmap, plan.acceleration) == (31, False, "cuda")
    assert plan.reasons["mmap"].startswith("off: the GPU shares main memory")
    with pytest.raises(ModelTooLargeError):
        plan_engine(LLAMA_8B, machine(available=5 * GIB, gpus=(gpu(7 * GIB, 8 * GIB),), **orin))  # type: ignore[arg-type]


@pytest.mark.parametrize(("wish", "layers"), [(-1, 33), (0, 0), (5, 5), (33, 33), (200, 33)])
def test_gpu_layers_that_were_set_are_taken(wish: int, layers: int) -> None:
    plan = plan_engine(LLAMA_8B, machine(gpus=(gpu(8 * GIB, 8 * GIB),)), EngineOverrides(n_gpu_layers=wish))
    assert plan.n_gpu_layers == layers
    assert plan.reasons["gpu_layers"] == "set by LLM_GPU_LAYERS"


def test_gpu_layers_beyond_the_share_are_taken_and_said() -> None:
    overrides = EngineOverrides(n_gpu_layers=-1, gpu_memory_share=0.15)
    plan = plan_engine(LLAMA_8B, machine(gpus=(gpu(24 * GIB, 24 * GIB),)), overrides)
    assert plan.n_gpu_layers == 33
    assert "more than LLM_GPU_MEMORY_SHARE leaves (3.9 GB)" in plan.reasons["gpu_layers"]


def test_gpu_layers_that_cannot_fit_are_an_error() -> None:
    with pytest.raises(ModelTooLargeError, match="set LLM_GPU_LAYERS lower or to auto") as error:
        plan_engine(LLAMA_8B, machine(gpus=(gpu(2 * GIB, 8 * GIB),)), EngineOverrides(n_gpu_layers=33))
    assert error.value.needed > error.value.available


def test_gpu_layers_without_a_gpu_have_no_effect_and_say_so() -> None:
    plan = plan_engine(SMOLLM2, machine(), EngineOverrides(n_gpu_layers=20))
    assert plan.n_gpu_layers == 0
    assert plan.reasons["gpu_layers"] == "LLM_GPU_LAYERS=20 has no effect: this llama.cpp sees no GPU"


def test_the_context_is_no_larger_than_the_training_one() -> None:
    plan = plan_engine(SMOLLM2, machine(), EngineOverrides(n_ctx=32_768))
    assert plan.n_ctx == 8192
    assert plan.reasons["context"] == "LLM_CONTEXT_SIZE=32768 is more than the 8192 that the model was trained with"
    plan = plan_engine(SMOLLM2, machine(), EngineOverrides(n_ctx=32_768, max_tokens=10_000))
    assert plan.reasons["context"].endswith("LLM_MAX_TOKENS=10000 cannot be reached: set it lower")


def test_a_step_on_a_processor_is_small() -> None:
    plan = plan_engine(SMOLLM2, machine(), EngineOverrides(n_ctx=300, n_batch=2048, max_tokens=100))
    assert (plan.n_ctx, plan.n_batch) == (300, 63)
    assert plan.reasons["batch"].startswith("fewer than 64 on a processor")


def test_without_support_nothing_is_mapped() -> None:
    plan = plan_engine(SMOLLM2, machine(mmap=False))
    assert not plan.use_mmap
    assert plan.reasons["mmap"] == "off: this llama.cpp cannot map files"


VNNI = ("AVX2", "AVX512_VNNI")


@pytest.mark.parametrize(
    ("weights", "hardware", "repack"),
    [
        ("Q4_K", machine(features=VNNI), False),
        ("Q6_K", machine(features=VNNI), False),
        ("Q4_0", machine(features=VNNI), True),
        ("Q4_K", machine(), True),
        ("Q4_K", machine(features=(*VNNI, "AMX_INT8")), True),
        ("Q4_K", machine(features=("NEON", "MATMUL_INT8")), True),
        ("Q4_K", machine(features=VNNI, gpus=(gpu(8 * GIB, 8 * GIB),)), True),
        ("", machine(features=VNNI), True),
    ],
)
def test_k_quants_stay_as_they_are_where_tiled_kernels_read_them(
    weights: str, hardware: Hardware, repack: bool
) -> None:
    assert plan_engine(replace(LLAMA_8B, weight_type=weights), hardware).repack is repack


@pytest.mark.parametrize("wish", ["on", "off"])
def test_repacking_that_was_set_is_done(wish: Literal["on", "off"]) -> None:
    for hardware in (machine(), machine(features=VNNI)):
        plan = plan_engine(replace(LLAMA_8B, weight_type="Q4_K"), hardware, EngineOverrides(repack=wish))
        assert plan.repack is (wish == "on")
        assert plan.reasons["repack"] == "set by LLM_REPACK"


gpus = st.builds(
    gpu,
    st.integers(0, 48 * GIB),
    st.integers(1, 48 * GIB),
    st.sampled_from(["cuda", "metal", "vulkan"]),
    shared=st.booleans(),
)
machines = st.builds(
    machine,
    cores=st.integers(1, 128),
    quota=st.none() | st.floats(0.01, 256),
    available=st.integers(0, 32 * GIB),
    gpus=st.lists(gpus, max_size=2).map(tuple),
    mmap=st.booleans(),
)
wishes = st.builds(
    EngineOverrides,
    n_threads=st.none() | st.integers(1, 256),
    n_gpu_layers=st.none() | st.integers(-1, 100),
    n_ctx=st.integers(256, 131_072),
    n_batch=st.integers(1, 4096),
    max_tokens=st.integers(1, 255),
    gpu_memory_share=st.floats(0.01, 1),
)


@given(st.sampled_from([SMOLLM2, LLAMA_8B]), machines, wishes)
def test_every_plan_fits_and_makes_sense(header: ModelHeader, hardware: Hardware, wish: EngineOverrides) -> None:
    try:
        plan = plan_engine(header, hardware, wish)
    except ModelTooLargeError as error:
        assert error.needed > error.available  # noqa: PT017 - refusing is as right as a plan here
        return
    assert plan.needed_bytes <= hardware.memory_available - 256 * MIB
    assert plan.available_bytes == hardware.memory_available
    assert min(512, wish.n_ctx) <= plan.n_ctx <= min(wish.n_ctx, header.n_ctx_train)
    assert plan.n_ctx > wish.max_tokens
    assert 1 <= plan.n_batch <= plan.n_ctx
    assert 1 <= plan.n_threads <= plan.n_threads_batch
    assert 0 <= plan.n_gpu_layers <= header.n_layers + 1
    assert (plan.acceleration == "cpu") == (plan.n_gpu_layers == 0)
    assert all(plan.reasons.values())
    if wish.n_threads is None and hardware.cpu_quota is not None:
        assert plan.n_threads <= max(1, hardware.cpu_quota)
    if wish.n_gpu_layers is None and plan.n_gpu_layers:
        weights = header.file_bytes * plan.n_gpu_layers // (header.n_layers + 1)
        assert weights < sum(
            min(each.free_bytes, each.total_bytes * wish.gpu_memory_share) for each in hardware.build.gpus
        )


@given(st.integers(1 * GIB, 16 * GIB), st.integers(0, 4 * GIB))
def test_more_memory_never_gives_less_context(available: int, more: int) -> None:
    def context(size: int) -> int:
        try:
            return plan_engine(LLAMA_8B, machine(available=size), EngineOverrides(n_ctx=32_768)).n_ctx
        except ModelTooLargeError:
            return 0

    assert context(available + more) >= context(available)
