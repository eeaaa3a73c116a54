"""Why vitreous computes as it does on a CPU: matrix products, attention, and waiting threads.

    .venv/bin/python benchmarks/attention_paths.py

Candidates take turns in one process with one thread, processor time counted; medians and spread of the rounds are
printed and written to results/. The last
part runs one training step in processes of its own, alone and beside a process that keeps one core busy.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

import torch
import torch.nn.functional as F
from record import write
from timing import interleaved

from vitreous.engines.cpu import fast_matmul, medium_is_exact

ROUNDS = 9
REPEATS = 1
STEP = """
import statistics, time, torch
from vitreous.models import architecture, build
model = build(architecture("vit_micro", num_classes=10, image_size=16, in_chans=1))
images, times = torch.randn(64, 1, 16, 16), []
for _ in range(8):
    begin = time.perf_counter()
    model(images).sum().backward()
    times.append(time.perf_counter() - begin)
print(statistics.median(times[2:]))
"""


def matrix_products() -> dict[str, dict[str, float]]:
    """fp32, 1576 x 768 by 768 x 3072: the first MLP layer of ViT-B for 8 images."""
    a, b = torch.randn(1576, 768), torch.randn(768, 3072)

    def fast() -> None:
        with fast_matmul():
            torch.matmul(a, b)

    return interleaved({"default": lambda: a @ b, "onednn": fast}, ROUNDS)


def attention(tokens: int) -> dict[str, dict[str, float]]:
    """Forward and backward, 16 images, 3 heads of 64, under the fast products as in training."""
    q, k, v = (torch.randn(16, 3, tokens, 64, requires_grad=True) for _ in range(3))

    def fused() -> None:
        with fast_matmul():
            F.scaled_dot_product_attention(q, k, v).sum().backward()

    def plain() -> None:
        with fast_matmul():
            (((q * 0.125) @ k.transpose(-2, -1)).softmax(-1) @ v).sum().backward()

    return interleaved({"fused": fused, "plain": plain}, ROUNDS)


POLICIES = {
    "spinning": {"OMP_WAIT_POLICY": "ACTIVE"},
    "sleeping": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spinning briefly": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"},
}
"""How OpenMP's threads may wait; the last is what the command line sets."""


def waiting(beside_a_busy_process: bool) -> dict[str, float]:
    """Milliseconds of a training step of vit_micro with two threads, processes taken in turn."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if beside_a_busy_process else None
    try:
        found: dict[str, list[float]] = {name: [] for name in POLICIES}
        for _ in range(REPEATS):
            for name, policy in POLICIES.items():
                output = subprocess.run(
                    [sys.executable, "-c", STEP], env={**os.environ, **policy}, capture_output=True, check=True
                )
                found[name].append(1000 * float(output.stdout))
    finally:
        if busy is not None:
            busy.kill()
            busy.wait()
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    torch.set_num_threads(1)
    facts = {
        "matrix_product_ms": matrix_products(),
        "onednn_is_exact": medium_is_exact(),
        "attention_ms": {str(tokens): attention(tokens) for tokens in (17, 65, 197, 577)},
        "step_ms": {"alone": waiting(False), "beside a busy process": waiting(True)},
    }
    path = write("attention_paths", facts)
    product = facts["matrix_product_ms"]
    print(
        f"matrix product: oneDNN {product['default']['median'] / product['onednn']['median']:.2f} x as fast as the default"
    )
    for tokens, found in facts["attention_ms"].items():
        ratio = found["fused"]["median"] / found["plain"]["median"]
        print(f"attention, {tokens} tokens: plain {ratio:.2f} x as fast as fused")
    for place, times in facts["step_ms"].items():
        print(f"a step {place}: " + ", ".join(f"{value:.0f} ms {name}" for name, value in times.items()))
    print(path)


if __name__ == "__main__":
    main()
