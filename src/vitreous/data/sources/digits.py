"""The embedded data set: scikit-learn's copy of the UCI handwritten digits. No file to fetch, no network."""

from __future__ import annotations

from typing import Any

import numpy as np

from vitreous.data.sources.source import Listing, Sample
from vitreous.errors import MissingExtraError


def read_digits() -> Listing:
    """1,797 grey images of 8 x 8 pixels, classes "0" to "9". Raises MissingExtraError without scikit-learn.

    The source counts 0 to 16 dark pixels in each cell; here 16 becomes 255.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("The embedded digits", "train", "scikit-learn") from error
    bunch: Any = load_digits()
    images = np.rint(np.asarray(bunch["images"]) * (255 / 16)).astype(np.uint8)  # (1797, 8, 8)
    samples = [Sample(f"digits#{row}", str(label), None, None) for row, label in enumerate(bunch["target"])]
    return Listing(
        name="digits",
        kind="digits",
        root="",
        samples=samples,
        classes=[str(digit) for digit in range(10)],
        notes=["The embedded digits: 1,797 grey images of 8 x 8 pixels from scikit-learn."],
        reader=lambda index: images[index],
    )
