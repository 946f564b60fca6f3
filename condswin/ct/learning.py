"""What training a segmentation network needs."""

from collections.abc import Callable, Iterable
from functools import cache
from itertools import cycle, islice
from math import ceil
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from condswin.config.names import Split
from condswin.ct import guard
from condswin.ct.config import SegmentationConfig
from condswin.ct.dataset import SliceDataset
from condswin.ct.masking import MaskedLearning
from condswin.ct.nifti import LABELS
from condswin.ct.prepared import prepared_files
from condswin.files import fingerprint
from condswin.manifest import Manifest
from condswin.tasks.learning import Learning, Pretraining
from condswin.tasks.slices import Batch


class SegmentationLearning(Learning):
    """Axial slices with their neighbours."""

    def channels(self, network: str) -> tuple[int, int]:
        """A slice and its neighbours in, in each window; background, liver and tumour out."""
        return self.config.section(SegmentationConfig).prepare.channels, len(LABELS)

    def dataset(self, prepared: Path, split: Split, network: str, *, training: bool) -> SliceDataset:
        """Slices with `image` (channels, H, W) and `label` (H, W)."""
        section = self.config.section(SegmentationConfig)
        train, files = section.train, prepared_files(prepared / split)
        if training:
            chosen = labelled(files, train.labelled, self.config.seed)
            names = list(islice(cycle(name for name in files if name in chosen), len(files)))
        return SliceDataset(
            [files[name] for name in (names if training else files)],
            windows=section.prepare.windows,
            neighbours=section.prepare.neighbours,
            position=section.prepare.position,
            foreground=train.foreground if training else 0.0,
            tumour=train.tumour if training else 0.0,
            crop=train.crop if training else None,
            augmented=train.augment and training,
            lesions=train.synthetic_lesions if training else 0.0,
            one_size=training,
            cache_bytes=train.cache_mb << 20,
        )

    def seen(self, manifest: Manifest) -> dict[str, Any]:
        """Spacings and extents of the training's cases; see `guard.seen`."""
        cases = {case.name: case for case in manifest.cases if case.split == "train"}
        chosen = labelled(cases, self.config.section(SegmentationConfig).train.labelled, self.config.seed)
        return guard.seen([case for name, case in cases.items() if name in chosen])

    def synthetic(self) -> list[str]:
        """Lesions that are drawn into slices."""
        share = self.config.section(SegmentationConfig).train.synthetic_lesions
        return [f"synthetic lesions in {share:.0%} of the training slices with liver"] if share else []

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """The loss that the parameters name, of logits (B, 3, H, W).

        With deep supervision, answers of coarser scales follow; each counts half as much as the one before, as nnU-Net
        weighs them (Isensee et al. 2021).
        """
        label, name = batch["label"], self.config.section(SegmentationConfig).train.loss
        measure = F.cross_entropy if name == "cross_entropy" else _monai_loss(name)
        answers = torch.split(output, len(LABELS), dim=1)
        weights = [0.5**scale for scale in range(len(answers))]
        losses = [weight * measure(answer, label) for weight, answer in zip(weights, answers, strict=True)]
        return torch.stack(losses).sum() / sum(weights)

    def validation_scores(self, output: Tensor, batch: Batch) -> Batch:
        """Pixels of liver (tumour included) and of tumour per slice: common ones, and the sum of both sides'."""
        predicted, label = output.argmax(dim=1), batch["label"]
        pairs = {"liver": (label > 0, predicted > 0), "tumour": (label == 2, predicted == 2)}
        return {
            f"{name}_{what}": count.sum(dim=(1, 2))
            for name, (true, found) in pairs.items()
            for what, count in (("common", true & found), ("either", true.long() + found))
        }

    def pretraining(self) -> Pretraining:
        """Hidden patches of slices; see `condswin.ct.masking`."""
        section = self.config.section(SegmentationConfig)
        epochs = section.pretrain.epochs or section.train.epochs
        return Pretraining(
            learning=MaskedLearning(self.config),
            train=section.train.model_copy(update={"epochs": epochs}),
            monitor=("hidden_error", False),
            parameters=section.pretrain.model_dump(mode="json", exclude={"epochs"}),
        )

    def validation_means(self, scores: Batch) -> Batch:
        """Dice over all pixels of the split, as nnU-Net watches it, and `pooled_dice`, the mean of both.

        Of a slice or volume without tumour there is no Dice, but what is called tumour there counts. NaN where neither
        target nor prediction shows any, which leaves `pooled_dice` to the liver.
        """
        dices = {
            f"pooled_{name}_dice": 2 * scores[f"{name}_common"].sum() / scores[f"{name}_either"].sum()
            for name in ("liver", "tumour")
        }
        return {**dices, "pooled_dice": torch.stack(list(dices.values())).nanmean()}


def labelled(names: Iterable[str], share: float, seed: int) -> set[str]:
    """The cases of a share, at least one; a larger share has those of a smaller one."""
    order = sorted(names, key=lambda name: fingerprint([seed, "labelled", name]))
    return set(order[: ceil(share * len(order))])


@cache
def _monai_loss(name: Literal["dice_cross_entropy", "dice_focal"]) -> Callable[[Tensor, Tensor], Tensor]:
    # nnU-Net's choice for 2D: Dice over the whole batch, since most slices lack a class, without background, plus
    # cross entropy (or focal loss) over all classes. MONAI takes seconds to import, so only those who train pay for it.
    from monai.losses import DiceLoss, FocalLoss

    dice = DiceLoss(
        softmax=True, to_onehot_y=True, include_background=False, batch=True, smooth_nr=1e-5, smooth_dr=1e-5
    )
    if name == "dice_focal":
        focal = FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0)
        # MONAI averages over pixels and classes, of which one counts per pixel; cross entropy over pixels only.
        return lambda output, label: dice(output, label[:, None]) + len(LABELS) * focal(output, label[:, None])
    return lambda output, label: dice(output, label[:, None]) + F.cross_entropy(output, label)


PART = SegmentationLearning
