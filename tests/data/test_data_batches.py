from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vitreous.config.input import InputSpec
from vitreous.config.train import AugmentConfig, Balance, LossConfig
from vitreous.data import PixelStore, load_source
from vitreous.data.augmentation.augment import Augment
from vitreous.data.batches import TrainBatches, eval_batches
from vitreous.errors import DataError
from vitreous.inputs import prepare
from vitreous.training.losses import make_loss

torch.set_num_threads(1)
Make = Callable[..., Path]
SPEC = InputSpec(height=8, width=8, classes=("a", "b"))
CONFIG = AugmentConfig(
    horizontal_flip=True,
    vertical_flip=False,
    quarter_turns=False,
    rotate=10.0,
    translate=0.1,
    scale=0.1,
    shear=0.0,
    crop_area=1.0,
    pad_crop=0,
    rand_augment_ops=0,
    rand_augment_magnitude=0,
    brightness=0.1,
    contrast=0.1,
    gamma=0.0,
    blur=0.0,
    noise=0.0,
    erase=0.0,
    mixup=0.8,
    cutmix=0.0,
    mix_probability=1.0,
    mix_until=0.5,
    strong_until=1.0,
    three_augment=False,
    repeats=1,
    start_size=1.0,
    full_size_from=0.0,
)


@pytest.fixture
def store(make_images: Make) -> PixelStore:
    root = make_images({f"{label}/{i}.png": 10 * ord(label) + i for label in "ab" for i in range(5)}, size=(19, 11))
    return PixelStore(load_source(root), range(10), SPEC, threads=1, max_bytes=10**9)


def _batches(
    store: PixelStore,
    *,
    batch_size: int = 4,
    seed: int = 0,
    mix_until_step: int = 0,
    config: AugmentConfig = CONFIG,
    **settings: Any,
) -> TrainBatches:
    return TrainBatches(
        store,
        np.array([0] * 5 + [1] * 5),
        batch_size=batch_size,
        seed=seed,
        augment=Augment(config, SPEC, 2, 0.0),
        mix_until_step=mix_until_step,
        **settings,
    )


def test_every_epoch_shows_every_image_once_in_a_new_order(store: PixelStore) -> None:
    batches = _batches(store)
    stream = np.concatenate([batches.rows(step) for step in range(10)])
    epochs = stream.reshape(4, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4
    assert batches.steps_per_epoch == 3


def test_every_batch_is_full_even_where_it_is_larger_than_the_data(store: PixelStore) -> None:
    batches = _batches(store, batch_size=24)
    assert batches.steps_per_epoch == 1
    rows = batches.rows(3)
    assert len(rows) == 24
    assert max(np.bincount(rows)) <= 4


def test_a_step_is_the_same_whatever_was_asked_before(store: PixelStore) -> None:
    undisturbed = _batches(store, mix_until_step=100)
    for step in range(7):
        undisturbed.batch(step)
    first, resumed = undisturbed.batch(7), _batches(store, mix_until_step=100).batch(7)
    assert torch.equal(first[0], resumed[0])
    assert torch.equal(first[1], resumed[1])


def test_labels_go_with_their_images(store: PixelStore) -> None:
    batches = _batches(store)
    for step in range(5):
        _, targets = batches.batch(step)
        assert targets.argmax(1).tolist() == [int(row >= 5) for row in batches.rows(step)]


def test_seed_and_step_decide_order_and_augmentation(store: PixelStore) -> None:
    one, two = _batches(store, seed=0), _batches(store, seed=1)
    assert not np.array_equal(one.rows(0), two.rows(0))
    full = _batches(store, batch_size=10)
    by_row = [dict(zip(full.rows(step).tolist(), full.batch(step)[0], strict=True)) for step in (0, 1)]
    assert any(not torch.equal(by_row[0][row], by_row[1][row]) for row in range(10))


def test_mixing_stops_at_its_step(store: PixelStore) -> None:
    batches = _batches(store, mix_until_step=3)
    hard = [bool(((batches.batch(step)[1] == 0) | (batches.batch(step)[1] == 1)).all()) for step in range(6)]
    assert hard[3:] == [True] * 3
    assert not all(hard[:3])


def test_strong_changes_stop_at_their_step_and_moves_go_on(store: PixelStore) -> None:
    config = replace(CONFIG, rand_augment_ops=2, rand_augment_magnitude=9, erase=1.0)
    plain = _batches(store, config=replace(CONFIG, rand_augment_ops=0, erase=0.0))
    changing, stopping = _batches(store, config=config), _batches(store, config=config, strong_until_step=3)
    for step in range(6):
        expected = changing if step < 3 else plain
        assert torch.equal(stopping.batch(step)[0], expected.batch(step)[0])
        assert not torch.equal(changing.batch(step)[0], plain.batch(step)[0])


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (0, 1), (2, 4), (3, 12)])
def test_prefetching_gives_the_same_batches_in_order(store: PixelStore, start: int, stop: int) -> None:
    batches = _batches(store, mix_until_step=100)
    seen = list(batches.prefetch(start, stop))
    assert [step for step, _, _ in seen] == list(range(start, stop))
    for step, images, targets in seen:
        assert torch.equal(images, batches.batch(step)[0])
        assert torch.equal(targets, batches.batch(step)[1])


