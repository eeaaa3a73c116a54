"""Train on the embedded digits for a few epochs, then ask the model about one of them.

    .venv/bin/python examples/train_and_predict.py

A real data set goes where "digits" stands: a folder of class folders, or a CSV or Parquet manifest.
"""

from __future__ import annotations

import sys

import vitreous
from vitreous.data import load_source


def main(epochs: int = 3, out: str = "runs/example") -> None:
    classifier = vitreous.train("digits", epochs=epochs, out=out, overwrite=True)
    digit = load_source("digits").open(0)  # an array; a path, a Pillow image or a tensor do as well
    answer = classifier.predict(digit)[0]
    print(f"{answer.label} ({answer.score:.0%}), strangeness {answer.ood:.2f}, abstains: {answer.abstain}")
    explanation = classifier.explain(digit)
    explanation.overlay.save(f"{out}/why.png")
    print(f"why: {out}/why.png, by {explanation.method}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
