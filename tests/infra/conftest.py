"""The manifests as kubectl renders them."""

import pytest

from tests.infra.page import make_secrets
from tests.infra.rendering import OVERLAYS, Object, render, with_images


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Object]]:
    """What is applied once every image is recorded."""
    folder = with_images(tmp_path_factory.mktemp("infra"))
    return {name: render(folder / name) for name in OVERLAYS}


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, rendered: dict[str, list[Object]]) -> list[Object]:
    found: list[Object] = rendered[request.param]
    return found


@pytest.fixture
def production(rendered: dict[str, list[Object]]) -> list[Object]:
    return rendered["production"]


@pytest.fixture(scope="session")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    return make_secrets(tmp_path_factory.mktemp("secrets"))