def _background_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("vitreous-batches")]


def test_the_background_thread_ends_when_the_iterator_is_closed(store: PixelStore) -> None:
    stream = _batches(store).prefetch(0, 1000)
    next(stream)
    assert len(_background_threads()) == 1
    stream.close()  # type: ignore[attr-defined]
    assert _background_threads() == []


def test_the_background_thread_computes_alone_and_leaves_the_caller_its_threads(
    store: PixelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, seen = _batches(store), []
    real = batches.batch

    def batch(step: int) -> tuple[Tensor, Tensor]:
        seen.append(torch.get_num_threads())
        return real(step)

    monkeypatch.setattr(batches, "batch", batch)
    torch.set_num_threads(2)
    try:
        list(batches.prefetch(0, 3))
        assert torch.get_num_threads() == 2
        later: list[int] = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(1)
    assert seen == [1, 1, 1]
    assert later == [2]


def test_the_background_thread_ends_when_the_loop_is_interrupted(store: PixelStore) -> None:
    def loop() -> None:
        for step, _, _ in _batches(store).prefetch(0, 1000):
            if step == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop()
    assert _background_threads() == []


def test_an_error_in_the_background_reaches_the_loop_at_its_step(make_images: Make) -> None:
    root = make_images({f"{label}/{i}.png": 10 * ord(label) + i for label in "ab" for i in range(5)})
    store = PixelStore(load_source(root), range(10), SPEC, threads=2, max_bytes=0)
    batches = _batches(store)
    victim = int(batches.rows(2)[0])
    assert victim not in {*batches.rows(0).tolist(), *batches.rows(1).tolist()}
    path = Path(str(store.source.root)) / store.source.samples[victim].path
    path.unlink()
    seen = []
    with pytest.raises(DataError, match="does not exist"):
        for step, _, _ in batches.prefetch(0, 5):
            seen.append(step)
    assert seen == [0, 1]
    assert _background_threads() == []


WEIGHTS = np.array([1.0, 2.0, 0.0, 4.0, 0.5, 1.0, 1.0, 3.0, 0.25, 7.25])


@pytest.mark.parametrize("balance", ["none", "weights", "logit-adjust"])
@pytest.mark.parametrize("mixing", [False, True])
def test_weights_make_the_loss_exactly_a_weighted_one(store: PixelStore, balance: Balance, mixing: bool) -> None:
    """By hand: each image's loss times its weight over the mean weight; of a mixture, the mixture of both losses."""
    settings: dict[str, Any] = {"mix_until_step": 100 if mixing else 0}
    weighted, plain = _batches(store, weights=WEIGHTS, **settings), _batches(store, **settings)
    loss = make_loss(LossConfig(name="cross-entropy"), balance, torch.tensor([3, 7]))
    relative = torch.from_numpy(WEIGHTS / WEIGHTS.mean()).float()
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    for step in range(5):
        images, targets = weighted.batch(step)
        unweighted_images, shares = plain.batch(step)
        assert torch.equal(images, unweighted_images)
        rows = weighted.rows(step)
        own = torch.eye(2)[plain.labels[rows]]
        share = _own_share(shares, own)
        hand = torch.stack(
            [
                share * relative[row] * loss(logits[[place]], own[[place]])
                + (1 - share) * relative[other] * loss(logits[[place]], own[[place - 1]])
                for place, (row, other) in enumerate(zip(rows, np.roll(rows, 1), strict=True))
            ]
        ).mean()
        torch.testing.assert_close(loss(logits, targets), hand)


def _own_share(targets: Tensor, own: Tensor) -> float:
    """How much of itself each image of a batch kept, from a place whose neighbour has another label."""
    places = (own != own.roll(1, 0)).any(1).nonzero()[:, 0]
    assert len(places), "a batch of one class says nothing about mixing"
    return float((targets[places[0]] * own[places[0]]).sum())


def test_equal_weights_change_no_bit_and_absent_ones_none(store: PixelStore) -> None:
    plain, equal = _batches(store, mix_until_step=100), _batches(store, mix_until_step=100, weights=np.full(10, 3.0))
    for step in range(3):
        for one, other in zip(plain.batch(step), equal.batch(step), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({3: -1.0, 5: -2.0}, "2 of 10 training images have a weight that is not .* the first is -1"),
        ({0: float("nan")}, "1 of 10 training images .* the first is nan"),
        ({9: float("inf")}, "1 of 10 training images .* the first is inf"),
        (dict.fromkeys(range(10), 0.0), "All 10 training images have the weight 0"),
    ],
)
def test_weights_that_mean_nothing_are_refused(store: PixelStore, wrong: dict[int, float], sentence: str) -> None:
    weights = np.ones(10)
    weights[list(wrong)] = list(wrong.values())
    with pytest.raises(DataError, match=sentence):
        _batches(store, weights=weights)


