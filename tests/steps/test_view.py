import base64
import gzip
import html
import io
import json
import re
import threading
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from condswin import layout
from condswin.cli.local_page import page_server
from condswin.config.profiles import compose
from condswin.ct import viewing
from condswin.ct.geometry import Geometry
from condswin.ct.nifti import read_image
from condswin.ct.viewing import canonical_affine
from condswin.errors import BadDataError, BadFileError, OutputError
from condswin.files import write_json
from condswin.manifest import Manifest
from condswin.mri import viewing as mri_viewing
from condswin.steps.view import view
from tests.ct import fakes
from tests.steps.viewed import write_ct, write_reconstruction, write_scan

CONFIG = compose(["demo"])


def pictures(page: Path) -> dict[str, list[np.ndarray]]:
    """Pixels of every slice by the picture's name."""
    text, found = page.read_text(), {}
    for source, slices, name in re.findall(r'<img src="([^"]+)".*?data-slices="([^"]*)".*?<figcaption>(.*?)<', text):
        uris = [uri or source for uri in json.loads(html.unescape(slices))]
        opened = [Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) for uri in uris]
        found[html.unescape(name)] = [np.asarray(image) for image in opened]
    return found


def layers(page: Path) -> dict[str, nib.Nifti1Image]:
    data = json.loads(re.search(r'id="data">(.*?)</script>', page.read_text())[1])
    return {
        layer["name"]: nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(layer["data"])))
        for layer in data["layers"]
    }


def test_a_scan_is_shown_with_what_was_made_of_it(tmp_path: Path) -> None:
    target = write_scan(tmp_path / "a.h5")
    write_reconstruction(tmp_path / "mine/a.h5", target * 0.5)
    page = view(CONFIG, tmp_path / "a.h5", predictions=[tmp_path / "mine"], out=tmp_path / "a.html")
    shown = pictures(page)
    assert list(shown) == ["kspace", "mask", "target", "zero-filled", "mine", "error of zero-filled", "error of mine"]
    assert {len(slices) for slices in shown.values()} == {3}
    white = np.quantile(target, 0.998)
    for place in range(3):  # in the order of the file
        expected = (target[place] / white * 255).clip(0, 255)
        assert np.abs(shown["target"][place].astype(float) - expected).max() <= 0.5 + 1e-3
    assert set(np.unique(shown["mask"][0])) == {0, 255}
    columns = shown["mask"][0][0] == 255
    assert not shown["kspace"][0][:, ~columns].any()
    assert shown["kspace"][2].max() == 255


def test_coils_are_shown_together_and_full_k_space_has_no_mask(tmp_path: Path) -> None:
    target = write_scan(tmp_path / "a.h5", coils=4, mask=False)
    shown = pictures(view(CONFIG, tmp_path / "a.h5", out=tmp_path / "a.html"))
    assert list(shown) == ["kspace", "target", "image of all k-space", "error of image of all k-space"]
    assert np.abs(shown["target"][1].astype(int) - shown["image of all k-space"][1]).max() <= 1
    assert target.shape == (3, 32, 24)


def test_slices_that_have_no_room_are_left_out_evenly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scan(tmp_path / "a.h5", slices=9)
    monkeypatch.setattr(mri_viewing, "ROOM", 3 * 32 * 24 * 5)
    page = view(CONFIG, tmp_path / "a.h5", out=tmp_path / "a.html")
    assert "3 of 9 slices: the page has no room for more" in page.read_text()
    assert "slice 1 of 9" in html.unescape(page.read_text())
    assert "slice 9 of 9" in html.unescape(page.read_text())
    assert "3 of 9 slices" in capsys.readouterr().err


