"""A second reference, written independently of timm: torchvision's Vision Transformer."""

from __future__ import annotations

import re

import torch
from einops import rearrange
from torch import Tensor
from torchvision.models import VisionTransformer as TorchvisionViT

from vitreous.models import VisionTransformer

NAMES = (
    (r"^conv_proj\.", "patch_embedding.projection."),
    (r"^encoder\.pos_embedding$", "position_embedding"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_1\.", ".attention_norm."),
    (r"\.ln_2\.", ".mlp_norm."),
    (r"\.self_attention\.in_proj_", ".attention.qkv."),
    (r"\.self_attention\.out_proj\.", ".attention.projection."),
    (r"\.mlp\.0\.", ".mlp.expand."),
    (r"\.mlp\.3\.", ".mlp.contract."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
)


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, value in state.items():
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        found[name] = rearrange(value, "d c ph pw -> d (c ph pw)") if value.ndim == 4 else value
    return found


def test_logits_and_attention_equal_torchvisions() -> None:
    torch.manual_seed(0)
    theirs = TorchvisionViT(
        image_size=32, patch_size=8, num_layers=2, num_heads=3, hidden_dim=48, mlp_dim=96, num_classes=5
    ).eval()
    ours = VisionTransformer(
        image_size=32, patch_size=8, depth=2, num_heads=3, embed_dim=48, mlp_ratio=2, num_classes=5
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours.load_state_dict(renamed(dict(theirs.state_dict())))
    images = torch.randn(2, 3, 32, 32)
    assert (ours(images) - theirs(images)).detach().abs().max() <= 1e-5

    # torch's own attention layer can name its probabilities: the first block's, from the same tokens.
    tokens = ours.embed(images)
    block = theirs.encoder.layers[0]
    x = block.ln_1(tokens)  # type: ignore[operator, union-attr]
    _, expected = block.self_attention(x, x, x, need_weights=True, average_attn_weights=False)  # type: ignore[operator, union-attr]
    collected: list[Tensor] = []
    ours.forward_features(images, collected)
    torch.testing.assert_close(collected[0], expected, atol=1e-6, rtol=1e-5)
