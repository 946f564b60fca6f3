import re
from pathlib import Path

import pytest

from condswin.config.names import TASKS
from condswin.config.profiles import compose, profile_names, read_profile, use, write_config
from condswin.config.reading import load_config
from condswin.errors import ConfigError
from condswin.networks.models import create_model
from condswin.tasks.learning import Learning
from condswin.tasks.loading import load

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "names", [["demo"], ["demo", "tiny"], ["demo", "unrolled"], ["thesis-2-fastmri"], ["thesis-2-lits"], ["fastmri"],
              ["lits"], ["thesis-2-fastmri", "thesis-2-lits"], ["fastmri", "lits", "cluster"],
              ["demo", "cluster", "cluster-cpu"]]
)  # fmt: skip
def test_profiles_compose_into_networks_that_can_be_made(names: list[str]) -> None:
    config = compose(names)
    for name in config.present:
        for variant in config.task(name).variants.values():
            inside, outside = load(Learning, name, config).channels(variant.network)
            create_model(
                variant.network, preset=variant.preset, in_channels=inside, out_channels=outside, **variant.overrides
            )


@pytest.mark.parametrize("turned", [1, -1])
@pytest.mark.parametrize(("layers", "epochs", "step"), [(1, (20, 20), 5), (2, (26, 30), 8)])
def test_thesis_profiles_are_the_slides_in_any_order(
    layers: int, epochs: tuple[int, int], step: int, turned: int
) -> None:
    config = compose([f"thesis-{layers}-fastmri", f"thesis-{layers}-lits"][::turned])
    for task in TASKS:
        train = config.task(task).train
        assert (train.optimizer, train.learning_rate, train.gradient_clip) == ("adam", 1e-4, 0.5)
        assert (train.schedule.name, train.schedule.step_size, train.schedule.gamma) == ("step", step, 0.8)
        assert {variant.preset for variant in config.task(task).variants.values()} == {f"thesis-{layers}"}
    assert config.reconstruction.train.loss == "mse"
    assert config.segmentation.train.loss == "cross_entropy"
    assert (config.reconstruction.train.epochs, config.segmentation.train.epochs) == epochs


@pytest.mark.parametrize(
    ("names", "tasks"),
    [
        (["fastmri"], ("reconstruction",)),
        (["lits"], ("segmentation",)),
        (["cluster", "fastmri"], ("reconstruction",)),
        (["thesis-2-lits", "tiny", "cluster"], ("segmentation",)),
        (["lits", "unrolled"], ("segmentation",)),
        (["lits", "thesis-2-fastmri"], TASKS),
    ],
)
def test_a_profile_touches_only_what_it_is_about(names: list[str], tasks: tuple[str, ...]) -> None:
    assert compose(names).present == tasks


def test_overlays_alone_are_no_parameters() -> None:
    with pytest.raises(
        ConfigError, match=r"cluster: laid over another profile; e\.g\. `condswin params use demo cluster`"
    ):
        compose(["cluster"])


def test_profiles_for_real_data_have_larger_or_unrolled_networks() -> None:
    networks = compose(["fastmri", "lits"])
    for task in TASKS:
        assert {variant.preset for variant in networks.task(task).variants.values()} == {"base"}
    assert any(label.startswith("unrolled-") for label in networks.reconstruction.variants)


def test_later_profiles_win_and_others_stay() -> None:
    config = compose(["demo", "tiny"])
    assert config.reconstruction.demo.size == 32
    assert config.reconstruction.train.schedule == compose(["demo"]).reconstruction.train.schedule
    assert set(config.reconstruction.variants) == {"swin", "conditional-light"}


def test_every_profile_says_what_it_is_for() -> None:
    for name in profile_names():
        assert 20 < len(read_profile(name).about) <= 120
        assert read_profile(name).overlay == read_profile(name).about.startswith("Overlay: ")


def test_unknown_profiles_are_refused_with_the_list() -> None:
    with pytest.raises(ConfigError, match=", ".join(profile_names())):
        compose(["gigantic"])
    with pytest.raises(ConfigError, match="did you mean 'thesis-2-lits'"):
        compose(["thesis-litts"])


