"""The model as plain PyTorch runs it: the reference every other engine must agree with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vitreous.engines.cpu import fast_matmul
from vitreous.engines.protocol import Outputs

if TYPE_CHECKING:
    from torch import nn


class EagerEngine:
    """float32 forward passes of a module that has `forward_features`, `pool` and `head`."""

    name = "eager"

    def __init__(self, model: nn.Module, device: str = "cpu", *, fast: bool = False) -> None:
        """fast: on a CPU, matrix products through oneDNN where that is exact. It is off in the engine `eager`, since a
        reference should be what three lines of anybody's script compute, to the bit; speed is the engine `packed`'s
        business, and this the step between where packing does not work.
        """
        self.model = model.eval().to(device)
        self.device = device
        self.fast = fast and device == "cpu"

    def predict(self, batch: np.ndarray) -> Outputs:
        import torch

        with torch.inference_mode(), fast_matmul(self.fast):
            images = torch.from_numpy(np.ascontiguousarray(batch)).to(self.device)
            features = self.model.pool(self.model.forward_features(images))  # type: ignore[operator]
            logits = self.model.head(features)  # type: ignore[operator]
        return Outputs(logits.float().cpu().numpy(), features.float().cpu().numpy())
