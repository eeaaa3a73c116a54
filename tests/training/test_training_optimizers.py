from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vitreous.config.facts import DataFacts
from vitreous.config.optim import OptimConfig, OptimizerName
from vitreous.config.train import TrainConfig
from vitreous.models import VisionTransformer, architecture, build
from vitreous.recipes import resolve
from vitreous.training.checkpoint import TrainState, restore_newest, save_checkpoint
from vitreous.training.ema import Ema
from vitreous.training.groups import head_names, hidden_matrices, layer_scales, parameter_groups
from vitreous.training.loop import fit
from vitreous.training.losses import cross_entropy
from vitreous.training.objective import classify
from vitreous.training.optim import make_optimizer
from vitreous.training.optimizers.lamb import Lamb
from vitreous.training.optimizers.muon import Muon, newton_schulz, orthogonalised
from vitreous.training.optimizers.schedule_free import ScheduleFree, evaluated_weights
from vitreous.training.precision import gradient_scaler
from vitreous.training.schedule import learning_rate
from vitreous.training.signals import StopFlag

Everything = Callable[[TrainState], dict[str, Tensor]]
NAMES: tuple[OptimizerName, ...] = ("adamw", "lamb", "muon", "schedule-free")
RATES = (0.02, 0.05, 0.05, 0.03)
SHAPES = ((4, 3), (6,), (2, 3, 3, 3))
BETAS = (0.9, 0.98)


def weights(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def walk(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> list[list[np.ndarray]]:
    """Four steps under changing rates with seeded gradients; the gradients, for a second opinion."""
    generator, taken = torch.Generator().manual_seed(1), []
    for rate in RATES:
        for group in optimizer.param_groups:
            group["lr"] = rate
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        taken.append([parameter.grad.double().numpy() for parameter in parameters if parameter.grad is not None])
        optimizer.step()
    return taken


# LAMB


def test_lamb_is_the_papers_algorithm() -> None:
    parameters = weights()
    expected = [parameter.detach().double().numpy() for parameter in parameters]
    gradients = walk(Lamb([{"params": parameters, "weight_decay": 0.1}], lr=1.0, betas=BETAS), parameters)
    for place, w in enumerate(expected):
        m, v = np.zeros_like(w), np.zeros_like(w)
        for t, rate in enumerate(RATES, start=1):
            g = gradients[t - 1][place]
            m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g**2
            r = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.98**t)) + 1e-6) + 0.1 * w
            w = w - rate * np.linalg.norm(w) / np.linalg.norm(r) * r
        np.testing.assert_allclose(parameters[place].detach().numpy(), w, rtol=1e-5, atol=1e-6)


def test_lamb_is_timms_with_and_without_decay() -> None:
    from timm.optim import Lamb as Timms

    mine, theirs = weights(), weights()
    groups = [(slice(0, 1), 0.1, True), (slice(1, 3), 0.0, False)]  # timm adapts only what decays
    walk(
        Lamb(
            [{"params": mine[part], "weight_decay": decay, "adapted": adapted} for part, decay, adapted in groups],
            lr=1.0,
            betas=BETAS,
        ),
        mine,
    )
    walk(
        Timms(
            [{"params": theirs[part], "weight_decay": decay} for part, decay, _ in groups],
            lr=1.0,
            betas=BETAS,
            eps=1e-6,
            max_grad_norm=None,
        ),
        theirs,
    )
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_weights_of_zero_take_lambs_step_unscaled() -> None:
    parameter = nn.Parameter(torch.zeros(3, 2))
    parameter.grad = torch.ones(3, 2)
    Lamb([{"params": [parameter]}], lr=0.5, betas=BETAS).step()
    torch.testing.assert_close(parameter.detach(), torch.full((3, 2), -0.5))


# Muon


