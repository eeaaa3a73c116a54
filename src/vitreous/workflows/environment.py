"""What this machine and installation have: versions, devices, memory, extras, engines."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import Any

from vitreous.engines.onnxruntime import available_cores
from vitreous.errors import MissingExtraError
from vitreous.serving.run import PACKAGES as SERVE_PACKAGES

EXTRAS: dict[str, tuple[str, ...]] = {
    "train": ("torch", "torchvision", "timm", "einops", "safetensors", "scipy", "sklearn", "matplotlib"),
    "serve": SERVE_PACKAGES,
    "export": ("onnx", "onnxscript"),
    "track": ("tensorboard", "mlflow"),
}
"""Import names behind each extra."""

_DISTRIBUTIONS = (
    "vitreous", "numpy", "pillow", "pyarrow", "onnxruntime", "torch", "torchvision", "timm", "onnx", "fastapi",
)  # fmt: skip


CONTROL_GROUP = Path("/sys/fs/cgroup")
"""Where Linux tells a container its limits."""


def require(what: str, *extras: str) -> None:
    """Raise MissingExtraError, naming the line to type, when a package of these extras is absent. Imports nothing."""
    for extra in extras:
        for package in EXTRAS[extra]:
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError(what, extra, package)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages whose numbers may change a result."""
    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def available_memory() -> int:
    """Bytes of memory that can be taken without swapping, or before a container's limit; 4 GiB where the system does not say."""
    found = [*_free_of_machine(), *_free_of_container()]
    return min(found, default=4 * 2**30)


def free_memory(device: str) -> int:
    """Bytes that can be taken on a device; a GPU's own for CUDA."""
    if device != "cuda":
        return available_memory()
    import torch

    return torch.cuda.mem_get_info()[0]


def _free_of_machine() -> list[int]:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return [int(line.split()[1]) * 1024]
    return []


def _free_of_container() -> list[int]:
    """What the limit of a control group leaves, version 2 or 1. Pages of files that can be dropped count as free."""
    for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        folder = CONTROL_GROUP if limit == "memory.max" else CONTROL_GROUP / "memory"
        with contextlib.suppress(OSError, ValueError):
            most = int((folder / limit).read_text(encoding="utf-8"))  # "max" is no number: there is no limit
            statistics = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
            droppable = [int(line.split()[1]) for line in statistics if line.startswith("inactive_file ")]
            return [max(0, most - int((folder / used).read_text(encoding="utf-8")) + sum(droppable))]
    return []


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def default_device() -> str:
    """cuda or mps where torch finds one, else cpu."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def describe() -> dict[str, Any]:
    """What `vitreous doctor` reports: `versions`, `devices`, `extras`, `engines` and the fast paths in use."""
    extras = {
        name: {"installed": not missing, "missing": missing}
        for name, packages in EXTRAS.items()
        if (missing := [package for package in packages if importlib.util.find_spec(package) is None]) is not None
    }
    devices: list[dict[str, Any]] = [
        {
            "name": "cpu",
            "processor": processor(),
            "cores": available_cores(),
            "memory_available_bytes": available_memory(),
        }
    ]
    engines: list[dict[str, Any]] = [{"name": "onnxruntime", "works": _onnxruntime_works()}]
    fast_paths: dict[str, Any] = {"omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "not set")}
    if extras["train"]["installed"]:
        import torch

        from vitreous.engines.cpu import cpu_has_fast_bf16, cpu_path, medium_is_exact

        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            devices.append({"name": f"cuda:{index}", "processor": facts.name, "memory_total_bytes": facts.total_memory})
        path, packs = cpu_path(), _packing_works()
        works = {"eager": True, "packed": packs, "packed-bf16": packs and path.bf16}
        fast_paths |= {
            "cpu": path.reason,
            "onednn_fp32_exact": medium_is_exact(),
            "bf16_in_hardware": cpu_has_fast_bf16(),
        }
    else:
        works = dict.fromkeys(("eager", "packed", "packed-bf16"), False)
    engines += [{"name": name, "works": answer} for name, answer in works.items()]
    return {
        "versions": versions(),
        "system": platform.platform(),
        "devices": devices,
        "extras": extras,
        "engines": engines,
        "fast_paths": fast_paths,
    }


def _packing_works() -> bool:
    """Whether torch has the operators that the packed engine rests on."""
    from vitreous.models.packed import operators

    try:
        operators()
    except RuntimeError:
        return False
    return True


def _onnxruntime_works() -> bool:
    try:
        import onnxruntime

        return "CPUExecutionProvider" in onnxruntime.get_available_providers()
    except ImportError:
        return False