def test_the_committed_parameters_are_the_demo_profile() -> None:
    assert load_config(ROOT / "params.yaml") == compose(["demo"])


def test_written_parameters_are_read_back(tmp_path: Path) -> None:
    config = compose(["demo"])
    write_config(config, tmp_path / "params.yaml", comment="two\nlines")
    assert load_config(tmp_path / "params.yaml") == config
    assert (tmp_path / "params.yaml").read_text().startswith("# two\n# lines\n")


def test_numbers_without_a_dot_are_numbers(tmp_path: Path) -> None:
    """YAML 1.1 readers take 1e-4 for a text."""
    path = tmp_path / "params.yaml"
    write_config(compose(["demo"]), path, comment="")
    text = path.read_text()
    assert "learning_rate: 0.003" in text
    path.write_text(text.replace("learning_rate: 0.003", "learning_rate: 1e-4"))
    assert load_config(path).reconstruction.train.learning_rate == 1e-4


def test_a_profile_replaces_what_a_profile_wrote(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    use(["demo"], path, settings=["seed=3", "reconstruction.variants.swin.preset=base"])
    assert load_config(path).reconstruction.variants["swin"].preset == "base"
    assert use(["thesis-2-lits", "cluster"], path) == []
    assert load_config(path) == compose(["thesis-2-lits", "cluster"])
    assert path.read_text().startswith("# Written by `condswin params use thesis-2-lits cluster`; every key is yours")


def test_edited_parameters_are_replaced_only_when_told(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    use(["demo"], path)
    edited = path.read_text().replace("seed: 10", "seed: 11").replace("epochs: 4", "epochs: 5")
    edited = edited.replace("epochs: 8", "epochs: 9")
    path.write_text(edited)
    with pytest.raises(
        ConfigError, match=r"reconstruction\.train\.epochs, seed, segmentation\.train\.epochs"
    ) as caught:
        use(["thesis-2-lits"], path)
    assert str(path) in str(caught.value)
    assert "--overwrite" in str(caught.value)
    assert path.read_text() == edited
    use(["thesis-2-lits"], path, overwrite=True)
    assert load_config(path) == compose(["thesis-2-lits"])


def test_parameters_that_no_profile_wrote_are_a_users_own(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("segmentation: {variants: {swin: {}}}\n")
    with pytest.raises(ConfigError, match=r"edited since.* and \d+ more"):
        use(["demo"], path)
    assert path.read_text() == "segmentation: {variants: {swin: {}}}\n"


def test_a_default_left_out_is_no_edit(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    use(["lits"], path)
    path.write_text(path.read_text().replace("seed: 10\n", ""))
    use(["demo"], path)
    assert load_config(path) == compose(["demo"])


def test_sources_that_a_user_set_stay_and_others_do_not(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    use(["thesis-2-fastmri", "lits"], path, settings=["segmentation.source=/mnt/ct"])
    assert "/mnt/ct" not in path.read_text().splitlines()[0]
    path.write_text(path.read_text().replace("source: data/fastmri", "source: s3://bucket/knee"))
    assert use(["fastmri", "thesis-2-lits"], path) == ["reconstruction.source", "segmentation.source"]
    assert load_config(path).reconstruction.source == "s3://bucket/knee"
    assert load_config(path).segmentation.source == "/mnt/ct"
    assert use(["fastmri"], path, settings=["reconstruction.source=/data/knee"]) == []
    assert load_config(path).reconstruction.source == "/data/knee"
    assert use(["demo"], path) == ["reconstruction.source"]
    assert load_config(path).segmentation.source == "data/demo/segmentation"


def test_a_section_that_was_taken_out_comes_back_with_its_profiles_source(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    use(["demo"], path, settings=["segmentation=null"])
    assert use(["demo"], path) == []
    path.write_text(re.sub(r"(?ms)^segmentation:.*", "", path.read_text()).replace("[segmentation]", "[]"))
    assert load_config(path).present == ("reconstruction",)
    assert use(["demo"], path, overwrite=True) == []
    assert load_config(path) == compose(["demo"])


def test_a_composition_that_is_refused_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    use(["demo"], path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="epochs"):
        use(["fastmri"], path, settings=["reconstruction.train.epochs=0"])
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["params.yaml"]