def test_newton_schulz_applies_its_polynomial_to_the_singular_values() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, 5, 8)
    u, s, v = torch.linalg.svd(matrices.double(), full_matrices=False)
    s = s / s.norm(dim=1, keepdim=True)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    assert 0.6 < float(s.min()) <= float(s.max()) < 1.25
    torch.testing.assert_close(newton_schulz(matrices), (u @ torch.diag_embed(s) @ v).float(), atol=1e-4, rtol=1e-3)
    assert torch.equal(newton_schulz(torch.zeros(1, 2, 2)), torch.zeros(1, 2, 2))


def test_matrices_are_orthogonalised_each_by_itself_whatever_lies_beside_them() -> None:
    torch.manual_seed(0)
    stacks = [torch.randn(shape) for shape in ((3, 4, 4), (1, 6, 4), (1, 4, 6), (2, 4, 4))]
    found = orthogonalised(stacks, torch.float32)
    for stack, together in zip(stacks, found, strict=True):
        assert together.shape == stack.shape
        for matrix, solved in zip(stack, together, strict=True):
            alone = newton_schulz((matrix if len(matrix) <= len(matrix[0]) else matrix.T)[None])[0]
            torch.testing.assert_close(solved, alone if alone.shape == solved.shape else alone.T, atol=1e-5, rtol=1e-4)


