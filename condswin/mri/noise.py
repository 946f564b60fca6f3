"""How noisy an image is."""

import numpy as np

from condswin.fourier import FloatArray

# The corner whose rms counts as noise, as a share of each side.
_CORNER = 0.08


def signal_to_noise(image: FloatArray) -> float:
    """Signal to noise of a magnitude image (rows, columns), dB.

    The mean of what is brighter than 5 % of the largest value over the rms of the darkest of the four corners. That is
    noise where a corner is empty air, and a lower bound elsewhere.
    """
    largest = float(image.max()) or 1.0
    bright = image > 0.05 * largest
    height, width = (max(int(side * _CORNER), 2) for side in image.shape)
    corners = [image[:height, :width], image[:height, -width:], image[-height:, :width], image[-height:, -width:]]
    noise = min(float(np.sqrt(np.mean(np.square(corner, dtype=np.float64)))) for corner in corners)
    signal = float(image[bright].mean()) if bright.any() else largest
    # Air that was set to zero has no noise: 80 dB is more than any scanner's.
    return min(20 * float(np.log10(signal / noise)), 80.0) if noise > 0 else 80.0
