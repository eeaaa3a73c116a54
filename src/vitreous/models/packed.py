"""A copy of a model that runs faster on a CPU and says the same: for inference only.

What is done, and why it pays (benchmarks/RESULTS.md):
- Linear layers run in oneDNN with weights laid out once for it, bias, activation and residual addition in the same pass.
- Attention is two matrix products and a softmax, for as many heads at a time as the processor's cache holds.
- Convolutions have their channels last; in bf16 so has what flows between them.
- Where the model answers from its [CLS] token, the last block computes that token alone: 7 % less work in 12 blocks.
- In bf16 the tokens stay bf16 between the first and the last block; sums inside products, normalisation and softmax are
  fp32, and so is everything after the last block.
A layer that is not known here keeps its own forward pass, with packed linear layers inside.

Shapes: b batch, n tokens, d width, heads, e = d / heads.
"""

from __future__ import annotations

import copy
import functools
import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.models.layers.attention import KeyUnbiasedLinear, MultiHeadAttention
from vitreous.models.layers.block import TransformerBlock
from vitreous.models.layers.mlp import MLP, SwiGLU
from vitreous.models.layers.norm import LayerScale
from vitreous.models.layers.pool import TokenPool
from vitreous.models.layers.rope import RotaryEmbedding, Rotation, rotate
from vitreous.models.vit import VisionTransformer

SCORES_BYTES = 2 << 20
"""Attention scores kept at a time for each thread: what fits a core's second-level cache, or nearly."""

ACTIVATION_BYTES = 32 << 20
"""The widest activation of a group of images. Larger buffers are returned to the operating system after each use, and
fetching them again costs a tenth of the time."""


