"""The two halves of the pre-norm block as one operation each, for training on a CPU: the same numbers in fewer, larger steps.

Under bf16 autocast torch casts tokens, weights and gradients back and forth around every layer, copies queries, keys and
values for every product, and takes softmax over short rows, which its kernels do slowly. Here forward and backward pass of
a residual branch are written out once (benchmarks/TRAINING_SPEED_LOG.md has what each step is worth):

- Products are computed in the type that autocast asks for, fp32 without it; the tokens between the branches, normalisation,
  sums over tokens and the gradients of the weights stay fp32, as under autocast.
- Attention's scores are kept with the keys first, so that softmax runs over columns, many at a time.
- Where only the first tokens of the last block are read ([CLS] pooling), only their queries, projections and MLP are
  computed. Nothing that is left out has a gradient.
- Images whose branch stochastic depth skips are left out of the branch, instead of being computed and multiplied by zero.
- LayerScale is folded into the weights of the last product.

Every layer that is not known here, evaluation, explanation and export take the plain path of `models.layers.block`.

Shapes: b batch, n tokens, m those that are read (n, or fewer in the last block), d width, heads, e = d / heads.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vitreous.engines.cpu import fast_paths_wanted
from vitreous.models.layers.attention import MultiHeadAttention
from vitreous.models.layers.mlp import MLP
from vitreous.models.layers.norm import DropPath, LayerScale

aten: Any = torch.ops.aten

UP_TO = 640
"""Tokens; beyond them the smaller memory of torch's fused attention counts for more."""
DEFAULT_UP_TO = 256
"""The same for fp32 on torch's default library, where that attention is faster already from here on."""
SHORT = 40
"""Up to so many tokens softmax of bf16 scores is faster by way of fp32."""

_plain: ContextVar[bool] = ContextVar("plain_block", default=False)


