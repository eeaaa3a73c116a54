"""Activation memory of a Vision Transformer in closed form. `models.activations` says what counts, counts it and measures it.

Written for b images of n tokens of width d, h heads, a hidden layer of width m and numbers of s bytes. Three sizes make up
nearly everything: T = b n d s, one tensor of all tokens; M = b n m s, one hidden layer; A = b h n^2 s, one set of attention
scores. What autograd keeps of each operation for the backward pass, and so what a block holds:

    norm        its input and, for each token, mean and reciprocal deviation. Its output is not its own to keep, but the
                linear layer behind it does: the gradient of W in y = x W needs x. Twice in a block             4 T
                RMSNorm on a CPU is a product of several operations and keeps x / rms(x) as well              + 2 T
    q, k, v     plain: scaled queries, keys and values, laid out head by head as the products need them         3 T
                (for one image keys and values stay views of the linear layer's output, beside the scaled
                queries: 4 T). A softmax keeps its output, of which the product with the values needs the
                same; its input, the scores, is let go                                                        + A
                fused: the linear layer's output, and one number for each row of scores                         3 T
                normed or rotated queries and keys are tensors of their own beside that output                + 2 T
    projection  its input, the mixed values                                                                       T
    MLP         GELU keeps its input, the contracting layer its own                                             2 M
                gated: gate and value (2 M), the activated gate, their product                                  4 M
    LayerScale  what it scales, on each branch                                                                + 2 T
    residual    a sum keeps nothing, and stochastic depth one number for each image

With m = 4 d that is 16 T + A for a block of the plain model. Before the blocks the first layer keeps the patches; after them
the last norm keeps its input, and a head that reads [CLS] keeps all of the output that it is a view of. With checkpointing a
block keeps only its input, T, and all of the above is there for one block at a time.

The highest moment of training comes early in the backward pass: with all that was kept, the gradient of the last block's
output, T, and the gradient of its hidden layer, M; or, where A is large, both gradients of its softmax, 2 A. In inference it
is either the MLP (the block's input, the sum so far, its norm, and the hidden layer before and after GELU: 3 T + 2 M), or
attention when the softmax has read its scores but not let go of them (5 T + 2 A). Options add to each as the code says.

All of it is said of the block as `models.layers.block` writes it. Training on a CPU (`models.layers.fused_cpu`) keeps no more of a
block, and less of the last one where [CLS] alone is read, so that there these numbers are an upper bound.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch

from vitreous.models.cost.activations import ActivationMemory
from vitreous.models.cost.numbers import ViTNumbers
from vitreous.models.layers import attention

STATISTIC = 4
"""Bytes of a mean, a reciprocal deviation or an angle, which are float32 whatever the activations are."""

INDEX = 8
"""Bytes of the place of a maximum."""


def outside_closed_form(vit: ViTNumbers) -> str:
    """The first option of a model that the closed form leaves out, or "" where it covers the model."""
    if vit.block != "pre_norm":
        return f"block={vit.block!r}"
    if vit.differential:
        return "differential attention"
    return vit.dropout[0] if vit.dropout else ""


def runs_fused(vit: ViTNumbers, device: str = "cpu") -> bool:
    """Whether the model, as torch is set now, computes fp32 attention in one kernel, not as two products and a softmax."""
    return device != "cpu" or not attention.plain_is_faster(torch.empty(1, 1, vit.num_tokens, 1, device="cpu"))


def vit_memory(
    vit: ViTNumbers,
    batch: int,
    *,
    device: str = "cpu",
    fused: bool | None = None,
    fused_in_training: bool | None = None,
    element_size: int = 4,
) -> ActivationMemory:
    """The activation memory of a model that `outside_closed_form` has nothing against.

    fused: whether attention is; as `runs_fused` finds it when None. fused_in_training: the same as `fused` when None.
    element_size: bytes of a number.
    """
    assert not outside_closed_form(vit)
    fused = runs_fused(vit, device) if fused is None else fused
    in_training = fused if fused_in_training is None else fused_in_training
    pieces = _Pieces(vit, batch, in_training, device, element_size)
    return ActivationMemory(
        inference=_inference(_Pieces(vit, batch, fused, device, element_size)),
        training=_training(pieces, checkpointing=False),
        training_checkpointed=_training(pieces, checkpointing=True),
        saved=sum(saved_by_part(vit, batch, device=device, fused=in_training, element_size=element_size).values()),
        saved_checkpointed=_before(pieces) + vit.depth * pieces.token + _after(pieces),
    )


def saved_by_part(
    vit: ViTNumbers, batch: int, *, device: str = "cpu", fused: bool | None = None, element_size: int = 4
) -> dict[str, int]:
    """What autograd keeps, by part of the model, without checkpointing: bytes that add up to `ActivationMemory.saved`."""
    pieces = _Pieces(vit, batch, runs_fused(vit, device) if fused is None else fused, device, element_size)
    block = {"block inputs": pieces.token, **_attention(pieces), **_mlp(pieces)}
    blocks = {name: vit.depth * size for name, size in block.items() if size}
    return {"first layer": _before(pieces), **blocks, "read-out": _after(pieces)}


@dataclass(frozen=True)
class _Pieces:
    """Bytes of the tensors that a pass is made of, for one batch."""

    vit: ViTNumbers
    batch: int
    fused: bool
    device: str
    size: int

    @property
    def token(self) -> int:
        """All tokens, (b, n, d): T."""
        return self.batch * self.vit.num_tokens * self.vit.embed_dim * self.size

    @property
    def patch(self) -> int:
        """The tokens of the patches alone."""
        return self.batch * self.vit.num_patches * self.vit.embed_dim * self.size

    @property
    def pixels(self) -> int:
        """The images cut into patches."""
        return self.batch * self.vit.in_chans * math.prod(self.vit.image_size) * self.size

    @property
    def hidden(self) -> int:
        """What the contracting layer of an MLP reads, (b, n, m): M."""
        return self.batch * self.vit.num_tokens * self.vit.hidden_dim * self.size

    @property
    def expanded(self) -> int:
        """What the expanding layer returns, twice as wide for a gated MLP."""
        return self.hidden * (2 if self.vit.gated else 1)

    @property
    def scores(self) -> int:
        """Attention scores or probabilities, (b, heads, n, n): A."""
        return self.batch * self.vit.num_heads * self.vit.num_tokens**2 * self.size

    @property
    def pooled(self) -> int:
        """The tokens that are pooled."""
        return self.batch * (self.vit.num_tokens - self.vit.pool_first) * self.vit.embed_dim * self.size

    @property
    def rows(self) -> int:
        """One float32 number for each token."""
        return self.batch * self.vit.num_tokens * STATISTIC

    @property
    def turned(self) -> bool:
        """Whether queries and keys are tensors of their own and not views of what the linear layer returned."""
        return self.vit.qk_norm or self.vit.rope != "none"

    @property
    def copied(self) -> bool:
        """Whether a view that lies token by token must be copied for a product head by head: not for a single image."""
        return self.batch > 1

    @property
    def split(self) -> bool:
        """Whether a norm is several operations: RMSNorm where torch has no kernel for it."""
        return self.vit.norm == "rms" and self.device != "cuda"

    def kept_by_norm(self, tensor: int, rows: int) -> int:
        """Besides its input. tensor: bytes of the input. rows: bytes of one float32 number for each row of it."""
        if self.vit.norm == "layer":
            return 2 * rows
        return rows + (tensor if self.split else 0)


def _before(p: _Pieces) -> int:
    """Kept before the first block."""
    vit = p.vit
    if vit.stem == "conv":
        # Each convolution's output, its norm's and its activation's; the last projects and is kept by what follows.
        kept = 3 * sum(_stem_maps(p)[:-1])
    elif vit.stem == "pooled":
        # The image in another layout; each convolution's output, which of four was largest, and what passed on; the last
        # is kept by what follows.
        kept = p.pixels + sum(output + output // 4 + output // 4 // p.size * INDEX for output in _stem_maps(p)[:-1])
    elif vit.stem == "shifted":
        kept = 2 * 5 * p.pixels + 2 * p.batch * vit.num_patches * STATISTIC
    else:
        kept = p.pixels
        if vit.patch_norm:
            kept += p.patch + p.kept_by_norm(p.patch, p.batch * vit.num_patches * STATISTIC)
    if vit.input_norm:
        kept += p.token + p.kept_by_norm(p.token, p.rows)
    return kept + _angles(p)


def _angles(p: _Pieces) -> int:
    """Of rotary positions: cos and sin for all layers, or, learned for each layer and head, with the angles themselves."""
    table = p.vit.num_tokens * p.vit.embed_dim // p.vit.num_heads // 2 * STATISTIC
    return {"none": 0, "axial": 2 * table, "mixed": 3 * table * p.vit.depth * p.vit.num_heads}[p.vit.rope]


def _attention(p: _Pieces) -> dict[str, int]:
    """Kept by the first branch of a block, besides the block's input."""
    vit, kept = p.vit, {"attention: norms": p.token + p.kept_by_norm(p.token, p.rows)}
    if vit.qk_norm:
        kept["attention: norms"] += 2 * p.kept_by_norm(p.token, p.rows * vit.num_heads)
    kept["attention: queries, keys, values"] = _queries_keys_values(p)
    kept["attention: probabilities"] = p.rows * vit.num_heads if p.fused else p.scores
    # The kernel answers in the layout of its queries; one that lies head by head is copied to lie token by token.
    twice = p.fused and p.turned and p.device != "cuda"
    kept["attention: mixed values"] = p.token * (2 if twice else 1)
    if vit.attention_sub_norm:
        kept["attention: norms"] += p.token + p.kept_by_norm(p.token, p.rows)
    kept["attention: LayerScale"] = p.token if vit.attention_scale else 0
    return kept