def test_muon_is_torchs_on_a_single_matrix() -> None:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    torch.manual_seed(0)
    start = torch.randn(12, 20)
    mine, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    walk(Muon([{"params": [mine], "weight_decay": 0.1, "parts": 1}], lr=1.0, betas=BETAS), [mine])
    torchs: Any = torch.optim.Muon([theirs], lr=1.0, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    walk(torchs, [theirs])
    moved, reference = (mine.detach() - start).flatten(), (theirs.detach() - start).flatten()
    # torch's works in bf16.
    assert float(torch.cosine_similarity(moved, reference, dim=0)) > 0.9995
    assert float(moved.norm() / reference.norm()) == pytest.approx(1, abs=0.01)


def test_a_muon_step_is_about_as_long_as_adamws_whatever_the_shape() -> None:
    torch.manual_seed(0)
    for shape in ((64, 64), (16, 128), (128, 16), (32, 8, 3, 3)):
        parameter = nn.Parameter(torch.zeros(shape))
        parameter.grad = torch.randn(shape)
        Muon([{"params": [parameter], "parts": 1}], lr=1.0, betas=BETAS).step()
        assert 0.12 < float(parameter.detach().square().mean().sqrt()) < 0.25


def test_query_key_and_value_are_three_matrices_to_muon() -> None:
    torch.manual_seed(0)
    gradient = torch.randn(3, 8, 8)
    gradient[0] *= 1000  # would drown the others in one matrix
    whole, parts = nn.Parameter(torch.zeros(24, 8)), [nn.Parameter(torch.zeros(8, 8)) for _ in range(3)]
    whole.grad = gradient.reshape(24, 8)
    for part, slope in zip(parts, gradient, strict=True):
        part.grad = slope
    Muon([{"params": [whole], "parts": 3}, {"params": parts, "parts": 1}], lr=1.0, betas=BETAS).step()
    torch.testing.assert_close(whole.detach(), torch.cat([part.detach() for part in parts]), atol=1e-5, rtol=1e-4)


def test_what_is_no_hidden_matrix_takes_adamws_step_under_muon() -> None:
    torch.manual_seed(0)
    one = VisionTransformer(image_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2, num_classes=3)
    two = VisionTransformer(image_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2, num_classes=3)
    two.load_state_dict(one.state_dict())
    config = OptimConfig(lr=0.01, weight_decay=0.1, beta1=0.9, beta2=0.98)
    for model, name in ((one, "muon"), (two, "adamw")):
        walk(make_optimizer(model, replace(config, name=name)), list(model.parameters()))  # type: ignore[arg-type]
    inside = {
        f"blocks.{layer}.{part}.weight"
        for layer in range(2)
        for part in ("attention.qkv", "attention.projection", "mlp.expand", "mlp.contract")
    }
    differing = {name for name, value in one.state_dict().items() if not torch.equal(value, two.state_dict()[name])}
    assert differing == inside


def test_the_hidden_matrices_of_a_convolutional_network_leave_out_first_layer_head_and_depthwise_kernels() -> None:
    with torch.device("meta"):
        resnet = build(architecture("resnet_micro", num_classes=3, image_size=32))
        convnext = build(architecture("convnext_tiny", num_classes=3, image_size=32))
    found = hidden_matrices(resnet)
    assert "body.conv1.0.weight" not in found and "body.fc.weight" not in found
    assert {"body.conv1.3.weight", "body.layer4.0.conv2.weight"} <= found.keys()
    assert head_names(resnet) == {"body.fc.weight", "body.fc.bias"}
    found = hidden_matrices(convnext)
    assert "body.stages.0.blocks.0.mlp.fc1.weight" in found
    assert "body.stages.0.blocks.0.conv_dw.weight" not in found


def test_a_gated_mlp_expands_by_two_matrices() -> None:
    model = VisionTransformer(image_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2, mlp="swiglu")
    assert hidden_matrices(model) == {
        "blocks.0.attention.qkv.weight": 3,
        "blocks.0.attention.projection.weight": 1,
        "blocks.0.mlp.expand.weight": 2,
        "blocks.0.mlp.contract.weight": 1,
    }


# Schedule-free


def test_schedule_free_is_the_papers_algorithm() -> None:
    parameters = weights()
    starts = [parameter.detach().double().numpy() for parameter in parameters]
    optimizer = ScheduleFree([{"params": parameters, "weight_decay": 0.1}], lr=1.0, betas=BETAS)
    gradients = walk(optimizer, parameters)
    for place, start in enumerate(starts):
        x, z, v, total = start, start, np.zeros_like(start), 0.0
        for t, peak in enumerate(RATES, start=1):
            y, g = 0.1 * z + 0.9 * x, gradients[t - 1][place]
            v = 0.98 * v + 0.02 * g**2
            rate = peak * math.sqrt(1 - 0.98**t)
            z = z - rate * g / (np.sqrt(v) + 1e-8) - rate * 0.1 * y
            total += rate**2
            x = (1 - rate**2 / total) * x + rate**2 / total * z
        parameter = parameters[place]
        np.testing.assert_allclose(optimizer.state[parameter]["x"], x, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(parameter.detach(), 0.1 * z + 0.9 * x, rtol=1e-5, atol=1e-6)


def test_a_rate_of_zero_moves_nothing() -> None:
    for name in NAMES:
        model = nn.Linear(3, 2)
        before = model.weight.detach().clone()
        optimizer = make_optimizer(model, OptimConfig(name=name, lr=0.0001, weight_decay=0.1, beta1=0.9, beta2=0.98))
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        torch.testing.assert_close(model.weight.detach(), before)


def test_the_averaged_model_of_schedule_free_training_is_its_x() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2).requires_grad_(False))
    optimizer = make_optimizer(
        model, OptimConfig(name="schedule-free", lr=0.1, weight_decay=0.0, beta1=0.9, beta2=0.98)
    )
    assert all(one is other for one, other in zip(evaluated_weights(model, optimizer), model.parameters(), strict=True))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    walk(optimizer, trained)
    ema = Ema(model, decay=0.0)
    ema.update(model, 4, evaluated_weights(model, optimizer))
    averaged = list(ema.model.parameters())
    assert torch.equal(averaged[0], optimizer.state[trained[0]]["x"])
    assert not torch.equal(averaged[0], trained[0])
    assert torch.equal(averaged[2], model.get_parameter("1.weight"))


