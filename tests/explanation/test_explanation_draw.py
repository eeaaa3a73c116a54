"""Maps must lie where the pixels came from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from vitreous.config.input import InputSpec
from vitreous.explanation.draw import colorize, display, display_size, overlay, place, side_by_side, unit_range
from vitreous.inputs import to_pixels
from vitreous.inputs.pixels import seen_box

SPEC = InputSpec(height=40, width=40)


def hot(row: int, column: int) -> np.ndarray:
    heatmap = np.zeros((4, 4), np.float32)
    heatmap[row, column] = 1
    return heatmap


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
@pytest.mark.parametrize("image_size", [(120, 60), (60, 120), (33, 47), (40, 40)])
def test_a_mark_in_the_image_and_the_cell_that_sees_it_come_back_to_one_place(
    resize: str, image_size: tuple[int, int]
) -> None:
    spec = replace(SPEC, resize=resize, crop_fraction=0.8, background=0.0)
    width, height = image_size
    x, y = round(width * 0.55), round(height * 0.6)
    pixels = np.zeros((height, width), np.uint8)
    radius = max(2, min(image_size) // 20)
    pixels[y - radius : y + radius, x - radius : x + radius] = 255
    # What the model sees, averaged over its patches of 10 x 10 pixels, is an honest map of the mark.
    grid = to_pixels(Image.fromarray(pixels), spec)[..., 0].astype(np.float32).reshape(4, 10, 4, 10).mean((1, 3))
    placed = place(unit_range(grid), spec, image_size)
    assert placed.shape == (height, width) and placed.dtype == np.float32
    rows, columns = np.nonzero(placed > 0.9 * placed.max())
    left, top, right, bottom = seen_box(width, height, spec)
    assert abs(columns.mean() - x) <= (right - left) / 4
    assert abs(rows.mean() - y) <= (bottom - top) / 4


def test_the_map_keeps_its_values_at_the_centres_of_its_cells_and_stays_in_range() -> None:
    grid = np.random.default_rng(0).random((4, 4)).astype(np.float32)
    placed = place(grid, SPEC, (44, 44))  # cells of 11 pixels: the sixth is the centre
    assert np.allclose(placed[5::11, 5::11], grid, atol=1e-5)
    assert placed.min() >= 0 and placed.max() <= 1


def test_a_flat_map_stays_flat_where_the_model_looked() -> None:
    assert np.allclose(place(np.ones((4, 4)), SPEC, (50, 50)), 1, atol=1e-5)


def test_parts_outside_the_crop_get_nothing() -> None:
    placed = place(np.ones((4, 4)), SPEC, (120, 60))
    assert (placed[:, :30] == 0).all() and (placed[:, 90:] == 0).all()
    assert np.allclose(placed[:, 30:90], 1, atol=1e-5)


def test_with_padding_only_the_cells_over_the_image_are_seen() -> None:
    spec = replace(SPEC, resize="pad")
    padding = place(hot(0, 1), spec, (80, 40))  # the first row of cells; smoothing carries it half a cell of 20 pixels
    assert padding.max() < 0.5 and padding[10:].max() < 0.01
    placed = place(hot(1, 0), spec, (80, 40))
    assert np.unravel_index(placed.argmax(), placed.shape)[0] < 20 and placed.max() > 0.9


def test_the_box_seen_matches_what_resizing_reads() -> None:
    assert seen_box(120, 60, SPEC) == (30, 0, 90, 60)
    assert seen_box(120, 60, replace(SPEC, resize="squash")) == (0, 0, 120, 60)
    assert seen_box(120, 60, replace(SPEC, resize="pad")) == (0, -30, 120, 90)


def test_unit_range_drops_evidence_against_and_leaves_a_flat_map_empty() -> None:
    assert np.allclose(unit_range(np.array([[-5.0, 0.0], [1.0, 2.0]])), [[0, 0], [0.5, 1]])
    assert (unit_range(np.full((2, 2), 3.0)) == 0).all()
    assert (unit_range(np.full((2, 2), -3.0)) == 0).all()


def test_colors_grow_lighter_with_the_value() -> None:
    lightness = colorize(np.linspace(0, 1, 64)[None])[0] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0).all()


def test_overlays_are_legible_and_not_huge() -> None:
    assert display_size(8, 8) == (224, 224)
    assert display_size(100, 50) == (300, 150)
    assert display_size(500, 300) == (500, 300)
    assert display_size(4000, 1000) == (1024, 256)


def test_tiny_images_are_enlarged_without_smoothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    picture = np.asarray(display(Image.fromarray(pixels), SPEC))
    assert picture.shape == (224, 224, 3)
    assert np.array_equal(picture[14::28, 14::28, 0], pixels)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "P", "1", "I;16"])
def test_images_of_any_mode_can_be_drawn_on(mode: str) -> None:
    image = Image.new("I;16", (30, 20), 40000) if mode == "I;16" else Image.new("RGB", (30, 20), "teal").convert(mode)
    picture = display(image, SPEC)
    assert picture.mode == "RGB" and picture.size == (240, 160)


def test_where_the_map_is_zero_the_picture_is_untouched() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (10, 10, 3), np.uint8))
    heatmap = np.zeros((10, 10), np.float32)
    heatmap[5, 5] = 1
    covered, before = np.asarray(overlay(picture, heatmap)), np.asarray(picture)
    changed = (covered != before).any(-1)
    assert changed[5, 5] and changed.sum() == 1


def test_a_long_caption_is_broken_into_lines_below_the_pictures() -> None:
    picture = Image.new("RGB", (100, 80), "navy")
    sheet = side_by_side(picture, picture, "a caption of many words that does not fit into a single line of this width")
    assert sheet.width == 208 and sheet.height >= 80 + 8 + 2 * 20
    assert np.asarray(sheet)[88:].min() < 128
    assert side_by_side(picture, picture).size == (208, 80)