def test_reconstructions_of_another_scan_are_refused(tmp_path: Path) -> None:
    write_scan(tmp_path / "a.h5")
    write_reconstruction(tmp_path / "mine/a.h5", np.ones((2, 32, 24)))
    with pytest.raises(BadFileError, match=r"2 slices, a\.h5 has 3: not of one scan"):
        view(CONFIG, tmp_path / "a.h5", predictions=[tmp_path / "mine"], out=tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


def test_a_folder_shows_the_case_that_is_asked_for(tmp_path: Path) -> None:
    for method in ("one-0", "two-0"):
        for case in ("a", "b"):
            write_reconstruction(tmp_path / "runs" / method / "test" / f"{case}.h5", np.ones((2, 8, 8)) * len(method))
    page = view(CONFIG, tmp_path / "runs", case="b", out=tmp_path / "b.html")
    assert list(pictures(page)) == ["one-0", "two-0"]
    with pytest.raises(BadDataError, match="'c'"):
        view(CONFIG, tmp_path / "runs", case="c", out=tmp_path / "b.html")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadDataError, match="no predictions in it"):
        view(CONFIG, tmp_path / "empty", out=tmp_path / "b.html")


def test_no_method_replaces_a_picture_of_the_scan_or_of_another_method(tmp_path: Path) -> None:
    target = write_scan(tmp_path / "a.h5")
    for folder in ("target", "zero-filled", "one/mine/predictions/test", "two/mine"):
        write_reconstruction(tmp_path / folder / "a.h5", target * 0.5)
    files = [tmp_path / "one/mine/predictions/test/a.h5", tmp_path / "two/mine/a.h5"]
    given = [tmp_path / "target", tmp_path / "zero-filled", *files]
    shown = pictures(view(CONFIG, tmp_path / "a.h5", predictions=given, out=tmp_path / "a.html"))
    named = ["target", "zero-filled", "target 2", "zero-filled 2", "mine", "mine 2"]
    assert [name for name in shown if not name.startswith("error of")] == ["kspace", "mask", *named]
    assert shown["target"][2].mean() > 1.5 * shown["target 2"][2].mean()
    write_ct(tmp_path / "ct")
    (tmp_path / "ct/mine").rename(tmp_path / "ct/target")
    given = [tmp_path / "ct/target"]
    assert list(layers(view(CONFIG, tmp_path / "ct/volume-0.nii.gz", predictions=given, out=tmp_path / "ct.html"))) == [
        "CT", "target", "target 2"
    ]  # fmt: skip


def test_a_reference_without_a_target_is_refused(tmp_path: Path) -> None:
    target = write_scan(tmp_path / "a.h5")
    write_reconstruction(tmp_path / "b.h5", target)
    with pytest.raises(BadFileError, match=r"b\.h5: holds no target"):
        view(CONFIG, tmp_path / "a.h5", reference=tmp_path / "b.h5", out=tmp_path / "a.html")


def test_a_volume_is_shown_with_the_segmentations_in_its_place(tmp_path: Path) -> None:
    write_ct(tmp_path)
    page = view(CONFIG, tmp_path / "volume-0.nii.gz", predictions=[tmp_path / "mine"], out=tmp_path / "ct.html")
    shown = layers(page)
    assert list(shown) == ["CT", "target", "mine"]
    image = read_image(tmp_path / "volume-0.nii.gz")
    assert np.array_equal(shown["CT"].get_fdata(), np.rint(image.canonical.transpose(2, 1, 0)))
    for voxel in ((0, 0, 0), (39, 35, 5), (12, 30, 2)):  # one voxel of the file, wherever it lies in the page's
        there = image.geometry.affine @ [*voxel, 1]
        place = np.rint(np.linalg.solve(shown["CT"].affine, there)).astype(int)[:3]
        assert shown["CT"].get_fdata()[tuple(place)] == np.rint(image.data[voxel])
    assert set(np.unique(shown["target"].get_fdata())) == {0, 1, 2}
    assert shown["mine"].get_fdata().sum() < shown["target"].get_fdata().sum()
    assert shown["target"].header["intent_code"] == 1002  # what niivue draws as labels