def test_schedule_free_leaves_the_learning_rate_and_the_averaging_alone_unless_told() -> None:
    facts = DataFacts(
        classes=("a", "b"),
        train_counts=(450, 450),
        num_val=100,
        num_test=100,
        sizes=((32, 32),),
        grey_share=0.0,
        deep_share=0.0,
        brightness=0.5,
        device="cpu",
        cores=2,
        budget=None,
    )
    optim = resolve(TrainConfig(optim=OptimConfig(name="schedule-free")), facts).config.optim
    assert (optim.schedule, optim.ema_decay) == ("constant", 0.0)
    told = OptimConfig(name="schedule-free", schedule="wsd", ema_decay=0.5)
    optim = resolve(TrainConfig(optim=told), facts).config.optim
    assert (optim.schedule, optim.ema_decay) == ("wsd", 0.5)


# All of them


def trained(problem: Any, folder: Path, config: OptimConfig, steps: int) -> TrainState:
    """The state after `steps` of four steps, begun from what lies in the folder."""
    state = problem.state(optim=config)
    restore_newest(state, folder)
    settings = problem.settings(4, optim=config, validate_every=2)
    fit(
        state,
        problem.batches(4),
        settings,
        objective=classify(cross_entropy),
        evaluate=problem.evaluate,
        record=lambda row: None,
        stop=StopFlag(),
        checkpoints=folder,
        until=steps,
    )
    return state


@pytest.mark.parametrize("sam", [0.0, 0.05])
@pytest.mark.parametrize("name", NAMES)
def test_four_steps_are_two_and_a_restart_and_two_bit_for_bit(
    problem: Any, everything: Everything, tmp_path: Path, name: OptimizerName, sam: float
) -> None:
    config = replace(problem.settings(4).optim, name=name, sam=sam, layer_decay=0.7)
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = everything(trained(problem, tmp_path / "whole", config, 4))
    trained(problem, tmp_path / "parts", config, 2)
    parts = everything(trained(problem, tmp_path / "parts", config, 4))
    assert whole.keys() == parts.keys()
    assert not [key for key in whole if not torch.equal(whole[key], parts[key])]


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_makes_a_model_fit_its_images(problem: Any, name: OptimizerName) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    optimizer = make_optimizer(model, OptimConfig(name=name, lr=0.01, weight_decay=0.01, beta1=0.9, beta2=0.98))
    images = torch.from_numpy(problem.store.get(np.arange(60))).float().permute(0, 3, 1, 2) / 16
    labels = torch.from_numpy(problem.labels)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    with torch.no_grad():
        assert float((model(images).argmax(1) == labels).float().mean()) > 0.95


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_without_a_gradient_is_left_alone_and_may_join_later(name: OptimizerName) -> None:
    torch.manual_seed(0)
    model = VisionTransformer(image_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2, num_classes=3)
    optimizer = make_optimizer(model, OptimConfig(name=name, lr=0.01, weight_decay=0.1, beta1=0.9, beta2=0.98))
    late = model.get_parameter("blocks.0.mlp.expand.weight")
    before = late.detach().clone()
    rest = [parameter for parameter in model.parameters() if parameter is not late]
    walk(optimizer, rest)
    assert torch.equal(late, before)
    walk(optimizer, [*rest, late])
    assert bool(late.isfinite().all()) and not torch.equal(late, before)


# Layer-wise rates


def test_layer_wise_rates_of_a_vision_transformer_are_the_papers() -> None:
    model = VisionTransformer(
        image_size=8, patch_size=4, embed_dim=8, depth=3, num_heads=2, num_registers=1, num_classes=3, rope="mixed"
    )
    scales = layer_scales(model, 0.5)
    by_layer: dict[float, set[str]] = {}
    for name, scale in scales.items():
        key = ".".join(name.split(".")[:2]) if name.startswith("blocks") else name.split(".")[0]
        by_layer.setdefault(scale, set()).add(key)
    assert by_layer == {
        1 / 16: {"class_token", "registers", "position_embedding", "patch_embedding", "rope"},
        1 / 8: {"blocks.0"},
        1 / 4: {"blocks.1"},
        1 / 2: {"blocks.2"},
        1.0: {"norm", "head"},
    }


