"""The probe's parts against scikit-learn and against what they stand for."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.neighbors import KNeighborsClassifier

from vitreous.engines.eager import EagerEngine
from vitreous.models import VisionTransformer
from vitreous.models.head import put_linear
from vitreous.training.probe import features as features_module
from vitreous.training.probe.closed_form import closed_form
from vitreous.training.probe.components import components
from vitreous.training.probe.features import features_of
from vitreous.training.probe.fit import FINE, STRENGTHS, fit_probe
from vitreous.training.probe.logistic import fit_logistic
from vitreous.training.probe.neighbours import neighbours_say
from vitreous.training.probe.ridge import left_out, ridge_path

CLASSES = 4


def made(n: int, d: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated features far from 0 (n, d), one of them constant, and classes that overlap (n,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (n,), generator=generator)
    centres = torch.randn(CLASSES, d, generator=generator)
    turn = torch.linalg.qr(torch.randn(d, d, generator=generator))[0]
    spread = 3 * (torch.arange(d) + 1).float() ** -0.5
    features = ((0.4 * centres[labels] + torch.randn(n, d, generator=generator)) * spread) @ turn
    features = features + 5 * torch.randn(d, generator=generator)
    features[:, 0] = 2.0
    return features, labels


def loss_of(
    weight: Any,
    bias: Any,
    plain: torch.Tensor,
    labels: torch.Tensor,
    strength: float,
    weights: torch.Tensor | None = None,
) -> float:
    weight, bias = torch.as_tensor(weight).double(), torch.as_tensor(bias).double()
    each = F.cross_entropy(plain.double() @ weight.T + bias, labels, reduction="none")
    mean = each.mean() if weights is None else (each * weights / weights.sum()).sum()
    return float(mean) + strength / 2 * float(weight.square().sum())


@pytest.mark.parametrize(("n", "d"), [(300, 20), (40, 90)], ids=["more images", "more features"])
def test_components_are_a_turn_of_the_standardised_features(n: int, d: int) -> None:
    features, _ = made(n, d)
    found = components(features)
    plain = found.standardise(features)

    assert found.deviation[0] == 1 and (plain[:, 0] == 0).all()
    torch.testing.assert_close(plain[:, 1:].mean(0), torch.zeros(d - 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(plain[:, 1:].std(0, correction=0), torch.ones(d - 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.scores @ found.axes.float().T, plain, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.turn(features), found.scores, atol=1e-4, rtol=0)
    covariance = (found.scores.T @ found.scores / n).double()
    torch.testing.assert_close(covariance, torch.diag(found.variances), atol=1e-4, rtol=0)


def test_the_covariance_of_many_images_is_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = made(3000, 16)
    exact = components(features)
    monkeypatch.setattr("vitreous.training.probe.components.EXACT_WORK", 0)
    torch.testing.assert_close(components(features).variances, exact.variances, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrong", [torch.tensor([[1.0, math.nan]]), torch.tensor([[math.inf, 0.0]])])
def test_features_that_are_not_finite_are_refused(wrong: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="not finite"):
        components(wrong)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n", "d"), [(300, 20), (40, 90)], ids=["more images", "more features"])
def test_every_ridge_of_the_path_is_scikit_learns(n: int, d: int, weighted: bool) -> None:
    features, labels = made(n, d)
    weights = torch.rand(n, generator=torch.Generator().manual_seed(1)).double() + 0.1 if weighted else None
    found = components(features, weights)
    targets = F.one_hot(labels, CLASSES).double()
    strengths = (1e-3, 0.1, 10.0)
    path = ridge_path(found, targets, strengths)

    plain = ((features.double() - found.mean) / found.deviation).numpy()
    for index, strength in enumerate(strengths):
        theirs = Ridge(alpha=strength * n).fit(plain, targets.numpy(), sample_weight=found.weights.numpy())
        mine = path.weights[index] @ found.axes.T
        torch.testing.assert_close(mine, torch.from_numpy(theirs.coef_), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(path.bias, torch.from_numpy(theirs.intercept_), rtol=1e-4, atol=1e-5)


def test_what_fits_without_an_image_say_is_what_they_say_when_they_are_made() -> None:
    features, labels = made(30, 6)
    found = components(features)
    targets = F.one_hot(labels, CLASSES).double()
    path = ridge_path(found, targets, (0.05,))
    said = left_out(path, found, targets, 0)

    plain = found.standardise(features).double().numpy()
    for image in (0, 7, 29):
        rest = np.delete(np.arange(30), image)
        theirs = Ridge(alpha=0.05 * 30).fit(plain[rest], targets.numpy()[rest])
        np.testing.assert_allclose(said[image], theirs.predict(plain[image : image + 1])[0], atol=1e-4)


def test_the_strength_with_the_least_leave_one_out_error_is_the_one_of_ridge_cv() -> None:
    features, labels = made(200, 60)
    found = components(features)
    targets = F.one_hot(labels, CLASSES).double()
    path = ridge_path(found, targets)
    theirs = RidgeCV(alphas=[each * 200 for each in path.strengths]).fit(
        found.standardise(features).double().numpy(), targets.numpy()
    )

    assert len(path.strengths) == 45
    assert path.strengths[path.best] * 200 == pytest.approx(theirs.alpha_)
    assert float(path.errors[path.best]) == pytest.approx(-float(theirs.best_score_ or 0), rel=1e-4)


@pytest.mark.parametrize("strength", [1e-1, 1e-3, 1e-5])
@pytest.mark.parametrize(("n", "d"), [(600, 24), (60, 90)], ids=["more images", "more features"])
def test_the_logistic_optimum_is_scikit_learns_to_one_in_a_hundred_thousand(n: int, d: int, strength: float) -> None:
    features, labels = made(n, d)
    found = components(features)
    mine = fit_logistic(found, labels, CLASSES, strength, tolerance=FINE)
    plain = found.standardise(features)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs = LogisticRegression(C=1 / (strength * n), tol=1e-10, max_iter=20_000).fit(
            plain.double().numpy(), labels.numpy()
        )
    best = loss_of(theirs.coef_, theirs.intercept_, plain, labels, strength)

    assert mine.converged
    assert loss_of(mine.weight @ found.axes.T, mine.bias, plain, labels, strength) == pytest.approx(best, rel=1e-5)
    assert mine.loss == pytest.approx(best, rel=1e-5)


def test_weights_of_images_mean_what_they_mean_to_scikit_learn() -> None:
    features, labels = made(400, 12)
    weights = torch.rand(400, generator=torch.Generator().manual_seed(1)).double() * 3
    found = components(features, weights)
    mine = fit_logistic(found, labels, CLASSES, 1e-3)
    plain = found.standardise(features)
    theirs = LogisticRegression(C=1 / 1e-3 / float(weights.sum()), tol=1e-9, max_iter=5000).fit(
        plain.double().numpy(), labels.numpy(), sample_weight=weights.numpy()
    )
    assert mine.loss == pytest.approx(loss_of(theirs.coef_, theirs.intercept_, plain, labels, 1e-3, weights), rel=1e-5)


def test_the_same_optimum_is_reached_from_another_start_and_with_classes_that_never_occur() -> None:
    features, labels = made(300, 12)
    found = components(features)
    cold = fit_logistic(found, labels, CLASSES + 1, 1e-3)
    far = torch.full((CLASSES + 1, found.scores.shape[1]), 3.0).double()
    warm = fit_logistic(
        found, labels, CLASSES + 1, 1e-3, start=(far * torch.arange(5)[:, None], torch.arange(5).double())
    )
    assert warm.loss == pytest.approx(cold.loss, rel=1e-5)


def test_a_prior_in_fitting_raises_the_rare_class_afterwards() -> None:
    features, labels = made(800, 12)
    kept = (labels != 3) | (torch.arange(800) % 12 == 0)
    features, labels = features[kept], labels[kept]
    found = components(features)
    counts = torch.bincount(labels, minlength=CLASSES).double()
    plain = fit_logistic(found, labels, CLASSES, 1e-3)
    adjusted = fit_logistic(found, labels, CLASSES, 1e-3, prior=(counts / counts.sum()).log())

    def recall(fitted: Any) -> float:
        said = (found.scores.double() @ fitted.weight.T + fitted.bias).argmax(1)
        return float((said == labels)[labels == 3].double().mean())

    assert recall(adjusted) > recall(plain)


def test_the_closed_form_is_right_as_often_as_leaving_one_out_says_and_bears_noise() -> None:
    features, labels = made(500, 30)
    new, wanted = made(500, 30, seed=0)
    found = components(features[:250], centred_scale=False)
    plain = closed_form(found, labels[:250], CLASSES)
    steady = closed_form(found, labels[:250], CLASSES, noise=0.5)
    weight, bias = found.unfold(plain.weight, plain.bias)
    logits = new[250:].double() @ weight.T + bias

    accuracy = float((logits.argmax(1) == wanted[250:]).double().mean())
    assert accuracy == pytest.approx(plain.accuracy, abs=0.08) and accuracy > 0.6
    assert float(F.cross_entropy(logits, wanted[250:])) < math.log(CLASSES)
    assert steady.strength > 0.5 >= plain.strength


def test_neighbours_vote_as_scikit_learns_do() -> None:
    features, labels = made(300, 10)
    known, asked = F.normalize(features[:200], dim=1), F.normalize(features[200:], dim=1)

    def weigh(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances**2 / 2) / 0.07)  # of unit vectors

    votes: Any = weigh
    theirs = KNeighborsClassifier(20, weights=votes).fit(known.numpy(), labels[:200].numpy()).predict(asked.numpy())
    mine = neighbours_say(features[:200], labels[:200], features[200:], CLASSES)
    assert (mine.numpy() == theirs).mean() == 1


def test_the_probe_keeps_the_strength_that_validates_best_and_answers_in_the_features_own_units() -> None:
    features, labels = made(500, 60)
    seen: list[float] = []
    probe = fit_probe(
        features[:120],
        labels[:120],
        CLASSES,
        features[120:],
        lambda logits: float(F.cross_entropy(logits, labels[120:])),
        record=lambda step: seen.append(step.val_loss),
    )
    assert seen == [step.val_loss for step in probe.path] and len(seen) < len(STRENGTHS)
    best = min(probe.path, key=lambda step: step.val_loss)
    assert probe.strength == best.strength
    logits = features[120:].double() @ probe.weight.T + probe.bias
    assert float(F.cross_entropy(logits, labels[120:])) == pytest.approx(best.val_loss, rel=1e-3)


def test_features_are_computed_once_for_each_body_and_set_of_images(problem: Any, tmp_path: Path) -> None:
    model = problem.state().model.eval()
    digests = [f"{index}" for index in range(len(problem.store))]
    engine = Counting(model)

    def ask(network: torch.nn.Module = model, names: list[str] = digests) -> np.ndarray:
        return features_of(network, {"num_classes": 10}, engine, problem.store, names, folder=tmp_path)

    first = ask()
    images = engine.images
    assert (ask() == first).all() and engine.images == images + 1  # one image, for the width
    with torch.no_grad():
        put_linear(model, torch.ones(10, 24), torch.zeros(10))  # features do not depend on the head
    assert (ask() == first).all() and engine.images == images + 2
    assert ask(names=digests[::-1]).shape == first.shape and engine.images > images + 50
    assert len(list((tmp_path / features_module.FOLDER).glob("*.npy"))) == 2


def test_features_without_a_place_to_keep_them_are_computed_all_the_same(problem: Any, tmp_path: Path) -> None:
    model = problem.state().model.eval()
    (tmp_path / "file").write_text("")
    kept = features_of(model, {}, EagerEngine(model), problem.store, ["x"] * 60, folder=tmp_path)
    bare = features_of(model, {}, EagerEngine(model), problem.store, ["x"] * 60, folder=tmp_path / "file")
    assert (kept == bare).all()


class Counting(EagerEngine):
    """Counts the images it is given."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model)
        self.images = 0

    def predict(self, batch: np.ndarray) -> Any:
        self.images += len(batch)
        return super().predict(batch)


def test_a_distilled_models_two_classifiers_answer_together_what_one_would() -> None:
    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=8,
        patch_size=4,
        in_chans=1,
        num_classes=3,
        embed_dim=8,
        depth=1,
        num_heads=2,
        distillation_token=True,
    ).eval()
    weight, bias = torch.randn(3, 16), torch.randn(3)
    put_linear(model, weight, bias)
    features = torch.randn(5, 16)
    torch.testing.assert_close(model.head(features), features @ weight.T + bias)
