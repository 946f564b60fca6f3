from pathlib import Path

import pytest

from tests.ct.means import METRICS, differences, table


def evaluation(folder: Path, cases: dict[str, tuple[float, str]]) -> Path:
    """Liver and tumour Dice by case, as `condswin evaluate` writes them; the rest is 1."""
    folder.mkdir()
    rows = [f"{case},{liver},{tumour},1.0,1.0" for case, (liver, tumour) in cases.items()]
    (folder / "cases.csv").write_text("\n".join([f"case,{','.join(METRICS)}", *rows]) + "\n")
    return folder


def test_differences_are_of_the_same_volumes_with_standard_errors(tmp_path: Path) -> None:
    light = evaluation(tmp_path / "light", {"a": (0.5, "0.2"), "b": (0.7, "0.4"), "c": (0.6, "nan")})
    # In another order: volumes are told by name.
    heavy = evaluation(tmp_path / "heavy", {"c": (0.7, "nan"), "b": (0.7, "0.4"), "a": (0.7, "0.4")})
    assert "| light | 3 | 0.600 ± 0.100 | 0.300 ± 0.141 |" in table([light, heavy])
    assert "| heavy | 3 | +0.100 (0.058) | +0.100 (0.100) | +0.000 (0.000) |" in differences([light, heavy])


def test_other_volumes_are_refused_by_name(tmp_path: Path) -> None:
    light = evaluation(tmp_path / "light", {"a": (0.5, "0.2"), "b": (0.7, "0.4")})
    other = evaluation(tmp_path / "other", {"a": (0.5, "0.2"), "c": (0.7, "0.4")})
    with pytest.raises(SystemExit, match=r"other: liver_dice of other volumes than .*light"):
        differences([light, other])
