"""Panels of the pictures that a model did worst on: truth, prediction and where they differ."""

from pathlib import Path

import numpy as np

from model.network.balance import Balance
from model.network.ebseg import EBSeg
from model.segmenter import Segmenter
from training.data.layout import SegmentationFolder
from training.evaluation.confusion_counts import Options, evaluating
from training.evaluation.evaluate import CONTACT_SHEET, Evaluation, count_plan
from training.evaluation.pictures import panel, save_contact_sheet, save_picture


def draw_worst(
    ebseg: EBSeg,
    folder: SegmentationFolder,
    found: Evaluation,
    directory: Path,
    *,
    balance: Balance | None,
    options: Options,
) -> list[Path]:
    """Predicts the worst pictures of an evaluation once more and draws them, the worst first.

    Args:
        ebseg, folder, balance, options: of the evaluation.
        found: what it found.
        directory: is made; the pictures' files begin with their place, from 1.

    Raises:
        DatasetError: a picture cannot be read any more.
        OSError: the disk did not take a panel.
    """
    vocabulary = count_plan(ebseg, folder, (balance,), options).vocabulary
    segmenter = Segmenter(ebseg, short_side=options.short_side, long_side=options.long_side)
    paths = []
    with evaluating(ebseg):
        for place, (name, miou) in enumerate(found.worst, 1):
            sample = folder[folder.names.index(name)]
            size = (sample.labels.shape[0], sample.labels.shape[1])
            labels = segmenter.segment(sample.picture, vocabulary, output_size=size, balance=balance).labels
            shown = panel(
                sample.picture, sample.labels, labels.astype(np.int64) - 1, vocabulary.names, errors=True
            )
            paths.append(directory / f"{place:02}-{name}-{miou:.0f}.png")
            save_picture(paths[-1], shown)
    if paths:
        save_contact_sheet(directory / CONTACT_SHEET, paths)
    return paths
