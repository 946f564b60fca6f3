import numpy as np
import pytest
import torch

from condswin.ct.resampling import apply_window, channels, hounsfield_range

WINDOWS = ((-160.0, 240.0), (-20.0, 200.0))


def test_window():
    hu = np.array([-1000, -160, 40, 240, 3000], np.float32)
    np.testing.assert_allclose(apply_window(hu, (-160.0, 240.0)), [-1, -1, 0, 1, 1])


def test_a_channel_for_each_window_and_slice():
    hu = torch.tensor([-1000.0, -160, 40, 90, 200, 3000]).reshape(1, 1, 6) + torch.tensor([0.0, 1]).reshape(2, 1, 1)
    seen = channels(hu[None], WINDOWS, position=False)
    assert seen.shape == (1, 4, 1, 6)
    assert seen[0, 0, 0].tolist() == pytest.approx([-1, -1, 0, 0.25, 0.8, 1], abs=1e-6)
    neighbour = seen[0, 1, 0]  # in the same window
    assert neighbour.tolist() == pytest.approx([-1, -0.995, 0.005, 0.255, 0.805, 1], abs=1e-6)
    assert seen[0, 2, 0].tolist() == pytest.approx([-1, -1, -50 / 110, 0, 1, 1], abs=1e-6)
    for number, window in enumerate(WINDOWS):
        np.testing.assert_allclose(seen[0, 2 * number], apply_window(hu[0].numpy(), window), atol=1e-6)


def test_positions_come_last_and_reach_from_edge_to_edge():
    seen = channels(torch.zeros(2, 3, 5, 4), WINDOWS, position=True)
    assert seen.shape == (2, 8, 5, 4)
    assert torch.equal(seen[:, :6], channels(torch.zeros(2, 3, 5, 4), WINDOWS, position=False))
    for rows, columns in seen[:, 6:]:
        assert rows[:, 0].tolist() == [-1, -0.5, 0, 0.5, 1]
        assert torch.equal(rows, rows[:, :1].expand(5, 4))
        assert columns[0].tolist() == pytest.approx([-1, -1 / 3, 1 / 3, 1])
        assert torch.equal(columns, columns[:1].expand(5, 4))


def test_what_no_window_keeps_need_not_be_kept():
    assert hounsfield_range(WINDOWS) == (-160, 240)
    assert hounsfield_range(((0.0, 80.0), (-200.0, 50.0))) == (-200, 80)
