"""Where a run's weights come from: what `auto` chooses and says, and models taken from folders and files of others."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

import vitreous
from vitreous.config.facts import DataFacts
from vitreous.config.train import NetConfig, TrainConfig
from vitreous.errors import UsageError, WeightsError
from vitreous.models.build import architecture, fitting_image_size
from vitreous.models.foreign.huggingface import to_huggingface
from vitreous.models.foreign.huggingface_folder import huggingface_config, huggingface_like
from vitreous.models.vit import VisionTransformer
from vitreous.models.weights import to_timm
from vitreous.workflows.initial import settle_init, settle_size
from vitreous.workflows.reporter import Silent


class Listener(Silent):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def photographs(side: int = 256) -> DataFacts:
    """A hundred photographs, on a CPU."""
    return DataFacts(
        classes=("a", "b"),
        train_counts=(50, 50),
        num_val=10,
        num_test=10,
        sizes=((side, side),),
        grey_share=0.0,
        deep_share=0.0,
        brightness=0.5,
        device="cpu",
        cores=2,
        budget=None,
    )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A Hugging Face hub without a network, that holds vit_tiny under timm's names and counts what is fetched."""
    import timm

    theirs = timm.create_model("vit_tiny_patch16_224")
    file = tmp_path / "hub" / "model.safetensors"
    file.parent.mkdir()
    save_file(dict(theirs.state_dict()), file)
    state = SimpleNamespace(file=file, reachable=True, broken=False, fetched=[], cached=None, model=theirs)

    def download(repository: str, name: str) -> str:
        if state.broken:
            raise ConnectionError("the line went dead")
        state.fetched.append(repository)
        return str(file)

    def facts(self: object, repository: str, **_: object) -> SimpleNamespace:
        siblings = [SimpleNamespace(rfilename="model.safetensors", size=22_900_000)]
        return SimpleNamespace(siblings=siblings, card_data=SimpleNamespace(license="apache-2.0"))

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", facts)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: state.cached)
    monkeypatch.setattr("vitreous.workflows.initial.hub_is_reachable", lambda: state.reachable)
    return state


def test_auto_names_size_source_and_licence_of_what_it_fetches(hub: SimpleNamespace) -> None:
    listener = Listener()
    settled = settle_init(TrainConfig(), photographs(), listener)
    assert settled.init == "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    assert settled.model == "vit_tiny_patch16_224"
    assert listener.said[0] == (
        "Fetching 23 MB of weights from huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k, licence apache-2.0."
    )
    assert "train from nothing with --init scratch" in listener.said[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reachable": False}, "cannot be reached"),
        ({"broken": True}, "could not be fetched (ConnectionError)"),
    ],
)
def test_auto_without_weights_trains_from_scratch_and_says_why(
    hub: SimpleNamespace, change: dict[str, bool], said: str
) -> None:
    vars(hub).update(change)
    listener = Listener()
    assert settle_init(TrainConfig(), photographs(), listener).init == "scratch"
    assert said in listener.said[-1] and "--init FILE" in listener.said[-1]
    assert hub.fetched == []


def test_auto_offline_uses_what_is_cached_and_only_that(hub: SimpleNamespace) -> None:
    listener = Listener()
    assert settle_init(TrainConfig(offline=True), photographs(), listener).init == "scratch"
    assert "--offline forbids" in listener.said[-1]
    hub.cached = str(hub.file)
    assert settle_init(TrainConfig(offline=True), photographs(), listener).init.startswith("timm:vit_tiny")
    assert hub.fetched == []


def test_auto_gives_up_on_a_silent_network_within_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []

    def silent(address: tuple[str, int], timeout: float) -> None:
        waits.append(timeout)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", silent)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    listener = Listener()
    began = time.monotonic()
    assert settle_init(TrainConfig(), photographs(), listener).init == "scratch"
    assert sum(waits) <= 5 and time.monotonic() - began < 5 and "cannot be reached" in listener.said[-1]