def pack(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A copy of the model in evaluation mode whose linear layers are packed; the model itself is left as it is.

    dtype: what products are computed in, float32 or bfloat16. Inputs and results are float32 in any case.
    The copy cannot be trained, copied or saved, and has no attention maps. Where the pooling reads the first tokens alone,
    `forward_features` gives these alone: nobody reads what else the last block would compute. Where the copy has an
    attribute `images_at_once`, larger batches are better given in groups of that many.

    Raises RuntimeError where torch lacks the operators.
    """
    operators()
    with torch.no_grad():
        packed = _replace(model, dtype).eval().requires_grad_(False)
    if isinstance(packed, VisionTransformer):
        blocks = [block for block in packed.blocks if isinstance(block, PackedBlock)]
        if len(blocks) == len(packed.blocks):
            for block in blocks[:-1]:
                block.returns = dtype
        noted: Any = packed
        noted.images_at_once = _group(packed, dtype)
    return packed


def _group(packed: VisionTransformer, dtype: torch.dtype) -> int:
    """How many images have a widest activation of `ACTIVATION_BYTES`."""
    widths = [layer.out_features for layer in packed.blocks.modules() if isinstance(layer, PackedLinear)]
    tokens = packed.num_prefix_tokens + math.prod(packed.grid_size)
    return max(1, ACTIVATION_BYTES // (tokens * max(widths, default=1) * dtype.itemsize))


class Operators(NamedTuple):
    """torch's own, but not public, operators on a weight that oneDNN has laid out."""

    reorder: Any
    """(weight (out, in)) -> the packed weight."""
    linear: Any
    """(x, packed, bias, activation, numbers, algorithm) -> activation(x W^T + bias)."""
    linear_and: Any
    """(x, other, packed, bias, "add" or "mul") -> (x W^T + bias) and the other tensor, in one pass."""


@functools.cache
def operators() -> Operators:
    """Raises RuntimeError where torch lacks them."""
    library = torch.ops.mkldnn
    try:
        linear = library._linear_pointwise
        return Operators(library._reorder_linear_weight.default, linear.default, linear.binary)
    except AttributeError as error:
        raise RuntimeError(f"torch {torch.__version__} has no packed linear layers ({error})") from error


class PackedLinear(nn.Module):
    """A linear layer on a packed weight. As a module it answers in the wider type of the question's and its own; `product`
    and `join` answer in its own."""

    def __init__(
        self, linear: nn.Linear, dtype: torch.dtype, *, rows: slice = slice(None), scale: Tensor | None = None
    ) -> None:
        """rows: the outputs that are kept. scale: factors (out,) of all outputs, folded into weight and bias."""
        super().__init__()
        weight, bias = linear.weight.float(), _bias(linear)
        if scale is not None:
            weight, bias = weight * scale[:, None], None if bias is None else bias * scale
        weight, bias = weight[rows], None if bias is None else bias[rows]
        self.out_features, self.in_features = weight.shape
        self.dtype = dtype
        # Plain attributes: nothing may copy, convert or save what only oneDNN can read.
        self.weight = operators().reorder(weight.to(dtype).contiguous())
        self.bias = None if bias is None else bias.to(dtype).contiguous()
        self._linear, self._linear_and = operators()[1:]

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        return self.product(x).to(torch.promote_types(x.dtype, self.dtype))

    def product(self, x: Tensor, activation: tuple[str, str] = ("none", "")) -> Tensor:
        """x (..., in) -> activation(x W^T + bias) (..., out)."""
        return self._linear(x.to(self.dtype), self.weight, self.bias, activation[0], [], activation[1])

    def join(self, x: Tensor, other: Tensor, how: str) -> Tensor:
        """x (..., in), other (..., out) -> x W^T + bias, added to ("add") or times ("mul") the other tensor."""
        return self._linear_and(x.to(self.dtype), other, self.weight, self.bias, how)


def _bias(linear: nn.Linear) -> Tensor | None:
    if isinstance(linear, KeyUnbiasedLinear):
        return linear(linear.weight.new_zeros(linear.in_features)).float()
    return None if linear.bias is None else linear.bias.float()


class PackedConvolution(nn.Module):
    """A convolution whose weights, and with them its results, have the channels last, as oneDNN runs them fastest."""

    def __init__(self, convolution: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.convolution = copy.deepcopy(convolution).to(dtype).to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """x (b, c, h, w) -> (b, c', h', w')."""
        return self.convolution(x.to(self.dtype))


class PackedAttention(nn.Module):
    """`MultiHeadAttention`, without its maps."""

    def __init__(
        self,
        attention: MultiHeadAttention,
        dtype: torch.dtype,
        scale: Tensor | None = None,
        kept: int | None = None,
    ) -> None:
        """scale: factors (d,) of what comes out. kept: only so many tokens, from the first on, ask; all answer."""
        super().__init__()
        self.num_heads, self.kept = attention.num_heads, kept
        self.query_norm, self.key_norm = copy.deepcopy(attention.query_norm), copy.deepcopy(attention.key_norm)
        self.sub_norm = copy.deepcopy(attention.sub_norm)
        # 1 / sqrt(e) goes into the query's weights where nothing stands between them and the product with the keys.
        d, is_plain = attention.qkv.in_features, type(self.query_norm) is nn.Identity
        self.scale = 1.0 if is_plain else attention.scale
        factors = attention.qkv.weight.new_ones(3 * d)
        if is_plain:
            factors[:d] = attention.scale
        parts = [slice(None)] if kept is None else [slice(d), slice(d, None)]
        self.inputs = nn.ModuleList(PackedLinear(attention.qkv, dtype, rows=part, scale=factors) for part in parts)
        self.projection = PackedLinear(attention.projection, dtype, scale=scale)

    def forward(
        self, tokens: Tensor, rotation: Rotation | None = None, attention: list[Tensor] | None = None
    ) -> Tensor:
        """As `MultiHeadAttention.forward`. Raises ValueError when maps are asked for."""
        if attention is not None:
            raise ValueError("a packed copy keeps no attention maps; ask the model itself")
        return self.projection(self.mixed(tokens, rotation)).to(tokens.dtype)

    def mixed(self, tokens: Tensor, rotation: Rotation | None) -> Tensor:
        """tokens (b, n, d) -> what is projected (b, n or kept, d)."""
        q, k, v = self._heads(tokens)
        q, k = _normalise(self.query_norm, q), _normalise(self.key_norm, k)
        if self.scale != 1:
            q = q * self.scale
        if rotation is not None:
            asking = rotation._replace(cos=rotation.cos[..., : self.kept, :], sin=rotation.sin[..., : self.kept, :])
            q, k = rotate(q, asking).to(v.dtype), rotate(k, rotation).to(v.dtype)
        return _normalise(self.sub_norm, mix(q, k, v).transpose(1, 2).flatten(2))

    def _heads(self, tokens: Tensor) -> list[Tensor]:
        """tokens (b, n, d) -> q (b, heads, n or kept, e), k and v (b, heads, n, e)."""
        asked = [tokens] if self.kept is None else [tokens[:, : self.kept], tokens]
        found: list[Tensor] = []
        layers: list[PackedLinear] = list(self.inputs)  # type: ignore[arg-type]
        for layer, given in zip(layers, asked, strict=True):
            b, m, d = given.shape
            # Not einops: at batch 1 of a small model its parsing shows.
            split = layer.product(given).view(b, m, layer.out_features // d, self.num_heads, d // self.num_heads)
            found += split.permute(2, 0, 3, 1, 4).unbind(0)
        return found


def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T) v: scaled queries (b, heads, m, e), keys and values (b, heads, n, e), strided at will
    -> (b, heads, m, e), stored as (b, m, heads, e).

    As many images, or else heads of one image, are worked on as `SCORES_BYTES` allows. In fp32 that beats the fused kernel
    only where products take the oneDNN route; the fused one has its own way to the default library.
    """
    if q.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest":
        return F.scaled_dot_product_attention(q, k, v, scale=1.0)
    b, num_heads, m, e = q.shape
    n = k.shape[2]
    room = max(1, SCORES_BYTES * torch.get_num_threads() // (m * n * q.element_size()))
    images, heads = max(1, min(b, room // num_heads)), min(num_heads, room)
    mixed = q.new_empty(b, m, num_heads, e).transpose(1, 2)
    scores = q.new_empty(images * heads, m, n)
    for image in range(0, b, images):
        for head in range(0, num_heads, heads):
            part = slice(image, image + images), slice(head, head + heads)
            queries, keys, values = (each[part].flatten(0, 1) for each in (q, k, v))
            weights = scores[: len(queries)]
            torch.bmm(queries, keys.transpose(1, 2), out=weights)
            torch.softmax(weights, dim=-1, out=weights)
            place = mixed[part]
            place.copy_(torch.bmm(weights, values).view(place.shape))
    return mixed


class PackedMLP(nn.Module):
    """`MLP` and `SwiGLU`."""

    def __init__(self, mlp: MLP, dtype: torch.dtype, scale: Tensor | None = None) -> None:
        super().__init__()
        hidden_dim = mlp.contract.in_features
        # Gate first, as `SwiGLU` has it. As two products, since oneDNN can multiply the second by the gate on the way.
        self.expand = PackedLinear(mlp.expand, dtype, rows=slice(-hidden_dim, None))
        self.gate = PackedLinear(mlp.expand, dtype, rows=slice(hidden_dim)) if isinstance(mlp, SwiGLU) else None
        self.fused = fused_activation(mlp.activation)
        self.activation = nn.Identity() if self.fused else copy.deepcopy(mlp.activation)
        self.norm = copy.deepcopy(mlp.norm)
        self.contract = PackedLinear(mlp.contract, dtype, scale=scale)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (b, n, d) -> (b, n, d)."""
        return self.contract(self.hidden(tokens)).to(tokens.dtype)

    def hidden(self, tokens: Tensor) -> Tensor:
        """tokens (b, n, d) -> what is contracted (b, n, hidden)."""
        first = self.expand if self.gate is None else self.gate
        hidden = self.activation(first.product(tokens, self.fused or ("none", "")))
        if self.gate is not None:
            hidden = self.expand.join(tokens, hidden, "mul")
        return _normalise(self.norm, hidden)


def fused_activation(activation: nn.Module) -> tuple[str, str] | None:
    """oneDNN's name and algorithm of an activation that it can compute in the same pass as the product."""
    if type(activation) is nn.GELU:
        return "gelu", activation.approximate
    return {nn.SiLU: ("swish", ""), nn.ReLU: ("relu", ""), nn.Identity: ("none", "")}.get(type(activation))


class PackedBlock(nn.Module):
    """`TransformerBlock`: LayerScale is folded into the weights, and each residual addition into a product."""

    def __init__(self, block: TransformerBlock, dtype: torch.dtype, kept: int | None = None) -> None:
        """kept: how many tokens, from the first on, come out; all where None."""
        super().__init__()
        self.dtype, self.kept = dtype, kept
        self.returns = torch.float32
        """Type of the tokens returned. Between packed blocks it is that of the products."""
        self.attention_norm, self.mlp_norm = copy.deepcopy(block.attention_norm), copy.deepcopy(block.mlp_norm)
        self.attention = PackedAttention(block.attention, dtype, _factors(block.attention_scale), kept)
        self.mlp = PackedMLP(block.mlp, dtype, _factors(block.mlp_scale))

    @staticmethod
    def fits(block: nn.Module) -> bool:
        """Whether the module is a block of parts that are known here."""
        return (
            type(block) is TransformerBlock
            and type(block.attention) is MultiHeadAttention
            and type(block.mlp) in (MLP, SwiGLU)
            and {type(block.attention_scale), type(block.mlp_scale)} <= {nn.Identity, LayerScale}
        )

    def forward(
        self, tokens: Tensor, rotation: Rotation | None = None, attention: list[Tensor] | None = None
    ) -> Tensor:
        """As `TransformerBlock.forward`. Raises ValueError when maps are asked for."""
        if attention is not None:
            raise ValueError("a packed copy keeps no attention maps; ask the model itself")
        tokens = tokens.to(self.dtype)
        mixed = self.attention.mixed(_normalise(self.attention_norm, tokens), rotation)
        tokens = self.attention.projection.join(mixed, tokens[:, : self.kept], "add")
        hidden = self.mlp.hidden(_normalise(self.mlp_norm, tokens))
        return self.mlp.contract.join(hidden, tokens, "add").to(self.returns)

    def attend(self, tokens: Tensor, rotation: Rotation | None = None, attention: list[Tensor] | None = None) -> Tensor:
        """The first residual branch, for blocks made of several."""
        return self.attention(self.attention_norm(tokens), rotation, attention)

    def transform(self, tokens: Tensor) -> Tensor:
        """The second residual branch, for blocks made of several."""
        return self.mlp(self.mlp_norm(tokens))


def _factors(scale: nn.Module) -> Tensor | None:
    return scale.gamma.float() if isinstance(scale, LayerScale) else None


def _normalise(norm: nn.Module, x: Tensor) -> Tensor:
    """LayerNorm computes in fp32 whatever it is given; other normalisations are given fp32."""
    if type(norm) is nn.LayerNorm:
        return torch.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    if type(norm) is nn.Identity:
        return x
    return norm(x.float()).to(x.dtype)


class RememberedRotations(nn.Module):
    """`RotaryEmbedding`: the angles depend on nothing but the weights, so they are computed once a grid."""

    def __init__(self, rope: RotaryEmbedding) -> None:
        super().__init__()
        self.rope = copy.deepcopy(rope)
        self._known: dict[tuple[object, ...], list[Rotation]] = {}

    def forward(self, *place: Any) -> list[Rotation]:
        """As `RotaryEmbedding.forward`."""
        if place not in self._known:
            self._known[place] = self.rope(*place)
        return self._known[place]


def _replace(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The copy: known modules replaced by their packed forms before anything below them is copied."""
    memo: dict[int, Any] = {}

    def visit(module: nn.Module, dtype: torch.dtype) -> None:
        if id(module) in memo:
            return
        replaced = _packed(module, dtype)
        if replaced is not None:
            memo[id(module)] = replaced
            return
        for name, child in module.named_children():
            # In our own model the blocks and the patches are nearly all of the work; what follows decides the digits.
            outside = type(module) is VisionTransformer and name not in ("blocks", "patch_embedding")
            visit(child, torch.float32 if outside else dtype)

    if type(model) is VisionTransformer:
        last = model.blocks[-1]
        if isinstance(last, TransformerBlock) and PackedBlock.fits(last) and type(model.pooler) is TokenPool:
            memo[id(last)] = PackedBlock(last, dtype, kept=model.pooler.count)
    elif hasattr(model, "body") and hasattr(model.body, "get_classifier"):
        # `ConvNet`, by what it offers: its file needs timm, which takes seconds to import.
        visit(model.body.get_classifier(), torch.float32)  # type: ignore[operator, union-attr]
    visit(model, dtype)
    return copy.deepcopy(model, memo)


def _packed(module: nn.Module, dtype: torch.dtype) -> nn.Module | None:
    """What stands for a module in the copy; None for one that is not known here as a whole."""
    if type(module) in (nn.Linear, KeyUnbiasedLinear):
        return PackedLinear(module, dtype)  # type: ignore[arg-type]
    if type(module) is nn.Conv2d:
        return PackedConvolution(module, dtype)
    if type(module) is MultiHeadAttention:
        return PackedAttention(module, dtype)
    if type(module) in (MLP, SwiGLU):
        return PackedMLP(module, dtype)  # type: ignore[arg-type]
    if isinstance(module, TransformerBlock) and PackedBlock.fits(module):
        return PackedBlock(module, dtype)
    if type(module) is RotaryEmbedding:
        return RememberedRotations(module)
    return None
