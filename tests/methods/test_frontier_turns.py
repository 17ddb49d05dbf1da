"""In each pass every sample has one turn, but for those that the pass leaves out or that are held out."""

import numpy as np
import torch

from lightning_dataselect.methods.frontier.early_stop import NEVER
from lightning_dataselect.methods.frontier.turns import Turns

N = 10


def leave_out(*samples):
    """A pass that leaves these out, and a list of what it was told when it began."""
    told = []

    def begin_pass(passes, taken):
        told.append((passes, int(taken.sum())))
        out = torch.zeros(N, dtype=torch.bool)
        out[list(samples)] = True
        return out

    return begin_pass, told


def walk(turns, passes, k, n_epochs, begin_pass):
    """Count how often each sample is taken; the turns are handed on from epoch to epoch, as a fit does."""
    generator, counts, told = torch.Generator().manual_seed(0), np.zeros(N), []

    def begin(done, taken):
        told.append(done)
        return begin_pass(done, taken)

    for _ in range(n_epochs):
        taken = Turns(turns, told[-1] if told else passes).take(k, begin, generator)
        assert int(taken.sum()) == k
        counts += taken.numpy()
    return counts


def test_each_sample_has_one_turn_in_a_pass():
    begin_pass, told = leave_out()
    counts = walk(torch.zeros(N), 0, 4, 5, begin_pass)  # 20 of 10: two passes
    assert counts.tolist() == [2] * N
    assert told == [(1, 2)]  # in the third epoch, once two of its four are the last of the first pass


def test_what_a_pass_leaves_out_has_no_turn_in_it():
    begin_pass, told = leave_out(3, 7)
    counts = walk(torch.zeros(N), 0, 2, 9, begin_pass)  # 18: all ten once, and eight of them again
    assert counts.tolist() == [1 if i in (3, 7) else 2 for i in range(N)] and told == [(1, 0)]


def test_held_out_samples_have_no_turn_at_all():
    turns = torch.zeros(N)
    turns[[0, 5]] = NEVER
    begin_pass, _ = leave_out()
    counts = walk(turns, 0, 4, 4, begin_pass)
    assert counts.tolist() == [0 if i in (0, 5) else 2 for i in range(N)]


def test_epoch_that_is_longer_than_a_pass_takes_what_was_left_out():
    turns = torch.ones(N)
    turns[9] = NEVER
    begin_pass, told = leave_out(*range(8))
    taken = Turns(turns, 0).take(6, begin_pass, torch.Generator().manual_seed(0))
    assert int(taken.sum()) == 6 and bool(taken[8]) and not bool(taken[9])
    assert told == [(1, 0), (2, 1)]  # in the second pass the eighth sample, taken already, is the only one in line