def _queries_keys_values(p: _Pieces) -> int:
    vit = p.vit
    if not p.turned:
        return p.token * (3 if p.fused or p.copied else 4)
    kept = 2 * p.token
    if p.copied and not p.fused:
        kept += p.token  # the values
    # The layer's output stays while anything is still a view of it.
    if vit.qk_norm or vit.rope == "mixed" or p.fused or not p.copied:
        kept += 3 * p.token
    if vit.qk_norm and vit.rope == "mixed":
        kept += 2 * p.token  # angles that learn need what they turned
    return kept


def _mlp(p: _Pieces) -> dict[str, int]:
    """Kept by the second branch of a block, with its input, the sum after attention."""
    vit, kept = p.vit, {"MLP: inputs": p.token, "MLP: norms": p.token + p.kept_by_norm(p.token, p.rows)}
    hidden = p.expanded + p.hidden * (2 if vit.gated else 1)
    if vit.activation == "ReLU" and not vit.gated:
        hidden = p.hidden  # its output says which numbers were positive
    elif vit.activation == "QuickGELU":
        hidden += p.hidden  # the sigmoid
    kept["MLP: hidden layers"] = hidden
    if vit.mlp_sub_norm:
        kept["MLP: norms"] += p.hidden + p.kept_by_norm(p.hidden, p.rows)
    kept["MLP: LayerScale"] = p.token if vit.mlp_scale else 0
    return kept


