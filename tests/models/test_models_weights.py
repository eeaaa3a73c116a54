from __future__ import annotations

import os
import pickle
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from vitreous.errors import WeightsError
from vitreous.models import VisionTransformer
from vitreous.models.fetch import fetch_timm, hub_is_reachable, read_weights
from vitreous.models.fit import load_into
from vitreous.models.layers.position import sincos_positions
from vitreous.models.resample import resample_patches
from vitreous.models.weights import from_timm

TINY: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "num_classes": 5,
    "embed_dim": 24,
    "depth": 1,
    "num_heads": 3,
}


def make(**changes: Any) -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(**{**TINY, **changes})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


class Payload:
    """What a hostile checkpoint would hold: unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.marker),))


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
@pytest.mark.parametrize("writer", ["pickle", "torch.save", "hidden"])
def test_a_pickled_payload_is_refused_without_running_it(tmp_path: Path, suffix: str, writer: str) -> None:
    marker, file = tmp_path / "it ran", tmp_path / f"weights{suffix}"
    if writer == "pickle":
        file.write_bytes(pickle.dumps(Payload(marker)))
    elif writer == "torch.save":
        torch.save(Payload(marker), file)
    else:
        torch.save({**make().state_dict(), "optimizer": Payload(marker)}, file)
    with pytest.raises(WeightsError, match="refused without running") as caught:
        read_weights(file)
    assert "safetensors" in caught.value.hint
    assert not marker.exists()
    if writer == "pickle":  # the payload is a live one
        pickle.loads(file.read_bytes())
        assert marker.exists()


def test_a_pickle_is_not_read_under_the_name_of_a_safe_format(tmp_path: Path) -> None:
    marker, file = tmp_path / "it ran", tmp_path / "model.safetensors"
    file.write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(WeightsError, match="cannot be read"):
        read_weights(file)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{}", b"\xff" * 64, b"\x40\x00\x00\x00\x00\x00\x00\x00{not json"],
    ids=["empty", "short header", "absurd length", "no json"],
)
def test_malformed_safetensors_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.safetensors' cannot be read"):
        read_weights(file)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    for name, write in (("a.safetensors", save_file), ("a.pth", torch.save)):
        file = tmp_path / name
        write(dict(make().state_dict()), file)
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(WeightsError):
            read_weights(file)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {"a": {"b": torch.zeros(1)}}, {0: torch.zeros(1)}])
def test_anything_but_named_tensors_is_refused(tmp_path: Path, content: object) -> None:
    file = tmp_path / "weights.pth"
    torch.save(content, file)
    with pytest.raises(WeightsError, match="not a dictionary of tensors"):
        read_weights(file)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights at .*nothing\.pth"):
        read_weights(tmp_path / "nothing.pth")


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_tensors_are_read_from_every_usual_container(tmp_path: Path, wrap: str | None) -> None:
    state = dict(make().state_dict())
    torch.save({wrap: state} if wrap else state, tmp_path / "w.pth")
    save_file(state, tmp_path / "model.safetensors")
    for place in (tmp_path / "w.pth", tmp_path / "model.safetensors", tmp_path):  # the last is how a run folder looks
        found = read_weights(place)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)


def test_a_missing_tensor_is_named() -> None:
    state = dict(make().state_dict())
    del state["blocks.0.mlp.expand.bias"]
    with pytest.raises(WeightsError, match=r"'elsewhere' lack 'blocks\.0\.mlp\.expand\.bias'") as caught:
        load_into(make(), state, "elsewhere")
    assert "--model" in caught.value.hint


def test_a_surplus_tensor_is_named() -> None:
    state = {**make().state_dict(), "blocks.0.ls1.gamma": torch.zeros(24)}
    with pytest.raises(WeightsError, match=r"hold 'blocks\.0\.ls1\.gamma'"):
        load_into(make(), state, "elsewhere")


def test_weights_of_another_width_are_refused_with_both_shapes() -> None:
    with pytest.raises(
        WeightsError, match=r"\(1, 17, 48\) in 'wide'|\(48, 192\) in 'wide'|position embedding of 'wide'"
    ):
        load_into(make(), dict(make(embed_dim=48).state_dict()), "wide")


def test_patches_of_another_size_are_resampled_and_not_mistaken_for_channels() -> None:
    source, model = make(image_size=64, patch_size=16), make()
    notes = load_into(model, dict(source.state_dict()), "coarse")
    assert notes == ("Patches resampled from 16 x 16 pixels to 8 x 8.",)
    kernel = source.patch_embedding.projection.weight.detach().reshape(24, 3, 16, 16)
    expected = resample_patches(kernel, (8, 8)).flatten(1)
    torch.testing.assert_close(model.patch_embedding.projection.weight.detach(), expected)


def test_patches_of_as_many_numbers_but_another_shape_are_told_apart_where_the_source_says() -> None:
    source = make(image_size=64, patch_size=16)  # 3 x 16 x 16 numbers, as many as 12 x 8 x 8
    model = make(in_chans=12)
    notes = load_into(model, dict(source.state_dict()), "coarse", kernel=(3, 16, 16))
    assert notes == (
        "Patches resampled from 16 x 16 pixels to 8 x 8.",
        "The first layer was adapted from 3 to 12 channels.",
    )


def test_nothing_is_copied_from_weights_that_do_not_fit() -> None:
    before = {name: value.clone() for name, value in make().state_dict().items()}
    model = make()
    with pytest.raises(WeightsError, match="mlp"):
        load_into(model, dict(make(mlp_ratio=2.0).state_dict()), "narrow")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_head_for_other_classes_starts_fresh_and_says_so() -> None:
    model = make(num_classes=3)
    before = model.head.weight.clone()
    source = make()
    assert load_into(model, dict(source.state_dict()), "x") == ("The classification head starts fresh, for 3 classes.",)
    assert torch.equal(model.head.weight, before)
    assert torch.equal(model.norm.weight, source.norm.weight)


def test_our_own_names_pass_the_mapping_unchanged() -> None:
    state = dict(make(num_registers=2).state_dict())
    assert from_timm(state).keys() == state.keys()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A Hugging Face hub without a network: one repository, one file, and a record of what was asked."""
    file = tmp_path / "cache" / "model.safetensors"
    file.parent.mkdir()
    save_file({"cls_token": torch.zeros(1, 1, 4), "norm.weight": torch.ones(4)}, file)
    state = SimpleNamespace(file=file, cached=None, licence="apache-2.0", failure=None, asked=[], downloads=[])

    class Api:
        def model_info(self, repository: str, **options: object) -> SimpleNamespace:
            state.asked.append((repository, options))
            if state.failure:
                raise state.failure
            siblings = [SimpleNamespace(rfilename="README.md", size=10)]
            siblings += [SimpleNamespace(rfilename="model.safetensors", size=22_900_000)]
            return SimpleNamespace(siblings=siblings, card_data=SimpleNamespace(license=state.licence))

    def download(repository: str, name: str) -> str:
        state.downloads.append((repository, name))
        return str(file)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: state.cached)
    return state


