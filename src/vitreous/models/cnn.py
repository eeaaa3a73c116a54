"""Convolutional baselines through timm, behind the interface of our own model."""

from __future__ import annotations

from typing import Any

import timm
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn


class ConvNet(nn.Module):
    """A timm classifier that offers `forward_features`, `pool` and `head`, as `VisionTransformer` does."""

    def __init__(
        self,
        *,
        name: str,
        num_classes: int,
        in_chans: int = 3,
        small_stem: bool = False,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        """small_stem: for ResNets, no pooling after the first layer, and that a 3x3 convolution of stride 1, the field's
        usual change for images of up to 64 pixels (`resnet_micro` has a stem of 3x3 convolutions and keeps it).
        """
        super().__init__()
        options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_chans, "drop_rate": dropout}
        if drop_path:
            options["drop_path_rate"] = drop_path
        if name == "resnet_micro":
            body: Any = ResNet(
                BasicBlock,  # type: ignore[arg-type]
                layers=(1, 1, 1, 1),
                channels=(64, 96, 96, 128),
                stem_type="deep",
                stem_width=16,
                **options,
            )
        else:
            body = timm.create_model(name, **options)
        if small_stem and isinstance(body, ResNet):
            first = body.conv1
            if isinstance(first, nn.Conv2d):
                body.conv1 = nn.Conv2d(in_chans, first.out_channels, kernel_size=3, stride=1, padding=1, bias=False)
                nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")
            body.maxpool = nn.Identity()
        self.body: Any = body

    def forward(self, images: Tensor) -> Tensor:
        """images (b, c, h, w) -> logits (b, k)."""
        return self.body(images)

    def forward_features(self, images: Tensor) -> Tensor:
        """images (b, c, h, w) -> the last feature map (b, d, gh, gw)."""
        return self.body.forward_features(images)

    def pool(self, maps: Tensor) -> Tensor:
        """maps (b, d, gh, gw) -> features (b, d)."""
        return self.body.forward_head(maps, pre_logits=True)

    def head(self, features: Tensor) -> Tensor:
        """features (b, d) -> logits (b, k)."""
        return self.body.get_classifier()(features)
