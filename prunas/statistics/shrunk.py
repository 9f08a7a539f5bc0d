"""A shrunk network in words: the sentence that says what was picked, and the tables that say why."""

from prunas.costs.metrics import metric
from prunas.protocols import is_fresh
from prunas.results.shrunk import PrunedShape, Retrained, ShrinkRecord
from prunas.statistics.flags import FLAGS, flag_words, ordered
from prunas.statistics.text import Table, count
from prunas.statistics.wording import direction_note, gain_text, number, value_text
from prunas.tasks.score import Score

__all__ = ["cost_table", "sentence", "shape_table", "training_table"]


def sentence(record: ShrinkRecord) -> str:
    """What was picked, what it costs and what was lost, in one sentence."""
    score, picked, dense = record.score, record.picked, record.dense
    label = metric(record.asked.metric).label
    text = f"{record.space} at {record.asked.label} of its {label}: {picked.proposer}"
    text += f", retrained by {picked.protocol}"
    if picked.test_score is None:
        return (
            f"{text}, is the best on validation ({_text(picked.val_score, score)}) and could not be tested."
        )
    text += f", has {value_text(picked.test_score, score)} test {score.name}"
    beside = []
    if dense.test_score is not None:
        lost = gain_text(score.gain(picked.test_score, dense.test_score), score)
        beside.append(f"{lost} to the given network's {value_text(dense.test_score, score)}")
    control = record.control
    if control is not None and control.folder == picked.folder:
        beside.append("it is the control itself: no other way did better on validation")
    elif control is not None and control.test_score is not None:
        beside.append(f"uniform widths by {control.protocol}: {value_text(control.test_score, score)}")
    return f"{text} ({'; '.join(beside)})." if beside else f"{text}."


def cost_table(record: ShrinkRecord, latency: tuple[float, float, float] | None = None) -> Table:
    """The given network beside the picked one: what it costs and what it scores.

    Args:
        record: What was picked.
        latency: Seconds of a pass of the given and the picked network, and their ratio, if it was measured.
    """
    dense, shape, picked, score = record.dense, record.shape, record.picked, record.score
    rows = [
        ("parameters", count(dense.cost.params), count(shape.cost.params)),
        ("MACs of one image", count(dense.cost.macs), count(shape.cost.macs)),
        (f"validation {score.label}", _cell(dense.val_score, score), _cell(picked.val_score, score)),
        (f"test {score.label}", _cell(dense.test_score, score), _cell(picked.test_score, score)),
    ]
    notes = direction_note(score)
    if latency is not None:
        before, after, ratio = latency
        rows.append(("one image on this CPU, ms", f"{1000 * before:.3g}", f"{1000 * after:.3g}"))
        notes.append(
            f"Timed turn by turn, the smaller network takes {ratio:.2f} of the time of the given one."
        )
    return Table(("", "given", "smaller"), "lrr", tuple(rows), tuple(notes))


def shape_table(record: ShrinkRecord) -> Table:
    """The shapes, with their score right after pruning."""
    score = record.score
    flagged = ordered(flag for shape in record.shapes for flag in shape.flags)
    rows = [
        (
            shape.proposer,
            shape.architecture,
            count(shape.cost.params),
            count(shape.cost.macs),
            _cell(shape.pruned_score, score),
            ", ".join(map(flag_words, shape.flags)),
        )
        for shape in record.shapes
    ]
    given = _text(record.dense.val_score, score)
    notes = [
        f"Validation {score.name} of inherited weights right after pruning: batch norms estimated anew, no "
        f"retraining. The given network has {given}.",
        *direction_note(score),
        *(f"{flag_words(flag)}: {FLAGS[flag]}." for flag in flagged if flag in FLAGS),
    ]
    columns = ("shape by", "digest", "params", "MACs", f"pruned, val {score.label}", "flags")
    return Table(columns, "llrrrl", tuple(rows), tuple(notes))


def training_table(record: ShrinkRecord) -> Table:
    """The trainings, the full ones first, each kind with the best first."""
    score = record.score
    before = {(shape.proposer, shape.architecture): shape for shape in record.shapes}
    trainings = sorted(record.trainings, key=lambda training: training.round != "full")
    rows = [_training_cells(training, before, record) for training in trainings]
    notes = [
        "Trained on the training split and ranked on validation; the best full training is picked. The test split "
        "is met once, by the picked network, the control (uniform widths with the largest weights, retrained in "
        "the plainest way) and the given network."
    ]
    columns = (
        *("", "shape by", "retrained by", "epochs", "train MACs"),
        *("pruned, val", f"val {score.label}", f"test {score.label}"),
    )
    return Table(columns, "lllrrrrr", tuple(rows), tuple(notes))


def _training_cells(
    training: Retrained, before: dict[tuple[str, str], PrunedShape], record: ShrinkRecord
) -> tuple[str, ...]:
    score, shape = record.score, before[training.proposer, training.architecture]
    mark = "short"
    if training.round == "full":
        roles = [("picked", record.picked), ("control", record.control)]
        mark = ", ".join(role for role, of in roles if of is not None and of == training)
    val = training.status if training.val_score is None else number(training.val_score, score)
    return (
        mark,
        training.proposer,
        training.protocol,
        str(training.epochs),
        count(training.train_macs),
        "-" if is_fresh(training.protocol) else _cell(shape.pruned_score, score),
        val,
        _cell(training.test_score, score),
    )


def _cell(value: float | None, score: Score) -> str:
    return "-" if value is None else number(value, score)


def _text(value: float | None, score: Score) -> str:
    return "unknown" if value is None else value_text(value, score)
