"""timm's names and shapes of a plain ViT's weights as ours, and ours as timm's. Mapping only.

Every function takes and returns a dictionary of tensors. What depends on the model they go into (another resolution,
number of channels or classes) is `models.fit`'s, reading files and asking the hub is `models.fetch`'s, other libraries'
names are `models.foreign`'s.
"""

from __future__ import annotations

import re

import torch
from einops import rearrange, repeat
from torch import Tensor

from vitreous.errors import WeightsError

State = dict[str, Tensor]

_RENAMED: tuple[tuple[str, str], ...] = (
    (r"^patch_embed\.proj\.", "patch_embedding.projection."),
    (r"^patch_embed\.norm\.", "patch_embedding.norm."),
    (r"^cls_token$", "class_token"),
    (r"^dist_token$", "distillation_token"),
    (r"^reg_token$", "registers"),
    (r"^pos_embed$", "position_embedding"),
    (r"^rope\.freqs$", "rope.frequencies"),
    (r"^norm_pre\.", "input_norm."),
    (r"^fc_norm\.", "feature_norm."),
    (r"^head_dist\.", "head.teacher."),
    (r"^attn_pool\.latent$", "pooler.probe"),
    (r"^attn_pool\.q\.", "pooler.query."),
    (r"^attn_pool\.kv\.", "pooler.key_value."),
    (r"^attn_pool\.proj\.", "pooler.projection."),
    (r"^attn_pool\.", "pooler."),
    # Blocks of two branches keep each branch's norm, layer and scale together; ours name them as other blocks do.
    (r"\.attns\.(\d)\.(norm|ls)\.", r".branches.\1.\g<2>1."),
    (r"\.ffns\.(\d)\.(norm|ls)\.", r".branches.\1.\g<2>2."),
    (r"\.(?:attns|ffns)\.(\d)\.", r".branches.\1."),
    (r"^(blocks\.\d+)\.([qk]_norm|sub_norm)\.", r"\1.attn.\2."),  # parallel blocks have no inner module
    (r"\.norm1\.|\.in_norm\.", ".attention_norm."),
    (r"\.norm2\.", ".mlp_norm."),
    (r"\.ls1\.gamma$|\.ls\.gamma$|\.gamma_1$", ".attention_scale.gamma"),
    (r"\.ls2\.gamma$|\.gamma_2$", ".mlp_scale.gamma"),
    (r"\.attn\.sub_norm\.", ".attention.head_norm."),
    (r"\.attn\.norm\.", ".attention.sub_norm."),
    (r"\.attn\.q_norm\.", ".attention.query_norm."),
    (r"\.attn\.k_norm\.", ".attention.key_norm."),
    (r"\.attn\.proj\.|\.attn_out_proj\.", ".attention.projection."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
    (r"\.mlp\.fc1\.", ".mlp.expand."),
    (r"\.mlp\.fc2\.|\.mlp_out_proj\.", ".mlp.contract."),
)
"""timm's names as patterns; each name is changed by all that match, in this order."""

_LAMBDAS = ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")


def is_ours(state: State) -> bool:
    """Whether the names are this package's."""
    return any(name.startswith("patch_embedding.") for name in state)


def from_timm(state: State) -> State:
    """timm's names and shapes to ours; a state that is ours already comes back as it is.

    What timm keeps apart in some models is joined: query, key and value; a gate and its value; the terms of differential
    attention. What it joins in parallel blocks is split. Shared keys and values of grouped-query attention are repeated
    for each head. The patch kernel keeps its shape (d, c, ph, pw), by which `models.fit` knows the patch size.
    """
    if is_ours(state):
        return dict(state)
    found: State = {}
    for name, value in state.items():
        if not _from_joined(name, value, state, found):
            found[_rename(name)] = value
    if "head.teacher.weight" in found and "head.weight" in found:
        for part in ("weight", "bias"):
            found[f"head.label.{part}"] = found.pop(f"head.{part}")
    return found


def to_timm(state: State, like: State) -> State:
    """Our weights under the names and in the shapes of `like`, the `state_dict()` of the timm model they go into.

    Positions that our model folded into its tokens become zeros there. Raises WeightsError for a part that ours lacks, or
    has learned apart where theirs is shared.
    """
    found: State = {}
    for name, wanted in like.items():
        try:
            value = _to_joined(name, state)
            value = state[_rename(name)] if value is None else value
        except KeyError as error:
            raise WeightsError(f"timm's {name!r} has no counterpart in these weights ({error} is absent).") from error
        if re.search(r"\.attn\.[kv]_proj\.", name) and len(value) > len(wanted):
            value = _shared(value, wanted, like[re.sub(r"\.attn\..*", ".attn.q_norm.weight", name)].shape[0], name)
        if name == "pos_embed" and value.shape[1] < wanted.shape[1]:
            missing = wanted.shape[1] - value.shape[1]
            value = torch.cat([value.new_zeros(1, missing, value.shape[2]), value], dim=1)
        found[name] = value.reshape(wanted.shape)
    return found


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _block_of(name: str) -> tuple[str, str]:
    """ "blocks.3.attn.q_bias" -> ("blocks.3", "attn.q_bias"); ("", name) outside of blocks."""
    match = re.match(r"(blocks\.\d+)\.(.*)", name)
    return (match[1], match[2]) if match else ("", name)


def _from_joined(name: str, value: Tensor, state: State, found: State) -> bool:
    """Put into `found` what a tensor stands for that has no single counterpart; False when it has one."""
    block, part = _block_of(name)
    module, _, leaf = part.rpartition(".")
    attention = f"{block}.attention"
    if part in ("attn.v_bias", "attn.k_bias"):
        return True  # written with attn.q_bias
    if part == "attn.q_bias":
        found[f"{attention}.qkv.bias"] = torch.cat([value, torch.zeros_like(value), state[f"{block}.attn.v_bias"]])
    elif module in ("attn.k_proj", "attn.v_proj"):
        return True  # written with attn.q_proj
    elif module == "attn.q_proj":
        found[f"{attention}.qkv.{leaf}"] = _join_qkv(f"{block}.attn", leaf, state)
    elif module == "mlp.fc1_x":
        return True  # written with mlp.fc1_g
    elif module == "mlp.fc1_g":
        found[f"{block}.mlp.expand.{leaf}"] = torch.cat([value, state[f"{block}.mlp.fc1_x.{leaf}"]])
    elif module == "in_proj":
        hidden = value.shape[0] - 3 * state[f"{block}.in_norm.weight"].shape[0]
        found[f"{block}.mlp.expand.{leaf}"], found[f"{attention}.qkv.{leaf}"] = value[:hidden], value[hidden:]
    elif part == "mlp_bias":
        found[f"{block}.mlp.expand.bias"] = value
    elif part == "out_proj.weight":
        width = value.shape[0]
        found[f"{attention}.projection.weight"] = value[:, :width]
        found[f"{block}.mlp.contract.weight"] = value[:, width:]
    elif part == "out_proj.bias":  # one bias for the sum of both
        found[f"{block}.mlp.contract.bias"] = value
        found[f"{attention}.projection.bias"] = torch.zeros_like(value)
    elif leaf in _LAMBDAS:
        if leaf == _LAMBDAS[0]:
            prefix = f"{block}.{module}." if module else f"{block}."
            found[f"{attention}.lambdas"] = torch.stack([state[prefix + each] for each in _LAMBDAS])
    else:
        return False
    return True


def _join_qkv(prefix: str, leaf: str, state: State) -> Tensor:
    """Separate projections, of which the key's may lack its bias and the key's and value's may be shared by heads."""
    query = state[f"{prefix}.q_proj.{leaf}"]
    value = state[f"{prefix}.v_proj.{leaf}"]
    key = state.get(f"{prefix}.k_proj.{leaf}", torch.zeros_like(value))
    groups = query.shape[0] // key.shape[0]
    if groups > 1:
        head_dim = state[f"{prefix}.q_norm.weight"].shape[0]
        key, value = (
            repeat(part, "(heads e) ... -> (heads groups e) ...", groups=groups, e=head_dim) for part in (key, value)
        )
    return torch.cat([query, key, value])


def _shared(value: Tensor, wanted: Tensor, head_dim: int, name: str) -> Tensor:
    """What heads of grouped-query attention share, taken once."""
    groups = rearrange(
        value, "(heads groups e) ... -> heads groups e ...", groups=len(value) // len(wanted), e=head_dim
    )
    if not (groups == groups[:, :1]).all():
        raise WeightsError(f"The heads that share {name!r} in timm's model have learned to differ in this one.")
    return groups[:, 0].flatten(0, 1)


def _to_joined(name: str, state: State) -> Tensor | None:
    """The inverse of `_from_joined` for one of timm's names; None where `_rename` is all it takes."""
    block, part = _block_of(name)
    module, _, leaf = part.rpartition(".")
    attention = f"{block}.attention"
    if part in ("attn.q_bias", "attn.v_bias"):
        return state[f"{attention}.qkv.bias"].chunk(3)["q v".index(leaf[0])]
    if module in ("attn.q_proj", "attn.k_proj", "attn.v_proj"):
        return state[f"{attention}.qkv.{leaf}"].chunk(3)["qkv".index(module[5])]
    if module in ("mlp.fc1_g", "mlp.fc1_x"):
        return state[f"{block}.mlp.expand.{leaf}"].chunk(2)["gx".index(module[-1])]
    if module == "in_proj":
        return torch.cat([state[f"{block}.mlp.expand.{leaf}"], state[f"{attention}.qkv.{leaf}"]])
    if part == "mlp_bias":
        return state[f"{block}.mlp.expand.bias"]
    if part == "out_proj.weight":
        return torch.cat([state[f"{attention}.projection.weight"], state[f"{block}.mlp.contract.weight"]], dim=1)
    if part == "out_proj.bias":
        return state[f"{attention}.projection.bias"] + state[f"{block}.mlp.contract.bias"]
    if leaf in _LAMBDAS:
        return state[f"{attention}.lambdas"][_LAMBDAS.index(leaf)]
    if not block and module == "head" and f"head.label.{leaf}" in state:
        return state[f"head.label.{leaf}"]
    return None
