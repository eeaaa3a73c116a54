"""Look inside a Vision Transformer: tokens, attention of every layer and head, and rollout.

.venv/bin/python examples/attention_maps.py
"""

from __future__ import annotations

import torch

from vitreous import VisionTransformer
from vitreous.explanation.rollout import rollout


def main() -> None:
    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=224, patch_size=16, num_classes=10, embed_dim=192, depth=12, num_heads=3
    ).eval()
    images = torch.randn(2, 3, 224, 224)

    tokens, attention = model.forward_features(images, attention=True)
    print(f"tokens {tuple(tokens.shape)}: {model.num_prefix_tokens} before the first of {model.grid_size} patches")
    print(f"attention: {len(attention)} layers of {tuple(attention[0].shape)} (images, heads, tokens, tokens)")

    flow = rollout(torch.stack(attention))
    from_class_token = flow[:, 0, model.num_prefix_tokens :].reshape(2, *model.grid_size)
    print(f"rollout from [CLS] to the patch grid: {tuple(from_class_token.shape)}, adding up to at most 1")

    logits = model(images)  # without the list nothing is kept, and the result is the same
    assert torch.allclose(logits, model.head(model.pool(tokens)), atol=1e-5)


if __name__ == "__main__":
    main()
