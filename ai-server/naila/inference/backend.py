"""The llama.cpp library itself: its log, what it was built for, and the GPUs that it sees."""

from __future__ import annotations

import ctypes
import logging
import threading
from typing import Final, Literal

import llama_cpp
from llama_cpp._ggml import libggml

from naila.ports import BuildInfo, GpuDevice

_log = logging.getLogger("naila.llama_cpp")

_ERROR: Final = 4
_CONTINUE: Final = 5
_INTEGRATED: Final = 2  # GGML_BACKEND_DEVICE_TYPE_IGPU
_GPU_TYPES: Final = (1, _INTEGRATED)


class _NativeLog:
    """Receives llama.cpp's log lines: all of them are DEBUG here, and the last errors explain what failed.

    It calls an error what we asked for, such as an aborted decode, so its own levels are not passed on.

    Called from whichever native thread speaks, so a line is put together for each thread.
    """

    def __init__(self) -> None:
        self._parts = threading.local()
        self._lock = threading.Lock()
        self._errors: list[str] = []

    def __call__(self, level: int, text: bytes | None, _user_data: object) -> None:
        if level != _CONTINUE:
            self._parts.level = level
            self._parts.text = ""
        current = getattr(self._parts, "text", "") + (text or b"").decode("utf-8", errors="replace")
        self._parts.text = current
        if current.endswith("\n"):
            self._parts.text = ""
            self._emit(getattr(self._parts, "level", 0), current.strip())

    def _emit(self, level: int, line: str) -> None:
        if level == _ERROR and line:
            with self._lock:
                self._errors = [*self._errors[-4:], line]
        _log.debug("%s", line)

    def take_errors(self) -> str:
        """Return and forget the last error lines, as one."""
        with self._lock:
            errors, self._errors = self._errors, []
        return "; ".join(errors)


native_log: Final = _NativeLog()
# ctypes keeps no reference to a callback: this module must.
_log_callback: Final = llama_cpp.llama_log_callback(native_log)
llama_cpp.llama_log_set(_log_callback, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


def build_info() -> BuildInfo:
    """Say what the llama.cpp at hand was built for and which GPUs it can use now."""
    system = llama_cpp.llama_print_system_info().decode("utf-8", errors="replace")
    features = [part.strip().split(":")[-1].strip() for part in system.split("|") if part.strip().endswith("= 1")]
    return BuildInfo(
        version=llama_cpp.__version__,
        cpu_features=tuple(feature.removesuffix("= 1").strip() for feature in features),
        gpus=_gpus(),
        supports_mmap=bool(llama_cpp.llama_supports_mmap()),
    )


def _gpus() -> tuple[GpuDevice, ...]:
    if not llama_cpp.llama_supports_gpu_offload():
        return ()
    libggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    libggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    for name in ("ggml_backend_dev_name", "ggml_backend_dev_description"):
        function = getattr(libggml, name)
        function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    libggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    libggml.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, *[ctypes.POINTER(ctypes.c_size_t)] * 2]
    libggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    found = (_gpu(libggml.ggml_backend_dev_get(index)) for index in range(libggml.ggml_backend_dev_count()))
    return tuple(gpu for gpu in found if gpu is not None)


def _gpu(device: int) -> GpuDevice | None:
    kind = libggml.ggml_backend_dev_type(device)
    if kind not in _GPU_TYPES:
        return None
    name = libggml.ggml_backend_dev_name(device).decode("utf-8", errors="replace")
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    libggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
    return GpuDevice(
        name=name,
        description=libggml.ggml_backend_dev_description(device).decode("utf-8", errors="replace"),
        backend=_backend(name),
        free_bytes=free.value,
        total_bytes=total.value,
        shares_main_memory=kind == _INTEGRATED or _backend(name) == "metal",
    )


def _backend(device_name: str) -> Literal["cuda", "metal", "vulkan"]:
    lowered = device_name.lower()
    if lowered.startswith(("metal", "mtl")):
        return "metal"
    return "vulkan" if lowered.startswith("vulkan") else "cuda"
