"""When a step is looked at again: by kinds of step that take turns, and those that cannot be followed without."""

from lightning_dataselect.capture.reprobe import ReprobePolicy

CLASSES, BOXES = frozenset({"classes"}), frozenset({"boxes"})


def test_a_step_that_no_look_finds_again_cannot_be_followed_without() -> None:
    policy = ReprobePolicy()
    assert policy.settle(CLASSES) and policy.check(CLASSES)
    assert not policy.check(BOXES)  # lost: two looks are to find it
    assert policy.settle(CLASSES) and policy.probes == 1
    assert not policy.settle(CLASSES), "both looks have met the other kind alone"
    assert policy.probes == 0


def test_what_was_given_up_is_not_held_against_later_looks() -> None:
    policy = ReprobePolicy()
    policy.settle(CLASSES)
    policy.check(BOXES)
    policy.settle(CLASSES), policy.settle(CLASSES)
    policy.probe_next()
    assert policy.settle(CLASSES), "nothing was lost since"
