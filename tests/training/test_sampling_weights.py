"""The share of a step that the sampling correction leaves out or caps."""

import pytest
import torch

from kit.training.sampling_weights import limited_share

MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("weights", "share"),
    [
        ([[1.1], [0.0]], 1 / 2),  # a completion left out
        ([[3.0], [0.9]], 1 / 2),  # one capped
        ([[1.0, 3.0, 0.0], [0.0, 1.0, 1.0]], 2 / 5),  # tokens; padding is none
    ],
)
def test_left_out_and_capped(weights, share):
    assert limited_share(torch.tensor(weights), MASK, 3.0) == pytest.approx(share)


def test_without_a_cap():
    assert limited_share(torch.tensor([[9.0], [0.0]]), MASK, None) == 0.5