def _block(p: _Pieces) -> int:
    return p.token + sum(_attention(p).values()) + sum(_mlp(p).values())


def _after(p: _Pieces) -> int:
    """Kept from the last block to the loss."""
    vit = p.vit
    kept = p.token + p.kept_by_norm(p.token, p.rows) if vit.output_norm else 0
    if vit.pooling == "cls":
        kept += p.token  # of which [CLS] is a view
    elif vit.pooling == "sequence":
        kept += p.token + (p.pooled if p.copied and vit.pool_first else 0) + 3 * p.rows
    elif vit.pooling == "attention":
        features = p.batch * (4 * vit.embed_dim + 2 * vit.pool_hidden_dim) * p.size
        kept += 3 * p.pooled + p.rows * vit.num_heads + features  # its input, keys and values
    # A hidden layer keeps what its activation and its last layer read.
    return kept + p.batch * (vit.num_features + 2 * vit.head_hidden + vit.num_classes) * p.size


def _training(p: _Pieces, checkpointing: bool) -> int:
    vit, before, after, block = p.vit, _before(p), _after(p), _block(p)
    each = p.token if checkpointing else block
    others = before + (vit.depth - 1) * each
    # The images on their way in; the read-out and the last norm on the way back.
    last = 3 if p.split else 2 if vit.pooling == "attention" else 1
    moments = [_stem(p), others + each + after + last * p.token]
    # The last block's MLP: the gradient of its hidden layer comes while that is still there.
    moments.append(others + block + p.token + p.hidden)
    # Where an activation needs its output, or has two factors, a second comes before the first goes. What LayerScale kept
    # has gone by then; a norm between would have too, and makes room enough.
    if (vit.gated or vit.activation in ("ReLU", "QuickGELU")) and not vit.mlp_sub_norm:
        moments.append(others + block + (0 if vit.mlp_scale else p.token) + 2 * p.hidden)
    if vit.drop_path and not vit.mlp_scale:
        moments.append(others + block + 2 * p.token + p.hidden)
    if vit.mlp_sub_norm and p.split:
        moments.append(others + block + p.token + 3 * p.hidden)
    if not p.fused:
        kept = p.token + sum(_attention(p).values())
        moments.append(others + kept + 2 * p.scores + (0 if p.copied else p.token))
    return max(moments)


