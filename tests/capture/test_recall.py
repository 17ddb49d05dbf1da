"""Three samples and two of them are enough for a look that only time calls for, if nothing was left open."""

import functools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from late_steps import FIRST_LOOK, B, by_hand, classes, fit, summed

from lightning_dataselect.capture.loss.shown import Shown
from lightning_dataselect.capture.loss.specs import StepSpec, TermSpec
from lightning_dataselect.capture.loss.terms import Term
from lightning_dataselect.capture.witness.recall import Recall

IN_FULL, IN_BRIEF = [3, 1, 1, 1, 3, B], [3, 2]


def hinge(model, x, y):
    return F.relu(1 - model(x)[:, 0]).mean()


def of_tokens(model, x, y):
    return F.cross_entropy(model(x[:, None].expand(-1, 5, -1)).flatten(0, 1), y.repeat_interleave(5))


def one_by_one(model, x, y):
    return classes(model, torch.stack([x[i] for i in range(len(x))]), y)


def with_a_branch(model, x, y):
    loss = classes(model, x, y)
    return 2 * loss if loss < 100 else loss


def out_of_torch(model, x, y):
    loss = classes(model, x, y)
    return loss * (1 + 0 * loss.item())


def with_a_constant(model, x, y):
    return classes(model, x, y) + 0.1


def with_decay(model, x, y):
    return classes(model, x, y) + 0.1 * model.head.weight.square().mean()


def of_weighted_classes(model, x, y):
    return F.cross_entropy(model(x), y, weight=torch.tensor([1.0, 2.0, 3.0]))


def without_some(model, x, y):
    return F.cross_entropy(model(x), torch.where(y == 0, -100, y))


def in_turn(model, x, y):
    return sum(classes(model, x[i : i + 1], y[i : i + 1]) for i in range(len(x))) / len(x)


def by_index(model, x, y):
    index = torch.arange(len(x))
    return classes(model, x[index], y[index])


def by_count(model, x, y):
    losses, counted = F.cross_entropy(model(x), y, reduction="none"), (y >= 0).float()
    return (losses * counted).sum() / counted.sum()


def of_outputs_that_are_sure(model, x, y):
    out = model(x)
    return (F.cross_entropy(out, y, reduction="none") * (out.detach().amax(1) > 0.3)).sum() / len(x)


def up_to_the_largest(model, x, y):
    losses = F.cross_entropy(model(x), y, reduction="none")
    return (losses * (losses <= losses.max())).mean()


def looks(step, other=None, at=0, n_steps=FIRST_LOOK + 1):
    """Return the numbers of samples of each look at a step, by how many steps were done, and what was said of it."""
    found, done = {}, [0]

    def noted(of):
        def run(model, x, y):
            if model.training:
                done[0] += 1
            else:
                found.setdefault(done[0], []).append(len(x))
            return of(model, x, y)

        return run

    *_, refusal, said = fit(noted(step), noted(other or step), lambda i: i >= at > 0, n=n_steps * B)
    return found, refusal or said


@pytest.mark.parametrize("step", [classes, by_hand, summed, hinge, of_tokens])
def test_a_few_samples_are_enough_where_nothing_was_left_open(step) -> None:
    found, said = looks(step, n_steps=2 * FIRST_LOOK)
    assert found == {0: IN_FULL, FIRST_LOOK - 1: IN_BRIEF, 2 * FIRST_LOOK - 3: IN_BRIEF}, said


@pytest.mark.parametrize(
    "step",
    [
        *(out_of_torch, with_a_constant, with_decay, of_weighted_classes, without_some, in_turn),
        *(by_index, by_count, one_by_one),
    ],
)
def test_all_of_them_look_where_something_was(step) -> None:
    found, said = looks(step)
    assert found[0] == found[FIRST_LOOK - 1] == IN_FULL, said


def test_the_whole_batch_is_run_where_a_question_may_change_something() -> None:
    found, said = looks(with_a_branch)
    in_full = [*IN_FULL[:-1], 1, B]  # a sample with another answer, and all; then others to compare with these
    assert found[0][: len(in_full)] == found[FIRST_LOOK - 1][: len(in_full)] == in_full, said


@pytest.mark.parametrize("step", [of_outputs_that_are_sure, up_to_the_largest])
def test_none_is_enough_where_samples_may_be_left_out(step) -> None:
    found, said = looks(step)
    assert IN_BRIEF not in [sizes for done, sizes in found.items() if done >= FIRST_LOOK - 1], said


class Growing:
    """A step that makes the same calls all the time, of which a factor comes to be another one than 0."""

    def __init__(self, change) -> None:
        self.change, self.factor = change, 0.0

    def plain(self, model, x, y):
        return F.cross_entropy(self.change(model(x), self.factor), y)

    def other(self, model, x, y):
        self.factor = 1.0
        return self.plain(model, x, y)


def turned(out, factor):
    return (1 - 0.5 * factor) * out + 0.5 * factor * out.flip(0)


def rolled(out, factor):
    return out + factor * out.roll(1, 0)


def of_their_number(out, factor):
    return out * (1 + factor * len(out))


@pytest.mark.parametrize(
    ("change", "words"),
    [(turned, "the other samples"), (rolled, "the other samples"), (of_their_number, "how many there are")],
)
def test_a_change_of_numbers_alone_is_looked_at_in_full(change, words) -> None:
    step = Growing(change)
    found, said = looks(step.plain, step.other, at=FIRST_LOOK - 4)
    at_first = [*IN_BRIEF, *IN_FULL[:-1]]  # and more, to refuse it
    assert found[FIRST_LOOK - 1][: len(at_first)] == at_first and words in said, said