def _by_shards(epoch: int) -> np.ndarray:
    """Two shards of five rows, in an order of their own each epoch."""
    rng = np.random.default_rng([7, epoch])
    return np.concatenate([shard * 5 + rng.permutation(5) for shard in rng.permutation(2)])


def test_an_order_that_is_given_is_followed(store: PixelStore) -> None:
    batches = _batches(store, order=_by_shards)
    stream = np.concatenate([batches.rows(step) for step in range(10)])
    np.testing.assert_array_equal(stream, np.concatenate([_by_shards(epoch) for epoch in range(4)]))


def test_a_given_order_resumes_at_any_step(store: PixelStore) -> None:
    settings: dict[str, Any] = {"order": _by_shards, "weights": WEIGHTS, "mix_until_step": 100}
    undisturbed = list(_batches(store, **settings).prefetch(0, 9))
    for (step, *whole), (again, *resumed) in zip(
        undisturbed[5:], _batches(store, **settings).prefetch(5, 9), strict=True
    ):
        assert step == again
        assert all(torch.equal(one, other) for one, other in zip(whole, resumed, strict=True))


def test_an_order_that_is_too_short_or_leaves_the_store_is_caught(store: PixelStore) -> None:
    with pytest.raises(AssertionError, match="as long as the data"):
        _batches(store, order=lambda epoch: np.zeros(9, np.int64)).rows(0)
    with pytest.raises(AssertionError, match="rows of the store"):
        _batches(store, order=lambda epoch: np.full(10, 10)).rows(0)


@pytest.mark.parametrize("max_bytes", [0, 10**9])
def test_evaluation_sees_exactly_what_prediction_sees(make_images: Make, max_bytes: int) -> None:
    root = make_images({f"{label}/{i}.jpg": 10 * ord(label) + i for label in "ab" for i in range(5)}, size=(190, 110))
    source = load_source(root)
    spec = replace(SPEC, mean=(0.1, 0.2, 0.3), crop_fraction=0.9, interpolation="bicubic")
    store = PixelStore(source, range(10), spec, threads=2, max_bytes=max_bytes)
    batches = list(eval_batches(store, 4))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    expected = np.stack([prepare(source.open(index), spec) for index in range(10)])
    np.testing.assert_array_equal(np.concatenate(batches), expected)