def test_fetching_says_size_source_and_licence_before_it_downloads(hub: SimpleNamespace) -> None:
    said: list[tuple[str, int]] = []
    fetched = fetch_timm(
        "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        offline=False,
        say=lambda text: said.append((text, len(hub.downloads))),
    )
    repository = "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    assert said == [(f"Fetching 23 MB of weights from huggingface.co/{repository}, licence apache-2.0.", 0)]
    assert hub.downloads == [(repository, "model.safetensors")]
    assert (fetched.source, fetched.licence) == ("timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k", "apache-2.0")
    assert fetched.state.keys() == {"class_token", "norm.weight"}


def test_a_name_without_a_tag_means_timms_default(hub: SimpleNamespace) -> None:
    fetched = fetch_timm("vit_tiny_patch16_224", offline=False)
    assert fetched.source == "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"


def test_an_unstated_licence_is_said_to_be_unstated(hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Any = timm.get_pretrained_cfg
    hub.licence = None
    # vit_tiny's is known to timm where the hub's card says nothing.
    assert fetch_timm("vit_tiny_patch16_224", offline=False).licence == "apache-2.0"
    monkeypatch.setattr("timm.get_pretrained_cfg", lambda name: replace(real(name), license=None))
    assert fetch_timm("vit_tiny_patch16_224", offline=False).licence == "not stated"


def test_what_is_cached_is_used_without_the_network(hub: SimpleNamespace) -> None:
    hub.cached = str(hub.file)
    assert "cached" in fetch_timm("vit_tiny_patch16_224", offline=True).source
    assert not hub.asked
    assert not hub.downloads


def test_offline_says_how_to_hand_in_a_file(hub: SimpleNamespace) -> None:
    with pytest.raises(WeightsError, match="--offline forbids") as caught:
        fetch_timm("vit_tiny_patch16_224", offline=True)
    assert "--init FILE" in caught.value.hint
    assert not hub.asked
    assert not hub.downloads


def test_a_network_that_is_away_is_one_sentence_with_a_way_out(hub: SimpleNamespace) -> None:
    hub.failure = ConnectionError("[Errno -3] Temporary failure in name resolution")
    with pytest.raises(WeightsError, match=r"could not be fetched \(ConnectionError\)") as caught:
        fetch_timm("vit_tiny_patch16_224", offline=False)
    assert "--init FILE" in caught.value.hint


def test_a_damaged_download_is_refused(hub: SimpleNamespace) -> None:
    hub.file.write_bytes(b"<html>proxy says no</html>")
    with pytest.raises(WeightsError, match="cannot be read"):
        fetch_timm("vit_tiny_patch16_224", offline=False)


def test_an_unknown_published_name_asks_nobody(hub: SimpleNamespace) -> None:
    with pytest.raises(WeightsError, match="no model 'vit_teeny_patch16_224'"):
        fetch_timm("vit_teeny_patch16_224", offline=False)
    assert not hub.asked


def test_the_hub_is_away_when_no_connection_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(socket, "create_connection", refuse)
    assert hub_is_reachable(0.1) is False


def test_half_precision_weights_are_widened() -> None:
    state: dict[str, Tensor] = {name: value.half() for name, value in make().state_dict().items()}
    model = make(num_registers=0)
    load_into(model, state, "half")
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())


def test_fixed_positions_are_those_of_the_new_grid_and_need_not_be_stored() -> None:
    source, model = make(positions="sincos", image_size=64), make(positions="sincos")
    expected = sincos_positions((4, 4), 24)
    load_into(model, dict(source.state_dict()), "larger")
    assert model.position_embedding is not None
    torch.testing.assert_close(model.position_embedding, expected)
    state = dict(source.state_dict())
    del state["position_embedding"]
    load_into(model, state, "without")
    torch.testing.assert_close(model.position_embedding, expected)
    with pytest.raises(WeightsError, match="learned positions"):
        load_into(model, dict(make().state_dict()) | {"position_embedding": torch.randn(1, 16, 24)}, "learned")


def test_a_convolutional_stem_takes_other_channels_and_refuses_another_patch() -> None:
    source = make(stem="conv")
    grey = make(stem="conv", in_chans=1).eval()
    assert load_into(grey, dict(source.state_dict()), "x") == ("The first layer was adapted from 3 to 1 channels.",)
    images = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(grey(images), source.eval()(images.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-5)
    with pytest.raises(WeightsError, match="another patch size"):
        load_into(make(stem="conv", patch_size=4), dict(source.state_dict()), "x")