@pytest.mark.parametrize("sign", [1, -1])
def test_samples_in_another_order_by_the_same_calls_are_found(sign) -> None:
    def ordered(model, x, y, factor=0):
        x, y = x.numpy(), y.numpy()
        order = (factor * x[:, 0]).argsort(kind="stable")
        return classes(model, torch.from_numpy(x[order]), torch.from_numpy(y[order]))

    found, said = looks(ordered, functools.partial(ordered, factor=sign), at=FIRST_LOOK - 4)
    run = found[FIRST_LOOK - 1]
    assert run[: len(IN_BRIEF) + len(IN_FULL)] == [*IN_BRIEF, *IN_FULL] and "reorders the samples" in said, (
        found,
        said,
    )


# ---- by hand ---------------------------------------------------------------------------------------------------------

KEY = ("cross_entropy", 0)


def term_of(losses, **changes):
    return replace(Term(KEY, losses.mean(), losses, None, False), **changes)


def shown(*losses, of_term=None, **changes):
    each = torch.tensor(losses)
    terms = {KEY: (term_of(each, **(of_term or {})), torch.tensor(1.0))}
    return replace(Shown(len(losses), each.mean(), terms, losses=each, calls=("linear",)), **changes)


def after(whole=(), one=(), of_term=(), spec=(), of_step=(), is_settled=True) -> Recall:
    """Return what is remembered of a step in which nothing is open but what is given."""
    recall, terms = Recall(), dict(of_term)
    found = StepSpec({KEY: replace(TermSpec(is_witnessed=True), **dict(spec))})
    singles = [shown(loss, of_term=terms, **dict(one)) for loss in (1.0, 2.0, 3.0)]
    among = shown(1.0, 2.0, 3.0, of_term=terms, **dict(whole))
    recall.learn(among, singles, replace(found, **dict(of_step)), is_settled=is_settled)
    return recall


OPEN = {
    "is_settled": {"is_settled": False},
    "a refused step": {"of_step": {"refusal": "it is refused"}},
    "a loop over the samples": {"of_step": {"loops": frozenset({"cross_entropy"})}},
    "a refused term": {"spec": {"refusal": "it is refused"}},
    "not witnessed": {"spec": {"is_witnessed": False}},
    "two readings": {"spec": {"readings": ((None, 1.0), ("samples", 1.0))}},
    "even rows": {"spec": {"is_even": True}},
    "no losses": {"whole": {"losses": None}},
    "other losses": {"whole": {"losses": torch.tensor([1.0, 2.0, 4.0])}},
    **{name: {"of_term": {name: True}} for name in ("is_judged", "is_ranked", "is_compared", "is_shared")},
    **{name: {"whole": {name: True}} for name in ("sorts", "normalises", "picks_by_outputs")},
    **{f"{name} of one": {"one": {name: True}} for name in ("sorts", "normalises", "picks_by_outputs")},
    "of folds": {"whole": {"of_folds": [KEY]}},
    "rows that were taken": {"whole": {"taken": {KEY: torch.ones(3)}}},
    "a question": {"whole": {"exits": {"there": [True]}}},
    "calls of one": {"one": {"calls": ("linear", "add")}},
    "a question of one": {"one": {"exits": {"there": [True]}}},
    "out of torch": {"whole": {"exits": {"there": [1.5]}}},
    "a number of the loss": {"whole": {"asks_for_loss": True}},
    "a constant": {"whole": {"constant": torch.zeros(1)}},
    "no number": {"whole": {"loss": torch.tensor(torch.nan)}},
}


@pytest.mark.parametrize("name", OPEN)
def test_nothing_is_remembered_where_anything_is_open(name) -> None:
    assert after().holds_any and not after(**OPEN[name]).holds_any


def test_it_is_forgotten_once_anything_is_open() -> None:
    recall = after()
    recall.learn(shown(1.0, 2.0), [shown(1.0), shown(2.0)], StepSpec(), is_settled=True)
    assert not recall.holds_any


@pytest.mark.parametrize(
    ("whole", "pair", "is_known"),
    [
        (shown(4.0, 5.0, 6.0), shown(6.0, 4.0), True),
        (shown(4.0, 5.0, 6.0), shown(4.0, 6.0), False),  # which have stayed in their order
        (shown(4.0, 5.0, 6.0), shown(6.1, 4.0), False),
        (shown(4.0, 5.0, 6.0), shown(6.0, 4.1), False),
        (shown(4.0, 5.0, torch.nan), shown(torch.nan, 4.0), False),
        (shown(4.0, 5.0, 4.0), shown(4.0, 4.0), False),  # which may lie in any order
        (shown(4.0, 5.0, 6.0, losses=None), shown(6.0, 4.0), False),
        (shown(4.0, 5.0, 6.0), shown(6.0, 4.0, losses=None), False),
        (shown(4.0, 5.0, 6.0, calls=("add",)), shown(6.0, 4.0), False),
        (shown(4.0, 5.0, 6.0), shown(6.0, 4.0, calls=("add",)), False),
        (shown(4.0, 5.0, 6.0, calls=("add",)), shown(6.0, 4.0, calls=("add",)), False),
        *(
            (shown(4.0, 5.0, 6.0, **change), shown(6.0, 4.0, **change), False)
            for change in (
                {"divides": True},
                {"exits": {"there": [True]}},
                {"numbers": {("there", 0): None}},
                {"of_term": {"is_sum": True}},
                {"of_term": {"units": torch.ones(3)}},
                {"terms": {}},
            )
        ),
        (shown(4.0, 5.0, 6.0, sorts=True), shown(6.0, 4.0), False),
        (shown(4.0, 5.0, 6.0), shown(6.0, 4.0, sorts=True), False),
    ],
)
def test_it_recognizes_the_same_step_by_other_numbers(whole, pair, is_known) -> None:
    assert after().recognizes(whole, pair) is is_known
