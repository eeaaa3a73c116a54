"""Whether a heat map tells the truth about its model: deletion and insertion curves, next to those of chance. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from vitreous.explanation.masking import Predict, masked_scores


@dataclass(frozen=True)
class Faithfulness:
    """Areas under the curves of the target's probability, in [0, 1]."""

    deletion: float
    """While cells are hidden, the most important first. Lower is better: the map found what the model needs."""
    insertion: float
    """While cells are shown, the most important first. Higher is better: what the map found is enough."""
    random_deletion: float
    """Deletion of random orders, the mean of several: what knowing nothing scores."""
    random_insertion: float
    """Insertion of the same random orders."""

    @property
    def beats_random(self) -> bool:
        """False where the map is no better than chance in both ways."""
        return self.deletion < self.random_deletion or self.insertion > self.random_insertion

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def measure(
    predict: Predict,
    image: np.ndarray,
    heatmap: np.ndarray,
    target: int,
    *,
    steps: int = 14,
    orders: int = 5,
    seed: int = 0,
) -> Faithfulness:
    """Deletion and insertion (Petsiuk, Das and Saenko 2018, arXiv:1806.07421, section 4.1), cell by cell of the map.

    image: prepared, float32 (c, h, w); heatmap: (gh, gw), larger is more important.
    steps: points of a curve after the first, at most; orders: random orders that stand for chance.

    Where the paper starts insertion from a blurred image and deletes to a flat one, both curves run here between
    the image and its mean color: a blur that hides an object in a photograph hides nothing in an image of eight pixels,
    and with common ends the two areas can be read against each other.
    """
    generator = np.random.default_rng(seed)
    cells = heatmap.size
    # Equal values (a flat map above all) fall in random order, not from the top left.
    ranking = np.lexsort((generator.permutation(cells), -heatmap.ravel().astype(np.float64)))
    rankings = np.stack([ranking, *(generator.permutation(cells) for _ in range(orders))])
    counts = np.unique(np.linspace(0, cells, min(steps, cells) + 1).round().astype(int))

    inner = counts[1:-1]
    chosen = np.stack([_first(ranking, count) for ranking in rankings for count in inner]) if len(inner) else None
    whole = np.ones((1, cells), bool)
    masks = [whole, ~whole] if chosen is None else [whole, ~whole, ~chosen, chosen]
    scores = masked_scores(predict, image, np.concatenate(masks).reshape(-1, *heatmap.shape), target)

    full, empty = scores[:2]
    deleted, inserted = scores[2:].reshape(2, len(rankings), len(inner))
    share = counts / cells
    deletions = [_area(share, np.concatenate([[full], curve, [empty]])) for curve in deleted]
    insertions = [_area(share, np.concatenate([[empty], curve, [full]])) for curve in inserted]
    return Faithfulness(
        deletion=deletions[0],
        insertion=insertions[0],
        random_deletion=float(np.mean(deletions[1:])),
        random_insertion=float(np.mean(insertions[1:])),
    )


def _first(ranking: np.ndarray, count: int) -> np.ndarray:
    """bool (cells,): the first `count` cells of a ranking."""
    chosen = np.zeros(len(ranking), bool)
    chosen[ranking[:count]] = True
    return chosen


def _area(share: np.ndarray, scores: np.ndarray) -> float:
    """Trapezoid rule over shares of the cells, from 0 to 1."""
    return float(np.trapezoid(scores, share))
