import numpy as np
import pytest
import torch

from condswin.ct.pictures import SegmentationPictures, draw_case, telling_slices

from .fakes import AFFINES, anatomy, config, from_canonical, geometry, write


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


def test_every_lesion_of_a_volume_is_seen_in_one_picture(tmp_path):
    target, prediction = np.zeros((2, 8, 60, 90), np.uint8)
    target[1:6, 5:40, 5:50] = prediction[1:6, 5:40, 5:80] = 1
    target[1, 10:14, 10:14] = target[4, 20:24, 20:24] = target[2, 30:34, 10:14] = 2
    prediction[1, 10:14, 10:14] = 2  # found; the other two are missed
    prediction[5, 30:33, 40:44] = prediction[3, 8:12, 60:66] = 2  # false, the second outside the liver
    position = geometry((90, 60, 8), AFFINES["lits"])
    folders = {"target": tmp_path / "test", "swin": tmp_path / "swin", "none": tmp_path / "none"}
    labels = {"target": target, "swin": prediction, "none": np.minimum(target, 1)}
    for name, folder in folders.items():
        write(folder / "segmentation-0.nii.gz", from_canonical(position, labels[name]), AFFINES["lits"])
    predictions = {name: folders[name] for name in ("swin", "none")}
    found = SegmentationPictures(config()).panels(folders["target"], predictions, "volume-0")
    assert [panel.name for panel in found.whole] == [
        "lesions by swin: 1 found, 2 missed, 2 false (1 wholly outside the liver)",
        "lesions by none: 0 found, 3 missed, 0 false",
    ]
    # Most wrong pixels, most of the false lesions, most true tumour.
    assert found.places == [2, 3, 1]
    colours = {"false": (0, 114, 178), "missed": (230, 159, 0), "found": (32, 32, 32)}

    def share(panel, colour):
        return float((np.abs(panel.slices[0].astype(int) - colours[colour]).max(axis=-1) <= 2).mean())

    ours, nothing = found.whole
    assert share(ours, "missed") == pytest.approx(2 * share(ours, "found"), rel=0.25)
    assert share(ours, "false") == pytest.approx((12 + 24) / 16 * share(ours, "found"), rel=0.25)
    assert share(nothing, "missed") == pytest.approx(1.5 * share(ours, "missed"), rel=0.25)
    assert share(nothing, "false") == share(nothing, "found") == 0


@pytest.mark.parametrize(
    ("axis", "side"), [(2, "left of"), (-2, "right of"), (1, "behind"), (-1, "in front of"), (0, "above")]
)
def test_another_organ_in_the_liver_s_place_is_said_to_be_one(tmp_path, axis, side):
    target, prediction = np.zeros((2, 12, 90, 90), np.uint8)
    target[4:7, 30:50, 30:60] = 1
    moved = [slice(4, 7), slice(30, 50), slice(30, 60)]
    by = (3, 25, 28)[abs(axis)] * (-1 if axis < 0 else 1)
    moved[abs(axis)] = slice(moved[abs(axis)].start + by, moved[abs(axis)].stop + by)
    prediction[tuple(moved)] = 1
    position = geometry((90, 90, 12), AFFINES["lits"])
    for name, labels in (("test", target), ("swin", prediction), ("none", np.zeros_like(target))):
        write(tmp_path / name / "segmentation-0.nii.gz", from_canonical(position, labels), AFFINES["lits"])
    predictions = {name: tmp_path / name for name in ("swin", "none")}
    ours, nothing = SegmentationPictures(config()).panels(tmp_path / "test", predictions, "volume-0").whole
    far = abs(by) * position.spacing[abs(axis)]
    assert ours.name.endswith(f"; what is called liver lies {far:.0f} mm {side} the liver")
    assert nothing.name.endswith("; nothing is called liver")


def test_what_a_network_sees_is_shown_by_the_slice_itself_in_the_first_window():
    image = torch.tensor([-1.0, 0.5, 1.0, -0.5, -1.0, 0.0]).reshape(1, 6, 1, 1).expand(1, 6, 8, 9)  # of two windows
    shown = SegmentationPictures(config(prepare={"neighbours": 1})).background({"image": image})
    np.testing.assert_array_equal(shown, np.full((8, 9), 0.75, np.float32))