@contextlib.contextmanager
def plain_block() -> Iterator[None]:
    """Inside it blocks compute as `models.layers.block` writes them: what the closed form of memory speaks of."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def attend(block: Any, tokens: Tensor, kept: int | None) -> Tensor:
    """The first half of a `TransformerBlock` that `fits_attention`: tokens (b, n, d) -> (b, n or kept, d), the residual
    connection included."""
    attention, norm, scale = block.attention, block.attention_norm, block.attention_scale

    def branch(images: Tensor, factor: float) -> Tensor:
        return AttentionBranch.apply(  # type: ignore[return-value]
            *(images, attention.num_heads, kept, factor, norm.eps, norm.weight, norm.bias),
            *(attention.qkv.weight, attention.qkv.bias, attention.projection.weight, attention.projection.bias),
            getattr(scale, "gamma", None),
        )

    return _for_some(block.drop_path, tokens, branch, kept)


def transform(block: Any, tokens: Tensor) -> Tensor:
    """The second half of a `TransformerBlock` that `fits_mlp`: tokens (b, n, d) -> (b, n, d), the residual connection
    included."""
    mlp, norm, scale = block.mlp, block.mlp_norm, block.mlp_scale

    def branch(images: Tensor, factor: float) -> Tensor:
        return MLPBranch.apply(  # type: ignore[return-value]
            *(images, factor, norm.eps, norm.weight, norm.bias, mlp.expand.weight, mlp.expand.bias),
            *(mlp.contract.weight, mlp.contract.bias, getattr(scale, "gamma", None)),
        )

    return _for_some(block.drop_path, tokens, branch, None)


def usable(tokens: Tensor) -> bool:
    """Whether a block in training takes the way of this file for tokens (b, n, d)."""
    # Tensors of other types (without data, spread over devices) have ways of their own.
    if type(tokens) is not Tensor or tokens.device.type != "cpu" or tokens.dtype != torch.float32:
        return False
    if _plain.get() or not torch.is_grad_enabled():
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or not fast_paths_wanted():
        return False
    dtype, n = product_dtype(), tokens.shape[1]
    if dtype == torch.float32:
        return n <= (DEFAULT_UP_TO if torch.get_float32_matmul_precision() == "highest" else UP_TO)
    return dtype == torch.bfloat16 and n <= UP_TO


def fits_attention(block: Any) -> bool:
    """Whether the parts of the first half are those that `AttentionBranch` computes, with nothing hooked to them."""
    attention = block.attention
    parts = (block.attention_norm, attention, attention.qkv, attention.projection, block.attention_scale)
    return (
        type(block.attention_norm) is nn.LayerNorm
        and type(attention) is MultiHeadAttention
        and type(attention.qkv) is type(attention.projection) is nn.Linear
        and type(attention.query_norm) is type(attention.key_norm) is type(attention.sub_norm) is nn.Identity
        and attention.dropout.p == attention.projection_dropout.p == 0
        and type(block.attention_scale) in (nn.Identity, LayerScale)
        and not _hooked(parts)
    )


def fits_mlp(block: Any) -> bool:
    """Whether the parts of the second half are those that `MLPBranch` computes, with nothing hooked to them."""
    mlp = block.mlp
    parts = (block.mlp_norm, mlp, mlp.expand, mlp.activation, mlp.contract, block.mlp_scale)
    return (
        type(block.mlp_norm) is nn.LayerNorm
        and type(mlp) is MLP
        and type(mlp.expand) is type(mlp.contract) is nn.Linear
        and type(mlp.activation) is nn.GELU
        and mlp.activation.approximate == "none"
        and type(mlp.norm) is nn.Identity
        and mlp.dropout.p == 0
        and type(block.mlp_scale) in (nn.Identity, LayerScale)
        and not _hooked(parts)
    )


def _hooked(parts: tuple[nn.Module, ...]) -> bool:
    return any(
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
        for part in parts
    )


def _for_some(
    drop_path: DropPath, tokens: Tensor, branch: Callable[[Tensor, float], Tensor], kept: int | None
) -> Tensor:
    """The branch for the images that stochastic depth leaves it, drawn as `DropPath` draws them; the others go past it."""
    if drop_path.probability == 0:
        return branch(tokens, 1.0)
    keep = 1 - drop_path.probability
    drawn = torch.empty(len(tokens), 1, 1, dtype=product_dtype()).bernoulli_(keep)
    images = drawn.flatten().nonzero().flatten()
    if len(images) == len(tokens):
        return branch(tokens, 1 / keep)
    if not len(images):
        # Its weights have a gradient all the same, as in the plain block: zero.
        images, keep = images.new_zeros(1), math.inf
    computed = branch(tokens.index_select(0, images), 1 / keep)
    return (tokens if kept is None else tokens[:, :kept]).index_copy(0, images, computed)


class AttentionBranch(torch.autograd.Function):
    """tokens[:, :m] + attention(norm(tokens))[:, :m], times `factor` and LayerScale where there is one."""

    @staticmethod
    def forward(
        ctx: Any,
        tokens: Tensor,
        num_heads: int,
        kept: int | None,
        factor: float,
        eps: float,
        norm_weight: Tensor,
        norm_bias: Tensor,
        qkv_weight: Tensor,
        qkv_bias: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        gamma: Tensor | None,
    ) -> Tensor:
        """tokens (b, n, d), gamma (d,) -> (b, m, d). kept: m, None for n. factor: of the branch, for stochastic depth."""
        b, n, d = tokens.shape
        e, m = d // num_heads, kept or n
        dtype = product_dtype()
        normalised, mean, rstd = _normalise(tokens.reshape(b * n, d), norm_weight, norm_bias, eps, dtype)
        qkv_low = qkv_weight.to(dtype)
        q, k, v = _heads(normalised, qkv_low, _cast(qkv_bias, dtype), (b, n, m, num_heads, e))
        q *= e**-0.5
        scores = torch.bmm(k, q.transpose(1, 2))  # (b heads, n, m): keys first
        if n <= SHORT and dtype != torch.float32:
            shares = torch.softmax(scores, dim=1, dtype=torch.float32).to(dtype)
        else:
            shares = torch.softmax(scores, dim=1, out=scores)
        mixed = torch.bmm(shares.transpose(1, 2), v).view(b, num_heads, m, e).transpose(1, 2).reshape(b * m, d)
        low, low_bias = _scaled(weight, bias, gamma, factor, dtype)
        read = tokens if m == n else tokens[:, :m]
        result = F.linear(mixed, low, low_bias).view(b, m, d) + read
        ctx.save_for_backward(
            tokens,
            mean,
            rstd,
            normalised,
            q,
            k,
            v,
            shares,
            mixed,
            norm_weight,
            norm_bias,
            qkv_low,
            weight,
            bias,
            gamma,
            low,
        )
        ctx.num_heads, ctx.factor, ctx.has_qkv_bias = num_heads, factor, qkv_bias is not None
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """gradient (b, m, d) -> those of the arguments that ask for one."""
        (tokens, mean, rstd, normalised, q, k, v, shares, mixed, *parameters) = ctx.saved_tensors
        norm_weight, norm_bias, qkv_low, weight, bias, gamma, low = parameters
        needs = ctx.needs_input_grad
        (b, n, d), num_heads = tokens.shape, ctx.num_heads
        m, e, dtype = gradient.shape[1], d // num_heads, low.dtype
        above = gradient.reshape(b * m, d)
        product = above.to(dtype)
        of_weight, of_bias, of_gamma = _last_gradients(
            above, product, mixed, weight, bias, gamma, ctx.factor, needs[9:12]
        )
        if not any(needs[:9]):
            return (*[None] * 9, of_weight, of_bias, of_gamma)
        of_mixed = torch.mm(product, low).view(b, m, num_heads, e).transpose(1, 2).reshape(b * num_heads, m, e)
        of_scores = torch.bmm(v, of_mixed.transpose(1, 2))
        aten._softmax_backward_data.out(of_scores, shares, 1, dtype, grad_input=of_scores)
        of_v = torch.bmm(shares, of_mixed)
        of_k = torch.bmm(of_scores, q)
        of_q = torch.bmm(of_scores.transpose(1, 2), k).mul_(e**-0.5)
        of_normalised, of_qkv_weight, of_qkv_bias = _qkv_gradients(
            (of_q, of_k, of_v), normalised, qkv_low, (b, n, m, num_heads, e), needs[7], needs[8] and ctx.has_qkv_bias
        )
        of_tokens, of_norm_weight, of_norm_bias = _normalise_backward(
            of_normalised, tokens.reshape(b * n, d), mean, rstd, norm_weight, norm_bias, (needs[0], needs[5], needs[6])
        )
        if of_tokens is not None:
            of_tokens = of_tokens.view(b, n, d)
            of_tokens[:, :m] += gradient
        return (
            *(of_tokens, None, None, None, None, of_norm_weight, of_norm_bias),
            *(of_qkv_weight, of_qkv_bias, of_weight, of_bias, of_gamma),
        )


class MLPBranch(torch.autograd.Function):
    """tokens + contract(gelu(expand(norm(tokens)))), times `factor` and LayerScale where there is one."""

    @staticmethod
    def forward(
        ctx: Any,
        tokens: Tensor,
        factor: float,
        eps: float,
        norm_weight: Tensor,
        norm_bias: Tensor,
        expand_weight: Tensor,
        expand_bias: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        gamma: Tensor | None,
    ) -> Tensor:
        """tokens (b, n, d), gamma (d,) -> (b, n, d). factor: of the branch, for stochastic depth."""
        b, n, d = tokens.shape
        dtype = product_dtype()
        normalised, mean, rstd = _normalise(tokens.reshape(b * n, d), norm_weight, norm_bias, eps, dtype)
        expand_low = expand_weight.to(dtype)
        before = F.linear(normalised, expand_low, _cast(expand_bias, dtype))
        hidden = F.gelu(before)
        low, low_bias = _scaled(weight, bias, gamma, factor, dtype)
        result = F.linear(hidden, low, low_bias).view(b, n, d) + tokens
        ctx.save_for_backward(
            tokens, mean, rstd, normalised, before, hidden, norm_weight, norm_bias, expand_low, weight, bias, gamma, low
        )
        ctx.factor, ctx.has_expand_bias = factor, expand_bias is not None
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """gradient (b, n, d) -> those of the arguments that ask for one."""
        tokens, mean, rstd, normalised, before, hidden, *parameters = ctx.saved_tensors
        norm_weight, norm_bias, expand_low, weight, bias, gamma, low = parameters
        needs = ctx.needs_input_grad
        b, n, d = tokens.shape
        above = gradient.reshape(b * n, d)
        product = above.to(low.dtype)
        of_weight, of_bias, of_gamma = _last_gradients(
            above, product, hidden, weight, bias, gamma, ctx.factor, needs[7:10]
        )
        if not any(needs[:7]):
            return (*[None] * 7, of_weight, of_bias, of_gamma)
        of_before = torch.mm(product, low)
        aten.gelu_backward.grad_input(of_before, before, approximate="none", grad_input=of_before)
        of_expand_weight = torch.mm(of_before.t(), normalised).float() if needs[5] else None
        of_expand_bias = of_before.sum(0).float() if needs[6] and ctx.has_expand_bias else None
        of_tokens, of_norm_weight, of_norm_bias = _normalise_backward(
            torch.mm(of_before, expand_low),
            *(tokens.reshape(b * n, d), mean, rstd, norm_weight, norm_bias),
            (needs[0], needs[3], needs[4]),
        )
        if of_tokens is not None:
            of_tokens = of_tokens.add_(above).view(b, n, d)
        return (
            *(of_tokens, None, None, of_norm_weight, of_norm_bias),
            *(of_expand_weight, of_expand_bias, of_weight, of_bias, of_gamma),
        )


def product_dtype() -> torch.dtype:
    """What autocast wants products on a CPU computed in; float32 without it."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32


