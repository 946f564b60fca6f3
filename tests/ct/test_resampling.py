import numpy as np

from condswin.ct.resampling import apply_window


def test_window():
    hu = np.array([-1000, -160, 40, 240, 3000], np.float32)
    np.testing.assert_allclose(apply_window(hu, (-160.0, 240.0)), [-1, -1, 0, 1, 1])
