"""The section `denoising` of the parameters."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from condswin.config.gate import GateConfig, RuleConfig, Rules
from condswin.config.names import TaskName
from condswin.config.section import Positive, Section
from condswin.config.task import TaskConfig


class DemoImagesConfig(Section):
    """Generated images.

    Attributes:
        images: How many.
        size: Height and width, pixels.
    """

    images: Positive = 60
    size: Annotated[int, Field(ge=16)] = 32


class NoiseConfig(Section):
    """What is added to clean images.

    Attributes:
        sigma: Standard deviation of the noise; images range from 0 to 1.
    """

    sigma: Annotated[float, Field(gt=0)] = 0.3


class DenoisingGateConfig(GateConfig):
    """When a denoising network becomes champion: if every rule holds."""

    rules: Rules = [  # noqa: RUF012
        RuleConfig(metric="psnr", superior_to="baselines"),
        RuleConfig(metric="psnr", superior_to="champion"),
    ]


class DenoisingConfig(TaskConfig):
    """Denoising: remove noise from images.

    Attributes:
        demo: Generated data.
        noise: What is added to clean images.
    """

    name: ClassVar[TaskName] = "denoising"
    metrics: ClassVar[Mapping[str, bool]] = {"psnr": True}
    baselines: ClassVar[Mapping[str, str]] = {"noisy": "noisy_"}
    preparation: ClassVar[str] = "noise"

    source: str = "data/demo/denoising"
    gate: DenoisingGateConfig = DenoisingGateConfig()
    demo: DemoImagesConfig = DemoImagesConfig()
    noise: NoiseConfig = NoiseConfig()


SECTION = DenoisingConfig
