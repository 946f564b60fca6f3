import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condswin.networks.attention import RelativePositionBias
from condswin.networks.windows import (
    MASKED,
    Sides,
    pair,
    partition,
    relative_position_index,
    unpartition,
    window_plan,
)

CPU = torch.device("cpu")
sides = st.integers(1, 21)
windows = st.integers(2, 8) | st.tuples(st.integers(1, 4), st.integers(1, 12))


def half(window: Sides) -> tuple[int, int]:
    rows, columns = pair(window)
    return rows // 2, columns // 2


@settings(deadline=None)
@given(height=sides, width=sides, window=windows, shifted=st.booleans())
def test_partition_loses_nothing(height: int, width: int, window: Sides, shifted: bool) -> None:
    plan = window_plan(height, width, window, half(window) if shifted else 0, CPU)
    x = torch.arange(2.0 * height * width * 3).reshape(2, height, width, 3)
    assert torch.equal(unpartition(partition(x, plan), plan), x)


@settings(deadline=None)
@given(height=sides, width=sides, window=windows, shifted=st.booleans())
def test_patches_see_exactly_the_real_neighbours_of_their_displaced_window(
    height: int, width: int, window: Sides, shifted: bool
) -> None:
    """Against the definition: windows are laid over the plane at an offset and cut off at the map's edges."""
    shift = half(window) if shifted else 0
    plan = window_plan(height, width, window, shift, CPU)
    rows, columns = (torch.arange(size) for size in (height, width))
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)[None].float() + 1  # 0 marks padding
    cut = partition(places, plan)[0]  # (M, N, 2)

    def home(place: torch.Tensor) -> tuple[int, int]:
        sizes, shifts = plan.window, plan.shift
        return tuple(int((place[axis].item() - 1 - shifts[axis]) // sizes[axis]) for axis in range(2))  # type: ignore[return-value]

    for number, patches in enumerate(cut):
        for query, here in enumerate(patches):
            if here[0] == 0:
                continue
            for key, there in enumerate(patches):
                allowed = plan.mask is None or plan.mask[number, query, key] == 0
                assert allowed == bool(there[0] != 0 and home(here) == home(there))


@settings(deadline=None)
@given(height=sides, width=sides, window=windows, shifted=st.booleans())
def test_every_query_keeps_a_key_and_masks_are_finite_in_half_precision(
    height: int, width: int, window: Sides, shifted: bool
) -> None:
    plan = window_plan(height, width, window, half(window) if shifted else 0, CPU)
    if plan.mask is not None:
        assert (plan.mask == 0).any(-1).all()
        assert plan.mask.half().isfinite().all()
        assert set(plan.mask.unique().tolist()) == {0.0, MASKED}


def test_windows_off_the_seam_are_unmasked() -> None:
    """The notebook's inverted mask left 49 of 64 windows uniform where these are the free ones."""
    plan = window_plan(64, 64, 8, 4, CPU)
    assert plan.mask is not None
    assert int((plan.mask == 0).all(-1).all(-1).sum()) == 49
    assert window_plan(64, 64, 8, 0, CPU).mask is None


def test_a_map_smaller_than_the_window_shrinks_it_and_drops_the_shift() -> None:
    plan = window_plan(5, 30, 8, 4, CPU)
    assert plan.window == (5, 8)
    assert plan.shift == (0, 4)
    assert plan.padding == (0, 2)


def test_windows_that_span_the_width_are_shifted_along_the_rows_alone() -> None:
    """A map of 96 pixels in patches of 4, in windows along phase encoding."""
    plan = window_plan(24, 24, (3, 24), (1, 12), CPU)
    assert (plan.window, plan.shift, plan.padding) == ((3, 24), (1, 0), (0, 0))
    assert plan.mask is not None
    assert plan.mask.shape == (8, 72, 72)
    # Of the last window one row comes from the other end: 24 patches apart from 48.
    assert [int((part != 0).sum()) for part in plan.mask] == 7 * [0] + [2 * 24 * 48]
    wide = window_plan(24, 80, (3, 24), (1, 12), CPU)
    assert (wide.window, wide.shift, wide.padding) == ((3, 24), (1, 12), (0, 16))


def test_relative_positions_are_all_used_and_opposite() -> None:
    """The notebook multiplied row offsets by W - 1 and reached 113 of 225 table rows."""
    index = relative_position_index(8, 8, 8, CPU)
    assert len(index.unique()) == 225
    assert len((index + index.T).unique()) == 1


def test_relative_positions_of_windows_that_are_no_squares() -> None:
    index = relative_position_index((3, 24), 3, 24, CPU)
    assert sorted(index.unique().tolist()) == list(range(5 * 47))
    assert len((index + index.T).unique()) == 1
    # One row down and two columns left of the first query.
    assert int(index[0, 24 + 2]) == (3 - 1 - 1) * 47 + (24 - 1 - 2)
    small = relative_position_index((3, 24), 2, 5, CPU).reshape(2, 5, 2, 5)
    assert torch.equal(index.reshape(3, 24, 3, 24)[:2, :5, :2, :5], small)


def test_a_square_given_as_two_sides_is_the_square() -> None:
    assert window_plan(21, 20, (8, 8), (4, 4), CPU) is window_plan(21, 20, 8, 4, CPU)
    assert torch.equal(relative_position_index((8, 8), 8, 5, CPU), relative_position_index(8, 8, 5, CPU))


def test_relative_positions_mean_the_same_in_smaller_windows() -> None:
    full = relative_position_index(8, 8, 8, CPU).reshape(8, 8, 8, 8)
    small = relative_position_index(8, 5, 3, CPU).reshape(5, 3, 5, 3)
    assert torch.equal(full[:5, :3, :5, :3], small)


def test_plans_are_made_once() -> None:
    assert window_plan(20, 20, 8, 4, CPU) is window_plan(20, 20, 8, 4, CPU)


def test_maps_smaller_than_a_window_compile_beside_larger_ones() -> None:
    bias = RelativePositionBias(8, 2)
    plans = [window_plan(side, side, 8, 0, CPU) for side in (4, 16)]

    def both() -> torch.Tensor:
        return sum(bias(plan).square().sum() for plan in plans)

    compiled = torch.compile(both, backend="aot_eager")()
    torch.testing.assert_close(compiled, both())
    compiled.backward()
    assert bias.table.grad is not None
