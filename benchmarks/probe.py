"""Logistic regression on features: ours and scikit-learn's, to the same loss, in one process.

    python benchmarks/probe.py --images 50000 --features 768 --rounds 1

Features are made, not computed: correlated as those of a trained model, their variances falling off as a power, with classes
that overlap. scikit-learn gets what our own fit has standardised, in fp32 and in fp64; its solvers' tolerances are the
loosest of a decade that reach our loss within 1e-5, found beforehand. Ours includes standardising and the principal
components. One thread, processor time: steady where others use the machine too.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from record import write
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from timing import interleaved, milliseconds

from vitreous.engines.cpu import fast_matmul
from vitreous.training.probe.components import components
from vitreous.training.probe.fit import fit_probe
from vitreous.training.probe.logistic import fit_logistic
from vitreous.training.probe.ridge import ridge_path

CLASSES = 10
STRENGTHS = (1e-3, 1e-5)
CLOSE = 1e-5
SOLVERS = (("lbfgs", np.float64), ("lbfgs", np.float32), ("newton-cg", np.float64), ("newton-cg", np.float32))
CHOLESKY_UP_TO = 2000
"""Weights up to which `newton-cholesky` is tried too: its Hessian has the square of them, and forming it n times that."""


def make(images: int, features: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (n, d) and class numbers (n,)."""
    generator = torch.Generator().manual_seed(seed)
    rank = torch.arange(features)
    turn = torch.linalg.qr(torch.randn(features, features, generator=generator))[0]
    labels = torch.randint(0, CLASSES, (images,), generator=generator)
    centres = 0.7 * torch.randn(CLASSES, features, generator=generator) * torch.exp(-rank / 30)
    noise = torch.randn(images, features, generator=generator)
    spread = 5 * (rank + 1).float() ** -0.6
    return ((noise + centres[labels]) * spread) @ turn + torch.randn(features, generator=generator), labels


def loss_of(weight: Any, bias: Any, plain: torch.Tensor, labels: torch.Tensor, strength: float) -> float:
    """In fp64: mean cross-entropy plus strength / 2 |weight|^2."""
    weight, bias = torch.as_tensor(weight).double(), torch.as_tensor(bias).double()
    total = 0.0
    for rows, wanted in zip(plain.split(8192), labels.split(8192), strict=True):
        total += float(F.cross_entropy(rows.double() @ weight.T + bias, wanted, reduction="sum"))
    return total / len(labels) + strength / 2 * float(weight.square().sum())


def theirs(plain: np.ndarray, labels: np.ndarray, strength: float, solver: str, tolerance: float) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=1 / (strength * len(labels)), solver=solver, tol=tolerance, max_iter=3000)
        return model.fit(plain, labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--features", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--solvers", default="all", help="all, or some of lbfgs, newton-cg, newton-cholesky")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    features, labels = make(given.images, given.features)
    with fast_matmul():
        found = components(features)
    plain = found.standardise(features)
    arrays = {kind: plain.numpy().astype(kind) for kind in (np.float32, np.float64)}
    solvers = list(SOLVERS)
    if CLASSES * (given.features + 1) <= CHOLESKY_UP_TO:
        solvers.append(("newton-cholesky", np.float64))
    solvers = [each for each in solvers if given.solvers == "all" or each[0] in given.solvers]
    facts: dict[str, Any] = {
        "images": given.images,
        "features": given.features,
        "classes": CLASSES,
        "threads": given.threads,
    }

    for strength in STRENGTHS:

        def ours(strength: float = strength) -> Any:
            with fast_matmul():
                base = components(features)
                fitted = fit_logistic(base, labels, CLASSES, strength)
                return fitted.weight @ base.axes.T, fitted.bias, fitted.iterations

        weight, bias, iterations = ours()
        reached = loss_of(weight, bias, plain, labels, strength)
        rows: dict[str, Any] = {"ours": {"loss": reached, "iterations": iterations}}
        candidates: dict[str, Callable[[], object]] = {"ours": ours}
        for solver, kind in solvers:
            name = f"scikit-learn {solver} {np.dtype(kind).name}"
            for tolerance in (1e-3, 1e-4, 1e-5, 1e-6):
                model = theirs(arrays[kind], labels.numpy(), strength, solver, tolerance)
                value = loss_of(model.coef_, model.intercept_, plain, labels, strength)
                if value <= reached * (1 + CLOSE):
                    break
            rows[name] = {"loss": value, "tolerance": tolerance, "iterations": int(model.n_iter_[0])}

            def fit(
                kind: Any = kind, solver: str = solver, tol: float = tolerance, strength: float = strength
            ) -> object:
                return theirs(arrays[kind], labels.numpy(), strength, solver, tol)

            candidates[name] = fit
        for name, times in interleaved(candidates, given.rounds).items():
            rows[name]["milliseconds"] = times
        least = min(row["loss"] for row in rows.values())
        mine = rows["ours"]["milliseconds"]["median"]
        print(f"strength {strength:g}")
        for name, row in rows.items():
            row["above_least"] = row["loss"] / least - 1
            took = row["milliseconds"]["median"]
            print(
                f"  {name:34s} {took / 1000:8.2f} s  {took / mine:6.1f}x  {row['iterations']:5d} iterations  loss "
                f"{row['loss']:.8f} (+{row['above_least']:.1e})"
            )
        facts[f"strength {strength:g}"] = rows

    half = len(labels) * 9 // 10

    def whole() -> object:
        with fast_matmul():
            return fit_probe(
                features[:half],
                labels[:half],
                CLASSES,
                features[half:],
                lambda logits: float(F.cross_entropy(logits, labels[half:])),
            )

    def ridge() -> object:
        with fast_matmul():
            return ridge_path(components(features), F.one_hot(labels, CLASSES))

    facts["whole_probe_ms"], facts["components_and_45_ridges_ms"] = milliseconds(whole), milliseconds(ridge)
    print(f"components and 45 ridge regressions {facts['components_and_45_ridges_ms'] / 1000:.2f} s")
    print(f"whole probe: ridge path, logistic path, choice, last fit {facts['whole_probe_ms'] / 1000:.2f} s")
    write(f"probe_{given.images}x{given.features}", facts)


if __name__ == "__main__":
    main()