def _inference(p: _Pieces) -> int:
    vit, token, hidden = p.vit, p.token, p.hidden
    # The block's input, its norm, and queries, keys and values.
    moments, projected = [], 5 * token
    copies, norm = token if p.copied else 0, token if p.split else 0
    if vit.qk_norm:
        moments.append(projected + 2 * token + norm)
    if vit.rope != "none":
        moments.append(projected + (2 if vit.qk_norm else 0) * token + 3 * token)
    projected += 2 * token if p.turned else 0
    moments.append(projected + 2 * token)  # the projection
    if vit.attention_sub_norm and (p.turned or not p.fused):
        moments.append(projected + 3 * token)
    if not p.fused:
        moments += [
            projected + token + (0 if p.turned else 2 * copies) + p.scores,
            projected + 2 * p.scores,
            projected + p.scores + copies + token,
        ]
    # The block's input, the sum after attention, its norm, and the MLP.
    between = 3 * token + (p.expanded if vit.gated else 0)
    two_factors = vit.gated or vit.activation == "QuickGELU"
    moments.append(3 * token + p.expanded + hidden * (2 if two_factors else 1))
    if vit.mlp_sub_norm:
        moments += [between + 2 * hidden + (hidden if p.split else 0), between + 2 * hidden + token]
    moments.append(between + hidden + token)
    table = _angles(p) if vit.rope != "mixed" else _angles(p) * 2 // 3
    return max(table + max(moments), _stem(p))


def _stem(p: _Pieces) -> int:
    """The highest moment of inference before the first block."""
    if p.vit.stem == "conv":
        maps = _stem_maps(p)
        # Norm and activation return a tensor as large as the one they read.
        return max(2 * max(maps[:-1]), *(first + second for first, second in itertools.pairwise(maps)))
    if p.vit.stem == "pooled":
        maps = _stem_maps(p)
        # A convolution's output with its pooled form and the places of the largest; then what the next one makes.
        pooled = [output // 4 for output in maps[:-1]]
        return p.pixels + max(
            *(output + small + small // p.size * INDEX for output, small in zip(maps, pooled, strict=False)),
            *(small + following for small, following in zip(pooled, maps[1:], strict=True)),
        )
    if p.vit.stem == "shifted":
        return (4 + 5 + 5 + 5) * p.pixels + p.patch  # four moved copies, all side by side, in patches, normalised
    return p.pixels + p.patch


def _stem_maps(p: _Pieces) -> list[int]:
    """The output of each convolution of a convolutional stem."""
    sizes, (height, width) = [], p.vit.image_size
    for layer in p.vit.convolutions:
        height, width = height // layer.stride, width // layer.stride
        sizes.append(p.batch * height * width * layer.after * p.size)
        height, width = height // layer.pool, width // layer.pool
    return sizes
