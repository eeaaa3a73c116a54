"""Has the model learned anything at all?"""

from __future__ import annotations

from vitreous.evaluation.evaluate import PartResult
from vitreous.evaluation.words import metric_range, percent


def chance_note(val: PartResult) -> str:
    """Where validation cannot tell the model from guessing, the sentence that says so; empty elsewhere.

    Judged by balanced accuracy, which guessing brings to one over the number of classes however unequal they are.
    """
    found = val.metrics.get("balanced_accuracy")
    classes = sum(row["support"] > 0 for row in val.per_class.values())
    if found is None or found["low"] is None or classes < 2 or found["low"] > 1 / classes:
        return ""
    return (
        f"Validation cannot tell this model from guessing: balanced accuracy {percent(found['value'])} "
        f"({metric_range('balanced_accuracy', found)}), and guessing gives {percent(1 / classes)}. More time or images, published "
        "weights (--init timm:NAME) or a convolutional model (--model resnet18) may help."
    )
