import pytest
import torch

from champ.render.grid import side_by_side
from tests.counter import Counter


def test_clips_stand_beside_each_other_and_pictures_stand_still():
    clip, picture = torch.rand(3, 4, 6, 3), torch.rand(1, 4, 2, 3)
    grid = side_by_side([clip, picture])
    assert grid.shape == (3, 4, 8, 3)
    assert torch.equal(grid[:, :, :6], clip) and torch.equal(grid[:, :, 6:], picture.expand(3, -1, -1, -1))


def test_other_sizes_take_the_height_of_the_first_and_keep_their_shape():
    grid = side_by_side([torch.zeros(1, 8, 8, 3), torch.ones(1, 4, 6, 3)])
    assert grid.shape == (1, 8, 8 + 12, 3) and (grid[:, :, 8:] == 1).all()


def test_rows_are_filled_up_with_black():
    grid = side_by_side([torch.ones(1, 4, 5, 3)] * 3, columns=2)
    assert grid.shape == (1, 8, 10, 3) and grid[0, 4:, 5:].sum() == 0 and grid[0, 4:, :5].min() == 1


def test_sizes_come_out_even_for_video_files():
    assert side_by_side([torch.ones(1, 5, 7, 3)]).shape == (1, 6, 8, 3)


def test_no_pictures_are_refused():
    with pytest.raises(ValueError, match="no pictures .*; connect at least one that is not empty"):
        side_by_side([])
    with pytest.raises(ValueError, match="no pictures"):
        side_by_side([torch.zeros(0, 4, 4, 3)])


def test_clips_of_different_length_are_refused():
    with pytest.raises(ValueError, match="A clip of 2 frames does not fit beside one of 3"):
        side_by_side([torch.zeros(3, 4, 4, 3), torch.zeros(2, 4, 4, 3)])


def test_no_second_clip_is_held_beside_the_grid():
    clips = [torch.rand(40, 16, 8, 3), torch.rand(40, 24, 8, 3), torch.rand(1, 16, 8, 3)]
    with Counter(clips) as counter:
        grid = side_by_side(clips, columns=2)
    assert counter.peak < 1.1 * grid.nbytes
