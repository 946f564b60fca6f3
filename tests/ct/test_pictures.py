import numpy as np
import torch

from condswin.ct.pictures import SegmentationPictures, draw_case, telling_slices

from .fakes import AFFINES, anatomy, config, geometry


def test_slices_that_tell_most_are_chosen():
    target, prediction = np.zeros((2, 9, 20, 20), np.uint8)
    assert telling_slices(target, prediction) == [4]
    prediction[7, 3, 3] = 1
    assert telling_slices(target, prediction) == [7]  # what is wrong most
    target[2, 5:15, 5:15] = prediction[2, 5:15, 5:15] = 1
    assert telling_slices(target, prediction) == [2, 7]
    target[5, 8:10, 8:10] = prediction[5, 8:10, 8:10] = 2
    assert telling_slices(target, prediction) == [2, 5, 7]


def test_outlines_lie_where_the_labels_are():
    _, labels = anatomy((40, 32, 9))
    position = geometry((40, 32, 9), AFFINES["lits"])
    figure = draw_case("volume-0", position, labels, np.roll(labels, 3, 0), None)
    canonical = position.to_canonical(labels)
    panels = np.array(figure.axes).reshape(-1, 4)
    assert [panel.get_title() for panel in panels[0]] == ["CT", "liver", "tumour", "missed (orange), false (blue)"]
    for row in panels:
        index = int(row[0].get_ylabel().split()[1]) - 1
        for panel, value in ((row[1], 1), (row[2], 2)):
            places = np.argwhere(canonical[index] >= value)
            target, _prediction = panel.collections[0].get_paths()[0], panel.collections[1]
            low, high = places.min(0)[::-1] - 0.5, places.max(0)[::-1] + 0.5
            np.testing.assert_allclose(target.vertices.min(0), low, atol=0.5)
            np.testing.assert_allclose(target.vertices.max(0), high, atol=0.5)
            assert panel.get_xlim()[0] <= low[0] < high[0] <= panel.get_xlim()[1]


def test_what_a_network_sees_is_shown_by_the_slice_itself_in_the_first_window():
    image = torch.tensor([-1.0, 0.5, 1.0, -0.5, -1.0, 0.0]).reshape(1, 6, 1, 1).expand(1, 6, 8, 9)  # of two windows
    shown = SegmentationPictures(config(prepare={"neighbours": 1})).background({"image": image})
    np.testing.assert_array_equal(shown, np.full((8, 9), 0.75, np.float32))
