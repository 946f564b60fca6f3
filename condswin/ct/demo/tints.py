"""Hounsfield units of organs, by the phase of the contrast agent."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tints:
    """Hounsfield units of what contrast agent reaches.

    Attributes:
        liver: Its healthy tissue.
        vessels: The liver's vessels, relative to it; below 0 without contrast agent.
        spleen: Its tissue.
        cortex: The kidneys' outer part.
        medulla: The kidneys' inner part.
        pancreas: Its tissue.
        artery: Aorta and heart.
        vein: Vena cava.
    """

    liver: float
    vessels: float
    spleen: float
    cortex: float
    medulla: float
    pancreas: float
    artery: float
    vein: float


def draw_tints(rng: np.random.Generator) -> Tints:
    """Tints of a phase: portal venous as in most of LiTS, arterial, without contrast agent, or anything at all."""
    one = rng.uniform
    phase = rng.choice(["portal", "arterial", "native", "any"], p=[0.5, 0.12, 0.13, 0.25])
    if phase == "arterial":
        liver = one(55, 95)
        return Tints(liver, one(-8, 12), liver + one(5, 60), one(180, 280), one(50, 110), one(80, 130), one(220, 380),
                     one(40, 110))  # fmt: skip
    if phase == "native":
        liver, blood = one(42, 72), one(34, 50)
        return Tints(liver, blood - liver, one(40, 58), one(26, 40), one(22, 36), one(30, 48), blood, blood)
    if phase == "any":
        liver = one(30, 170)
        return Tints(liver, one(-30, 60), liver + rng.normal(0, 25), *one(20, 220, 5))
    liver = one(84, 132)
    return Tints(liver, one(15, 55), liver + one(-15, 22), one(150, 210), one(90, 150), one(70, 105), one(120, 200),
                 one(95, 150))  # fmt: skip
