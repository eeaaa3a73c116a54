"""`vitreous doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vitreous.cli.output import Console
from vitreous.cli.parse import Common, parse

DESCRIPTION = "What this machine and installation have, and which engines and fast paths work here."


@dataclass(frozen=True, kw_only=True)
class DoctorArguments(Common):
    pass


def run(arguments: Sequence[str], console: Console) -> int:
    parse(DoctorArguments, arguments, "doctor", DESCRIPTION)
    from vitreous.workflows.environment import describe

    found = describe()
    lines = [found["system"], ""]
    lines += [f"{name:<12} {version}" for name, version in found["versions"].items()]
    lines.append("")
    for device in found["devices"]:
        memory = device.get("memory_available_bytes") or device.get("memory_total_bytes", 0)
        cores = f", {device['cores']} cores" if "cores" in device else ""
        lines.append(f"{device['name']:<12} {device['processor']}{cores}, {memory / 2**30:.1f} GiB of memory")
    lines.append("")
    for name, extra in found["extras"].items():
        state = (
            "installed"
            if extra["installed"]
            else f"missing {', '.join(extra['missing'])}: pip install 'vitreous[{name}]'"
        )
        lines.append(f"extra {name:<6} {state}")
    lines += [
        f"engine {engine['name']:<12} {'works' if engine['works'] else 'not here'}" for engine in found["engines"]
    ]
    lines.append("")
    lines += [f"{name.replace('_', ' '):<22} {value}" for name, value in found["fast_paths"].items()]
    lines.append("VITREOUS_CPU=plain in the environment turns the fast paths of a CPU off.")
    console.result(found, "\n".join(lines))
    return 0