@pytest.mark.parametrize("kind", fakes.AFFINES)
def test_pixels_that_are_left_out_leave_the_others_in_place(kind: str) -> None:
    affine = fakes.AFFINES[kind]
    geometry = Geometry((7, 8, 9), affine, affine, affine, (1, 0))
    world = np.stack(np.meshgrid(*(np.arange(side) for side in (7, 8, 9)), indexing="ij"), axis=-1) @ affine[:3, :3].T
    slices = np.stack([geometry.to_canonical(world[..., axis] + affine[axis, 3]) for axis in range(3)], axis=-1)
    found = canonical_affine(geometry, geometry.canonical_shape, step=2)
    assert found @ [2, 1, 3, 1] == pytest.approx([*slices[3, 2, 4], 1])
    halved = canonical_affine(geometry, (slices.shape[0], 2 * slices.shape[1], slices.shape[2]))
    assert halved @ [0, 1, 0, 1] == pytest.approx([*(0.75 * slices[0, 0, 0] + 0.25 * slices[0, 1, 0]), 1])


def test_large_volumes_are_thinned_and_huge_ones_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ct(tmp_path)
    monkeypatch.setattr(viewing, "ROOM", 40 * 36 * 6 // 4)
    page = view(CONFIG, tmp_path / "volume-0.nii.gz", out=tmp_path / "ct.html")
    assert layers(page)["CT"].shape == (20, 18, 6)
    assert "every 2. row and column" in page.read_text()
    monkeypatch.setattr(viewing, "READ", 1000)
    with pytest.raises(BadFileError, match="8640 voxels, view takes at most 1000"):
        view(CONFIG, tmp_path / "volume-0.nii.gz", out=tmp_path / "ct.html")


def test_hostile_names_are_texts(tmp_path: Path) -> None:
    name = "</script><script>alert(1)"
    write_scan(tmp_path / f"{name.replace('/', '_')}.h5")
    target = write_scan(tmp_path / "b.h5")
    write_reconstruction(tmp_path / "<img src=x onerror=alert(1)>" / "b.h5", target)
    for what in (tmp_path / f"{name.replace('/', '_')}.h5", tmp_path / "<img src=x onerror=alert(1)>"):
        text = view(CONFIG, what, out=tmp_path / "page.html").read_text()
        assert text.count("<script") == 1  # the page's own
        assert "<img src=x" not in text
    write_ct(tmp_path / "ct", "<b>{{7*7}}")
    page = view(CONFIG, tmp_path / "ct/volume-<b>{{7*7}}.nii.gz", out=tmp_path / "ct.html").read_text()
    assert "<b>" not in page.partition("<script")[0]
    assert "49" not in re.findall("<title>.*</title>", page)[0]


def test_what_is_no_scan_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(BadFileError, match="a text file; view takes"):
        view(CONFIG, tmp_path / "a.txt", out=tmp_path / "page.html")
    with pytest.raises(BadDataError, match="no such file"):
        view(CONFIG, tmp_path / "b.h5", out=tmp_path / "page.html")
    write_scan(tmp_path / "c.h5")
    with pytest.raises(OutputError, match="is an input"):
        view(CONFIG, tmp_path / "c.h5", out=tmp_path / "c.h5")


def test_a_page_is_served_to_whoever_knows_its_address() -> None:
    server, address = page_server(b"<p>page")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        assert urlopen(address).read() == b"<p>page"
        assert address.startswith("http://127.0.0.1:")
        with pytest.raises(HTTPError, match="404"):
            urlopen(address[: address.index("/", 8) + 1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_file_that_is_no_evaluation_s_leaves_the_prepared_data_aside(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = Manifest("reconstruction", [], {}, [])
    prepared.write(layout.prepared("reconstruction"))
    for method in ("one", "two"):
        write_reconstruction(Path("runs", method, "a.h5"), np.ones((2, 8, 8)))
    write_json(Path("runs/one/metrics.json"), {"task": "reconstruction", "data_sha256": prepared.fingerprint()})
    view(CONFIG, Path("runs"), out=Path("a.html"))
    assert "left aside" not in capsys.readouterr().err
    write_json(Path("runs/two/metrics.json"), ["of another program"])
    assert list(pictures(view(CONFIG, Path("runs"), out=Path("b.html")))) == ["one", "two"]
    assert "other data than was evaluated, so left aside" in capsys.readouterr().err