def test_layer_wise_rates_of_a_convolutional_network_go_by_stage() -> None:
    with torch.device("meta"):
        scales = layer_scales(build(architecture("resnet_micro", num_classes=3, image_size=32)), 0.5)
    stages = {name.split(".")[1]: scale for name, scale in scales.items()}
    assert stages == {
        "conv1": 1 / 32,
        "bn1": 1 / 32,
        "layer1": 1 / 16,
        "layer2": 1 / 8,
        "layer3": 1 / 4,
        "layer4": 1 / 2,
        "fc": 1.0,
    }
    assert set(layer_scales(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), 0.5).values()) == {1.0}


def test_the_groups_of_layer_wise_rates_hold_each_parameter_once() -> None:
    model = VisionTransformer(image_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2, num_classes=3)
    groups = parameter_groups(model, 0.1, 0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert sorted({group["lr_scale"] for group in groups}) == [1 / 8, 1 / 4, 1 / 2, 1.0]
    assert [group["weight_decay"] for group in groups] == [0.1] * 4 + [0.0] * 4


def test_a_step_of_the_loop_multiplies_the_rate_by_the_scale_of_the_layer() -> None:
    from vitreous.training.step import update

    model = VisionTransformer(image_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2, num_classes=3)
    config = OptimConfig(lr=1.0, weight_decay=0.0, beta1=0.9, beta2=0.98, layer_decay=0.5)
    state = TrainState(
        model=model,
        ema=Ema(model, 0.0),
        optimizer=make_optimizer(model, config),
        scaler=gradient_scaler("fp32", "cpu"),
    )
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    update(state, 0.008)
    for name, scale in (("class_token", 1 / 8), ("blocks.1.mlp.expand.weight", 1 / 2), ("head.weight", 1.0)):
        moved = before[name] - model.get_parameter(name).detach()
        torch.testing.assert_close(moved, torch.full_like(moved, 0.008 * scale), rtol=1e-3, atol=1e-6)


# Schedules


def test_wsd_stays_at_the_peak_and_falls_in_a_straight_line() -> None:
    config = OptimConfig(lr=2.0, warmup=0.2, schedule="wsd", cooldown=0.4, final_lr=0.1)
    rates = [learning_rate(step, 10, config) for step in range(10)]
    fall = [2.0 * (0.1 + 0.9 * share) for share in (0.75, 0.5, 0.25, 0.0)]
    assert rates == pytest.approx([1.0, 2.0, 2.0, 2.0, 2.0, 2.0, *fall])


def test_a_warm_up_that_reaches_into_the_cooldown_shortens_it() -> None:
    config = OptimConfig(lr=2.0, warmup=0.5, schedule="wsd", cooldown=1.0, final_lr=0.0)
    assert [learning_rate(step, 4, config) for step in range(4)] == pytest.approx([1.0, 2.0, 1.0, 0.0])


def test_a_constant_rate_and_a_cooldown_of_nothing_stay_at_the_peak() -> None:
    for changes in ({"schedule": "constant"}, {"schedule": "wsd", "cooldown": 0.0}):
        config = replace(OptimConfig(lr=2.0, warmup=0.25, final_lr=0.1), **changes)  # type: ignore[arg-type]
        assert [learning_rate(step, 8, config) for step in range(8)] == [1.0] + [2.0] * 7


def test_a_saved_optimizer_state_holds_tensors_only(problem: Any, tmp_path: Path) -> None:
    for name in NAMES:
        state = problem.state(optim=replace(problem.settings(4).optim, name=name))
        walk(state.optimizer, list(state.model.parameters()))
        save_checkpoint(state, tmp_path)
        for values in state.optimizer.state.values():
            assert all(isinstance(value, Tensor) for value in values.values())