@pytest.mark.parametrize(
    ("config", "side"),
    [
        (TrainConfig(), 32),
        (TrainConfig(net=NetConfig(depth=3)), 256),
        (TrainConfig(model="vit_compact"), 256),
        (TrainConfig(model="vit_tiny_patch8_224"), 256),
        (TrainConfig(model="resnet18"), 256),
        (TrainConfig(model="vit_small_patch16_dinov3"), 256),  # its licence is not a permissive one
    ],
)
def test_auto_takes_no_weights_where_none_fit(hub: SimpleNamespace, config: TrainConfig, side: int) -> None:
    assert settle_init(config, photographs(side), Listener()).init == "scratch"
    assert hub.fetched == []


def test_auto_finds_the_published_weights_of_a_named_model(hub: SimpleNamespace) -> None:
    for model in ("vit_small_dinov2", "vit_small_patch14_dinov2"):
        settled = settle_init(TrainConfig(model=model), photographs(), Listener())
        assert (settled.model, settled.init) == (model, "timm:vit_small_patch14_dinov2.lvd142m")


def test_create_model_says_what_it_does_about_weights(hub: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    model = vitreous.create_model("vit_tiny_patch16_224", num_classes=1000, init="auto")
    expected = hub.model.state_dict()["blocks.0.attn.qkv.weight"]
    assert torch.equal(model.state_dict()["blocks.0.attention.qkv.weight"], expected)
    assert "Fetching 23 MB" in capsys.readouterr().err
    hub.reachable = False
    vitreous.create_model("vit_tiny_patch16_224", num_classes=3, init="auto")
    assert "init scratch: the Hugging Face hub cannot be reached" in capsys.readouterr().err
    vitreous.create_model("vit_compact", num_classes=3, init="auto", image_size=32)
    assert "no published weights" in capsys.readouterr().err
    with pytest.raises(WeightsError, match="timm publishes no weights"):
        vitreous.create_model("vit_tiny_patch16_224", num_classes=3, init="timm:vit_tiny_patch16_224.nonsense")


def test_published_weights_are_fitted_and_each_change_is_said(
    hub: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    model = vitreous.create_model("vit_tiny", 3, init=name, image_size=96, in_chans=4, patch_size=8)
    said = capsys.readouterr().err
    assert "Positions resampled from 14 x 14 to 12 x 12 patches." in said
    assert "Patches resampled from 16 x 16 pixels to 8 x 8." in said
    assert "The first layer was adapted from 3 to 4 channels." in said
    assert "The classification head starts fresh, for 3 classes." in said
    assert model.eval()(torch.zeros(1, 4, 96, 96)).shape == (1, 3)


def test_the_image_size_of_a_named_model_fits_its_patch() -> None:
    sizes = {
        "vit_small_dinov2": 224,
        "vit_small_patch14_dinov2": 224,
        "vit_base_patch16_384": 384,
        "vit_so400m_patch14_siglip_384": 378,
        "vit_base_patch32_clip_224": 224,
        "vit_compact": None,
        "vit_tiny": None,
        "resnet18": None,
    }
    assert {name: fitting_image_size(name) for name in sizes} == sizes
    assert settle_size(TrainConfig(model="vit_small_dinov2")).image_size == 224
    assert settle_size(TrainConfig(model="vit_small_dinov2", image_size=140)).image_size == 140
    assert settle_size(TrainConfig()).image_size is None


def model_of(name: str, **sizes: Any) -> VisionTransformer:
    torch.manual_seed(0)
    model = vitreous.create_model(name, 2, **sizes).eval()
    assert isinstance(model, VisionTransformer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def test_a_hugging_face_folder_is_a_model(tmp_path: Path) -> None:
    source = model_of("vit_tiny", image_size=32, patch_size=8, depth=2)
    arguments = architecture("vit_tiny", num_classes=2, image_size=32, patch_size=8, depth=2).arguments
    config = huggingface_config(arguments, ("cat", "dog"))
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(to_huggingface(dict(source.state_dict()), huggingface_like(config)), tmp_path / "model.safetensors")
    images = torch.randn(2, 3, 32, 32)
    again = vitreous.create_model(str(tmp_path), 2).eval()
    torch.testing.assert_close(again(images), source(images), atol=1e-5, rtol=1e-5)
    larger = vitreous.create_model(str(tmp_path), 2, image_size=64)
    assert isinstance(larger, VisionTransformer) and larger.grid_size == (8, 8)


def test_a_timm_file_is_weights_for_a_named_model(tmp_path: Path) -> None:
    import timm

    source = model_of("vit_small_patch16_dinov3", image_size=32, depth=1)
    like = timm.create_model("vit_small_patch16_dinov3", num_classes=2, depth=1).state_dict()
    save_file(
        {name: value.contiguous() for name, value in to_timm(dict(source.state_dict()), dict(like)).items()},
        tmp_path / "w.safetensors",
    )
    again = vitreous.create_model(
        "vit_small_patch16_dinov3", 2, init=str(tmp_path / "w.safetensors"), image_size=32, depth=1
    ).eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(again(images), source(images))
    with pytest.raises(UsageError, match="does not say which model"):
        vitreous.create_model(str(tmp_path / "w.safetensors"), 2)


def test_training_starts_from_a_run_at_another_size_with_the_runs_own_shape(
    trained: Path, colors: Path, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    settings = {**tiny, "epochs": 1, "image_size": 32, "net": {}}
    run = vitreous.train(colors, init=str(trained), out=tmp_path / "larger", **settings)
    stored, before = run.run.architecture, vitreous.load(trained).run.architecture
    assert stored["arguments"]["image_size"] == [32, 32]
    for name in ("embed_dim", "depth", "num_heads"):
        assert stored["arguments"][name] == before["arguments"][name]
    facts = json.loads((run.path / "run.json").read_text(encoding="utf-8"))
    assert any("resampled" in note for note in facts["weights"]["notes"]), facts["weights"]


def test_a_run_folder_as_a_name_keeps_its_head_and_channels(trained: Path) -> None:
    clf = vitreous.load(trained)
    again = vitreous.create_model(str(trained))
    for name, value in clf.model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    with pytest.raises(UsageError, match="brings its own weights"):
        vitreous.create_model(str(trained), init="auto")


def test_what_no_tensor_shows_comes_with_the_weights_or_is_refused(
    hub: SimpleNamespace, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = vitreous.load(trained).run.architecture
    shape = {name: stored["arguments"][name] for name in ("depth", "embed_dim")}
    patch = stored["arguments"]["patch_size"][0]
    model = vitreous.create_model(
        "vit_compact", 3, init=str(trained), image_size=16, patch_size=patch, mlp_ratio=2.0, **shape
    )
    assert isinstance(model, VisionTransformer)
    assert model.blocks[0].attention.num_heads == stored["arguments"]["num_heads"]  # type: ignore[union-attr]
    assert "as the weights were made with" in capsys.readouterr().err
    with pytest.raises(WeightsError, match="made with num_heads=3"):
        vitreous.create_model("vit_tiny", 3, init="timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k", num_heads=6)


def test_a_model_named_like_its_weights_is_told_how_to_say_so() -> None:
    for name in ("timm:vit_tiny_patch16_224", "vit_tiny_patch16_224.augreg_in21k"):
        with pytest.raises(UsageError, match="--init"):
            vitreous.create_model(name, 3)


def test_weights_for_a_convolutional_model_are_refused_before_any_is_fetched(hub: SimpleNamespace) -> None:
    with pytest.raises(UsageError, match="for Vision Transformers only"):
        vitreous.create_model("resnet18", 3, init="timm:resnet18.a1_in1k")
    assert hub.fetched == []


def test_images_need_not_be_square() -> None:
    model = vitreous.create_model("vit_tiny", 3, image_size=(64, 32))
    assert isinstance(model, VisionTransformer)
    assert model.grid_size == (16, 8)
    with pytest.raises(UsageError, match="image_size"):
        vitreous.create_model("vit_tiny", 3, image_size=-16)
