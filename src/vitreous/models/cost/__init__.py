"""What a model costs, counted and not looked up: parameters, multiply-accumulates, activation memory."""

from vitreous.models.cost.macs import (
    ATTENTION,
    ResolutionPoint,
    count_macs,
    count_parameters,
    curve_sizes,
    resolution_curve,
    vit_macs,
)

__all__ = [
    "ATTENTION",
    "ResolutionPoint",
    "count_macs",
    "count_parameters",
    "curve_sizes",
    "resolution_curve",
    "vit_macs",
]