def _cast(bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if bias is None else bias.to(dtype)


def _normalise(
    tokens: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """LayerNorm of tokens (b n, d) in fp32: the result in the type of products, and what the backward pass needs."""
    normalised, mean, rstd = torch.native_layer_norm(tokens, tokens.shape[-1:], weight, bias, eps)
    return normalised.to(dtype), mean, rstd


def _normalise_backward(
    gradient: Tensor, tokens: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, needs: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of tokens, weight and bias, each where it is needed."""
    return aten.native_layer_norm_backward(
        gradient.float(), tokens, tokens.shape[-1:], mean, rstd, weight, bias, list(needs)
    )


def _heads(
    normalised: Tensor, weight: Tensor, bias: Tensor | None, sizes: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """normalised (b n, d) -> q (b heads, m, e), k and v (b heads, n, e), each contiguous."""
    b, n, m, num_heads, e = sizes
    d = num_heads * e
    if m == n:
        parts = F.linear(normalised, weight, bias).view(b, n, 3, num_heads, e).permute(2, 0, 3, 1, 4).contiguous()
        return parts.view(3, b * num_heads, n, e).unbind(0)  # type: ignore[return-value]
    first = normalised.view(b, n, d)[:, :m].reshape(b * m, d)
    q = F.linear(first, weight[:d], None if bias is None else bias[:d])
    parts = F.linear(normalised, weight[d:], None if bias is None else bias[d:])
    k, v = parts.view(b, n, 2, num_heads, e).permute(2, 0, 3, 1, 4).contiguous().view(2, b * num_heads, n, e).unbind(0)
    return q.view(b, m, num_heads, e).transpose(1, 2).reshape(b * num_heads, m, e), k, v


def _qkv_gradients(
    of_heads: tuple[Tensor, Tensor, Tensor],
    normalised: Tensor,
    weight: Tensor,
    sizes: tuple[int, ...],
    needs_weight: bool,
    needs_bias: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of `_heads`' first three arguments: that of the normalised tokens (b n, d), weight (3 d, d), bias (3 d,)."""
    b, n, m, num_heads, e = sizes
    d = num_heads * e

    def joined(parts: tuple[Tensor, ...], length: int) -> Tensor:
        """(b heads, length, e) each -> (b length, parts heads e)."""
        split = torch.stack([part.view(b, num_heads, length, e) for part in parts]).permute(1, 3, 0, 2, 4)
        return split.reshape(b * length, len(parts) * d)

    if m == n:
        pieces = [(joined(of_heads, n), normalised, weight)]
    else:
        first = normalised.view(b, n, d)[:, :m].reshape(b * m, d)
        pieces = [(joined(of_heads[:1], m), first, weight[:d]), (joined(of_heads[1:], n), normalised, weight[d:])]
    of_weight = of_bias = None
    if needs_weight:
        of_weight = torch.cat([torch.mm(piece.t(), given).float() for piece, given, _ in pieces])
    if needs_bias:
        of_bias = torch.cat([piece.sum(0) for piece, _, _ in pieces]).float()
    *queries, rest = [torch.mm(piece, matrix) for piece, _, matrix in pieces]
    rest = rest.float()
    for query in queries:
        rest.view(b, n, d)[:, :m] += query.view(b, m, d)
    return rest, of_weight, of_bias


def _scaled(
    weight: Tensor, bias: Tensor | None, gamma: Tensor | None, factor: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """Weight (d, in) and bias (d,) of a branch's last product, times factor and LayerScale, in the type of products."""
    if gamma is not None or factor != 1:
        scale = factor if gamma is None else gamma * factor
        weight = weight * (scale[:, None] if isinstance(scale, Tensor) else scale)
        bias = None if bias is None else bias * scale
    return weight.to(dtype), _cast(bias, dtype)


def _last_gradients(
    above: Tensor,
    product: Tensor,
    given: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gamma: Tensor | None,
    factor: float,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of weight, bias and gamma of `_scaled`, from that of the product, `above` in fp32 and `product` in the
    type of products (b m, d), and from what was multiplied (b m, in)."""
    needs_weight, needs_bias, needs_gamma = needs
    of_weight = torch.mm(product.t(), given).float() if needs_weight or needs_gamma else None
    of_bias = above.sum(0) if bias is not None and (needs_bias or needs_gamma) else None
    of_gamma = None
    if needs_gamma:
        assert of_weight is not None
        # gamma scales the rows of (weight, bias): its gradient is their product with that of the scaled rows.
        of_gamma = (of_weight * weight).sum(1)
        if bias is not None and of_bias is not None:
            of_gamma += of_bias * bias
        of_gamma *= factor
    if gamma is not None or factor != 1:
        scale = factor if gamma is None else gamma * factor
        if of_weight is not None and needs_weight:
            of_weight *= scale[:, None] if isinstance(scale, Tensor) else scale
        if of_bias is not None:
            of_bias = of_bias * scale
    return of_weight if needs_weight else None, of_bias if needs_bias else None, of_gamma
