"""Learning what an unusual image is, from the features of the training and validation parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from sklearn.covariance import ledoit_wolf

from vitreous.errors import DataError, VitreousError
from vitreous.runs.decision import Beside, Strangeness, energies, log_distance

SMALLEST_VARIANCE = 1e-6
"""Variance that a direction is given at least, as a share of the mean variance, so that constant features stay finite."""
SMALLEST_DEVIATION = 1e-3
"""Deviation that each of the three numbers is given at least."""


def fit_strangeness(
    train_features: np.ndarray, train_labels: np.ndarray, val_features: np.ndarray, num_classes: int
) -> Strangeness:
    """Class means and one shared within-class covariance (Lee et al. 2018, arXiv:1807.03888, section 2.1).

    train_features: (n, d). train_labels: int (n,) in [0, num_classes). val_features: (m, d), m >= 1.
    The covariance is shrunk towards a multiple of the identity as Ledoit and Wolf 2004 prescribe, which keeps it usable
    with fewer images than features. Classes without a training image have no mean, so `means` may have fewer than
    `num_classes` rows. Raises DataError for an empty part, VitreousError for features that are not finite.
    """
    if len(train_features) == 0 or len(val_features) == 0:
        raise DataError("Strangeness needs at least one training and one validation image.")
    train, val = train_features.astype(np.float64), val_features.astype(np.float64)
    if not (np.isfinite(train).all() and np.isfinite(val).all()):
        raise VitreousError("The model's features are not finite.", "Train again with a lower --optim.lr.")
    assert train_labels.min() >= 0 and train_labels.max() < num_classes
    centre = train.mean(axis=0)
    present, index = np.unique(train_labels, return_inverse=True)
    sums = np.zeros((len(present), train.shape[1]))
    np.add.at(sums, index, train)
    means = sums / np.bincount(index)[:, None]
    whitening = _whitening(train - means[index], train - centre, degrees=len(train) - len(present))
    fitted = Strangeness(
        means=((means - centre) @ whitening).astype(np.float32),
        whitening=whitening.astype(np.float32),
        centre=centre.astype(np.float32),
        reference=np.empty(0, np.float32),
    )
    return replace(fitted, reference=np.sort(fitted.distances(val)).astype(np.float32))


def with_looks(
    fitted: Strangeness,
    train_looks: np.ndarray,
    val_looks: np.ndarray,
    val_features: np.ndarray,
    val_logits: np.ndarray,
) -> Strangeness:
    """A fitted strangeness that also knows how images usually look and how sure the logits usually are.

    train_looks: (n, s) of `inputs.looks`; the others of the m validation images.
    """
    own = fit_strangeness(train_looks, np.zeros(len(train_looks), np.int64), val_looks, 1)
    distances, energy = fitted.distances(val_features), energies(val_logits)
    voices = np.stack([log_distance(distances), log_distance(own.distances(val_looks)), energy], axis=1)
    spread = np.maximum(voices.std(axis=0), SMALLEST_DEVIATION)
    beside = Beside(own, np.stack([voices.mean(axis=0), spread], axis=1), np.empty(0, np.float32))
    reference = np.sort(beside.largest(distances, val_looks, energy)).astype(np.float32)
    return replace(fitted, beside=replace(beside, reference=reference))


def _whitening(within: np.ndarray, overall: np.ndarray, degrees: int) -> np.ndarray:
    """(d, d) matrix that maps residuals (n, d) to unit covariance. One image a class leaves no residuals within classes;
    then the spread over all images stands in, and where that is nothing either, the identity."""
    num_features = within.shape[1]
    for residuals, freedom in ((within, degrees), (overall, len(overall) - 1)):
        if freedom > 0 and (residuals**2).mean() > 1e-20:
            covariance = ledoit_wolf(residuals, assume_centered=True)[0] * (len(residuals) / freedom)
            values, vectors = np.linalg.eigh(covariance)
            return vectors / np.sqrt(np.maximum(values, SMALLEST_VARIANCE * values.mean()))
    return np.eye(num_features)
