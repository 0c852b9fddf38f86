"""Tables 3 and 4: what each embedding, and their balance, scores with one trained model.

A balance of some of the embeddings has the whole balance's weights with those of the missing ones left
out and the others scaled to add up to one, for trained and for new classes apart: of weights w and a
subset S, w'_e = w_e / sum of w over S for e in S, else 0. Where nothing is left (A has no weight for new
classes), the members of S share equally. "No class" is given by A's background logit in every subset: it
says whether a mask shows anything, and is no part of what is balanced.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from model.network.balance import Balance, Mean, Weights
from model.storage.checkpoint import LoadedCheckpoint
from training.ablate.tables import ALL_TRAINED_NEW, TRAINED_NEW_ALL, Cell, Spread, Table
from training.data.layout import SegmentationFolder
from training.errors import TrainingError
from training.evaluation.confusion_counts import Options, count_loaded
from training.evaluation.evaluate import DEFAULTS, Evaluation, count_plan, scores

FIELDS = {"A": "supervised", "B": "mask_attention", "D": "frozen"}
SUBSETS = ("A", "B", "D", "AB", "AD", "BD", "ABD")
MEANS: tuple[Mean, Mean] = ("geometric", "arithmetic")

PAPER_TABLE_3 = {"A": 17.7, "B": 29.0, "D": 19.7, "AB": 29.4, "AD": 26.3, "BD": 29.7, "ABD": 30.0}
PAPER_TABLE_4 = {"B": (39.5, 20.5, 29.0), "ABD": (40.3, 21.6, 30.0)}  # trained, new, all
PAPER = "paper's figures: EBSeg-B on ADE20K-150, whose 67 trained and 83 new classes are COCO-Stuff's"


def restricted(balance: Balance, subset: str) -> Balance:
    """A balance of some embeddings only; see the formula above.

    Args:
        balance: of all three.
        subset: letters out of "ABD". All three give the balance itself.
    """
    if set(subset) == set(FIELDS):
        return balance
    return dataclasses.replace(
        balance, trained=_kept(balance.trained, subset), new=_kept(balance.new, subset)
    )


def _kept(weights: Weights, subset: str) -> Weights:
    kept = {field: getattr(weights, field) for letter, field in FIELDS.items() if letter in subset}
    total = sum(kept.values())
    shares = {name: share / total if total else 1 / len(kept) for name, share in kept.items()}
    return Weights(**(dict.fromkeys(FIELDS.values(), 0.0) | shares))


def compare(
    loaded: LoadedCheckpoint,
    folder: SegmentationFolder,
    balances: Mapping[str, Balance],
    *,
    processes: int = 1,
    options: Options = DEFAULTS,
) -> dict[str, Evaluation]:
    """Scores several balances in one pass: each picture is predicted once, equal balances counted once.

    Args:
        loaded: the model.
        folder: a split with truth.
        balances: by any name.
        processes, options: see `confusion_counts`.

    Raises:
        TrainingError: see `confusion_counts.count_loaded`.
    """
    different = tuple(dict.fromkeys(balances.values()))
    plan = count_plan(loaded.ebseg, folder, different, options)
    tallies = count_loaded(loaded, plan, what="comparing balances", processes=processes)
    by_balance = dict(zip(different, tallies, strict=True))
    return {name: scores(plan, by_balance[balance]) for name, balance in balances.items()}


def embeddings_table(
    loaded: LoadedCheckpoint,
    folder: SegmentationFolder,
    *,
    also: Sequence[LoadedCheckpoint] = (),
    processes: int = 1,
    options: Options = DEFAULTS,
) -> Table:
    """Table 3: the seven subsets of A, B and D under both means, with the model's own weights.

    A single embedding has no mean: its scores stand in the columns of both. With further trainings of the
    model (`also`) every score is their mean, least and greatest.

    Raises:
        TrainingError: another training has other weights.
    """
    own = loaded.ebseg.config.balance

    def balance(subset: str, mean: Mean) -> Balance:
        meant = mean if len(subset) > 1 else MEANS[0]
        return restricted(dataclasses.replace(own, mean=meant), subset)

    balances = {f"{subset} {mean}": balance(subset, mean) for subset in SUBSETS for mean in MEANS}
    found = _of_all([loaded, *also], folder, balances, processes, options)
    rows: list[tuple[Cell, ...]] = []
    for subset in SUBSETS:
        columns = [cell for mean in MEANS for cell in _three(found[f"{subset} {mean}"])]
        rows.append((", ".join(subset), *columns, PAPER_TABLE_3[subset]))
    columns_of_mean = tuple(
        (f"{key}_{mean}", f"{heading}, {mean}") for mean in MEANS for key, heading in ALL_TRAINED_NEW
    )
    return Table(
        title="Table 3: embeddings that are balanced",
        columns=(("embeddings", "embeddings"), *columns_of_mean, ("paper", "paper's mIoU")),
        rows=tuple(rows),
        notes=(_what(loaded, found["ABD geometric"]), _sentence(PAPER)),
    )


def balance_table(
    loaded: LoadedCheckpoint,
    folder: SegmentationFolder,
    *,
    also: Sequence[LoadedCheckpoint] = (),
    processes: int = 1,
    options: Options = DEFAULTS,
) -> Table:
    """Table 4: trained and new classes, without balancing (B alone, as in the paper) and with.

    Two rows more than the paper has tell what is due to treating new classes otherwise than trained ones:
    all classes balanced as trained ones, and all as new ones. `also` as in `embeddings_table`.

    Raises:
        TrainingError: another training has other weights.
    """
    own = loaded.ebseg.config.balance
    rows_of: dict[str, tuple[Balance, tuple[float, float, float] | None]] = {
        "none: B alone": (restricted(dataclasses.replace(own, mean="geometric"), "B"), PAPER_TABLE_4["B"]),
        "A, B, D, geometric mean": (dataclasses.replace(own, mean="geometric"), PAPER_TABLE_4["ABD"]),
        "A, B, D, arithmetic mean": (dataclasses.replace(own, mean="arithmetic"), None),
        f"{own.mean}, all classes weighted as trained": (dataclasses.replace(own, new=own.trained), None),
        f"{own.mean}, all classes weighted as new": (dataclasses.replace(own, trained=own.new), None),
    }
    balances = {name: balance for name, (balance, _) in rows_of.items()}
    found = _of_all([loaded, *also], folder, balances, processes, options)
    rows: list[tuple[Cell, ...]] = []
    for name, (_, paper) in rows_of.items():
        every, trained, new = _three(found[name])
        rows.append((name, trained, new, every, *(paper or (None, None, None))))
    return Table(
        title="Table 4: trained and new classes without and with balancing",
        columns=(("balancing", "balancing"), *TRAINED_NEW_ALL),
        rows=tuple(rows),
        notes=(_what(loaded, found["none: B alone"]), _sentence(PAPER)),
    )


def _of_all(
    trainings: Sequence[LoadedCheckpoint],
    folder: SegmentationFolder,
    balances: Mapping[str, Balance],
    processes: int,
    options: Options,
) -> dict[str, list[Evaluation]]:
    """`compare` of each training, by the names of the balances."""
    if len({training.ebseg.config.balance for training in trainings}) > 1:
        raise TrainingError("the checkpoints balance with other weights, so their scores have no mean")
    each = [compare(x, folder, balances, processes=processes, options=options) for x in trainings]
    return {name: [found[name] for found in each] for name in balances}


def _three(found: Sequence[Evaluation]) -> tuple[Cell, Cell, Cell]:
    def cell(values: Sequence[float | None]) -> Cell:
        return values[0] if len(values) == 1 else Spread.of(values)

    return (
        cell([x.miou_all for x in found]),
        cell([x.miou_trained for x in found]),
        cell([x.miou_new for x in found]),
    )


def _what(loaded: LoadedCheckpoint, every: Sequence[Evaluation]) -> str:
    """The sentences below a table on what was measured."""
    found = every[0]
    present = found.confusion.present
    trained = sum(1 for known, here in zip(found.trained, present, strict=True) if known and here)
    own = loaded.ebseg.config.balance
    weights = "; ".join(
        f"{kind} classes A {x.supervised:g}, B {x.mask_attention:g}, D {x.frozen:g}"
        for kind, x in (("trained", own.trained), ("new", own.new))
    )
    return (
        f"{loaded.manifest.name} version {loaded.manifest.version} on {found.pictures} images of "
        f"{found.data}, {found.split}: {trained} trained and "
        f"{int(present.sum()) - trained} new classes. Weights: {weights}."
        + (f" Mean (least to greatest) of {len(every)} trainings." if len(every) > 1 else "")
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
