from condswin.steps.bench_mri import bench_mri


def test_every_ratio_is_measured():
    ratios = bench_mri(rounds=1)
    assert set(ratios) == {"undersample", "undersample files", "loader", "evaluate", "memory"}
    assert all(ratio > 0 for ratio in ratios.values())
    assert ratios["memory"] < 1.5  # of memory, unlike of time, a test may ask something
