from __future__ import annotations

import errno
import json
import pickletools
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vitreous.errors import RunError
from vitreous.models import VisionTransformer, architecture, build
from vitreous.training.checkpoint import KEEP, TrainState, restore_newest, save_checkpoint, save_weights
from vitreous.training.ema import Ema
from vitreous.training.loop import fit
from vitreous.training.losses import cross_entropy
from vitreous.training.objective import classify
from vitreous.training.optim import make_optimizer
from vitreous.training.precision import gradient_scaler
from vitreous.training.signals import StopFlag

Everything = Callable[[TrainState], dict[str, Tensor]]


def trained(problem: Any, folder: Path, steps: int) -> TrainState:
    """A state after `steps` steps, with a checkpoint at every fourth."""
    state = problem.state()
    fit(
        state,
        problem.batches(steps),
        problem.settings(steps),
        objective=classify(cross_entropy),
        evaluate=problem.evaluate,
        record=lambda row: None,
        stop=StopFlag(),
        checkpoints=folder,
    )
    return state


@pytest.fixture(scope="session")
def kept(problem: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of twelve steps. Read only."""
    folder = tmp_path_factory.mktemp("kept")
    trained(problem, folder, 12)
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    """A copy of them for a test to change."""
    return Path(shutil.copytree(kept, tmp_path / "checkpoints"))


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_checkpoint_holds_everything(problem: Any, everything: Everything, tmp_path: Path) -> None:
    state = trained(problem, tmp_path, 3)
    state.best_score, state.best_step, state.seconds = 0.75, 3, 12.5
    save_checkpoint(state, tmp_path)
    restored = problem.state(seed=7)
    assert not same(everything(restored), everything(state))
    restore_newest(restored, tmp_path)
    assert same(everything(restored), everything(state))
    assert (restored.step, restored.best_score, restored.best_step, restored.seconds) == (3, 0.75, 3, 12.5)


def test_the_state_of_a_network_with_running_statistics_is_restored(tmp_path: Path, problem: Any) -> None:
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = build(architecture("resnet_micro", num_classes=3, image_size=8))
        model(torch.randn(8, 3, 8, 8))
        states.append(
            TrainState(
                model=model,
                ema=Ema(model, 0.9),
                optimizer=make_optimizer(model, problem.settings(1).optim),
                scaler=gradient_scaler("fp32", "cpu"),
            )
        )
    save_checkpoint(states[0], tmp_path)
    restore_newest(states[1], tmp_path)
    assert same(dict(states[0].model.state_dict()), dict(states[1].model.state_dict()))


def test_only_the_two_newest_states_and_the_best_are_kept(kept: Path) -> None:
    assert sorted(path.name for path in kept.iterdir()) == [
        "best.safetensors",
        "step_00000008.safetensors",
        "step_00000012.safetensors",
    ]
    assert KEEP == 2


def _shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-501] ^= 0x10
    path.write_bytes(content)


def _overwrite(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def _foreign(path: Path) -> None:
    save_weights(VisionTransformer(image_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=1), path)


@pytest.mark.parametrize("damage", [_shorten, _empty, _flip, _overwrite, _foreign])
def test_a_damaged_newest_checkpoint_is_passed_over_aloud(
    problem: Any, everything: Everything, folder: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    (tmp_path / "older").mkdir()
    shutil.copy(folder / "step_00000008.safetensors", tmp_path / "older")
    expected = problem.state()
    restore_newest(expected, tmp_path / "older")

    damage(folder / "step_00000012.safetensors")
    state = problem.state(seed=3)
    notes = restore_newest(state, folder)
    assert len(notes) == 2
    assert notes[0].startswith("step_00000012.safetensors is damaged (")
    assert notes[1] == "Continuing from step_00000008.safetensors."
    assert state.step == 8
    assert same(everything(state), everything(expected))


def test_with_all_checkpoints_damaged_the_state_stays_as_it_is(
    problem: Any, everything: Everything, folder: Path
) -> None:
    for path in folder.glob("step_*"):
        _flip(path)
    state = problem.state()
    before = everything(state)
    notes = restore_newest(state, folder)
    assert len(notes) == 3
    assert notes[-1] == "No checkpoint to continue from; starting at the beginning."
    assert same(everything(state), before)
    assert state.step == 0


def test_without_checkpoints_training_starts_at_the_beginning(problem: Any, tmp_path: Path) -> None:
    state = problem.state()
    assert restore_newest(state, tmp_path) == ["No checkpoint to continue from; starting at the beginning."]


def test_leftovers_of_an_interrupted_write_are_cleared(problem: Any, folder: Path) -> None:
    leftover = folder / ".step_00000016.safetensors.4711.tmp"
    leftover.write_bytes(b"half")
    restore_newest(problem.state(), folder)
    assert not leftover.exists()


def test_a_full_disk_leaves_the_old_state_intact_and_nothing_behind(
    problem: Any, everything: Everything, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = problem.state()
    restore_newest(state, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    real = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        real(self, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    state.step = 13
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        for save in (save_checkpoint, lambda s, folder: save_weights(s.model, folder / "best.safetensors")):
            with pytest.raises(RunError, match="disk is full") as caught:
                save(state, folder)
            assert "--resume" in caught.value.hint
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    restored = problem.state(seed=1)
    assert restore_newest(restored, folder) == ["Continuing from step_00000012.safetensors."]
    assert same(everything(restored), everything(state))


def test_a_full_disk_in_the_middle_of_training_is_a_run_error(
    problem: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if "step_00000008" in self.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunError, match=r"step_00000008\.safetensors"):
        trained(problem, tmp_path, 12)
    restored = problem.state(seed=1)
    restore_newest(restored, tmp_path)
    assert restored.step == 4


def test_nothing_among_the_checkpoints_is_a_pickle(kept: Path) -> None:
    files = [path for path in kept.rglob("*") if path.is_file()]
    assert len(files) == 3
    for path in files:
        content = path.read_bytes()
        assert path.suffix == ".safetensors"
        assert not content.startswith((b"\x80", b"PK"))
        length = int.from_bytes(content[:8], "little")
        assert json.loads(content[8 : 8 + length])["__metadata__"]
        with pytest.raises(ValueError):
            list(pickletools.genops(content))


def test_weights_are_as_readable_as_any_other_file(problem: Any, tmp_path: Path) -> None:
    # A server often runs as another user than training did.
    save_weights(problem.state().model, tmp_path / "model.safetensors")
    (tmp_path / "plain").write_bytes(b"")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("model.safetensors", "plain")]
    assert modes[0] == modes[1]


def test_moments_are_restored_to_where_their_parameters_are(problem: Any, kept: Path) -> None:
    restored = problem.state()
    restore_newest(restored, kept)
    for parameter, moments in restored.optimizer.state.items():
        assert {value.device for value in moments.values()} == {parameter.device}
        assert moments.keys() == {"step", "exp_avg", "exp_avg_sq"}
    assert len(restored.optimizer.state) == len(list(restored.model.parameters()))
