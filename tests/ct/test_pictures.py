import numpy as np

from condswin.ct.pictures import draw_case, telling_slices

from .fakes import AFFINES, anatomy, geometry


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
    assert [panel.get_title() for panel in panels[0]] == ["CT", "liver", "tumour", "missed (red), false (blue)"]
    for row in panels:
        index = int(row[0].get_ylabel().split()[1]) - 1
        for panel, value in ((row[1], 1), (row[2], 2)):
            places = np.argwhere(canonical[index] >= value)
            target, _prediction = panel.collections[0].get_paths()[0], panel.collections[1]
            low, high = places.min(0)[::-1] - 0.5, places.max(0)[::-1] + 0.5
            np.testing.assert_allclose(target.vertices.min(0), low, atol=0.5)
            np.testing.assert_allclose(target.vertices.max(0), high, atol=0.5)
            assert panel.get_xlim()[0] <= low[0] < high[0] <= panel.get_xlim()[1]
