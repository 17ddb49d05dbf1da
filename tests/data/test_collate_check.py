"""A collate function that sorts its samples gives losses to the wrong ones: it is found out, and no other is blamed."""

import random

import numpy as np
import pytest
import torch
from helpers import Net, Shares, dataset, fit, same_weights
from lightning.pytorch.utilities.seed import isolate_rng
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Subset, default_collate

from lightning_dataselect import InfoBatch, RandomPruning
from lightning_dataselect.data.collate_check import FollowedCollate, checked
from lightning_dataselect.data.places import sorts_samples


def texts(lengths=(3, 5, 2, 4, 2)):
    return [(torch.arange(length) + 10 * i, i % 3) for i, length in enumerate(lengths)]


def padded(samples):
    tokens, labels = zip(*samples, strict=True)
    return pad_sequence(list(tokens), batch_first=True), torch.tensor(labels)


def longest_first(samples):
    return padded(sorted(samples, key=lambda sample: -len(sample[0])))


def longest_first_in_place(samples):
    samples.sort(key=lambda sample: -len(sample[0]))
    return {"tokens": padded(samples)[0], "lengths": torch.tensor([len(tokens) for tokens, _ in samples])}


def by_label(samples):
    return padded(sorted(samples, key=lambda sample: sample[1]))


def shuffled(samples):
    return padded(random.sample(samples, len(samples)))


def turned_around(samples):
    samples = list(samples)
    return padded([samples.pop() for _ in range(len(samples))])


def second_half_first(samples):
    half = len(samples) // 2
    return padded(samples[half:] + samples[:half])


def with_numbers(samples):
    return torch.arange(len(samples)), *padded(samples)


def with_steps(samples):
    """As a diffusion model draws them."""
    return torch.randint(0, 1000, (len(samples),)), *padded(samples)


def masked(samples):
    tokens, labels = padded(samples)
    return tokens.masked_fill(torch.rand(tokens.shape) < 0.3, -1), labels


def noisy_by_numbers(samples):
    tokens, _ = padded(samples)
    return torch.arange(len(samples)), tokens + torch.randn(tokens.shape)


def mixed_up(samples):
    tokens, labels = padded(samples)
    return 0.3 * tokens + 0.7 * tokens.roll(1, 0), labels, labels.roll(1, 0)


def time_first(samples):
    tokens, labels = padded(samples)
    return tokens.T, labels


def missing_labels(samples):
    return padded(samples)[0].float().index_fill(1, torch.tensor([0]), torch.nan)


def without_the_shortest(samples):
    return padded([sample for sample in samples if len(sample[0]) > 2])


def emptying(samples):
    return padded([samples.pop(0) for _ in range(len(samples))])


def boxes(samples):
    """As in detection: one image has as many boxes as the batch has images."""
    images = torch.stack([tokens[:1] for tokens, _ in samples])
    return list(images), [
        {"boxes": torch.arange(len(samples)) if len(tokens) == 2 else tokens} for tokens, _ in samples
    ]


def broken(samples):
    raise ZeroDivisionError


SORTING = [longest_first, longest_first_in_place, by_label, turned_around, second_half_first]
HARMLESS = [
    *(
        padded,
        missing_labels,
        with_numbers,
        with_steps,
        masked,
        noisy_by_numbers,
        mixed_up,
        time_first,
        without_the_shortest,
    ),
    *(emptying, boxes, broken, default_collate, list),
]


@pytest.mark.parametrize("collate", SORTING)
@pytest.mark.parametrize("lengths", [(3, 5, 2, 4, 2), (9, 8, 7, 6, 5, 4, 3, 2, 1), (1, 2, 3, 4)])
def test_what_sorts_is_found(collate, lengths):
    assert sorts_samples(collate, texts(lengths))


def test_what_shuffles_is_found():
    with isolate_rng():
        random.seed(0)
        assert sorts_samples(shuffled, texts(range(1, 9)))


def test_no_other_device_is_seeded_to_look_for_random_parts(monkeypatch):
    # nothing would put its state back
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("another device was seeded"))
    scale, drawn, samples = [0.0], [], texts((3, 3, 3, 3))

    def noisy(samples):
        tokens, labels = padded(samples)
        drawn.append(torch.rand(tokens.shape))
        return tokens + scale[0] * drawn[-1], labels

    collate = FollowedCollate(noisy, required=True)
    collate(samples)
    scale[0] = 1.0
    collate(samples)
    seeded = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    assert any(torch.equal(numbers, seeded) for numbers in drawn), "it was not looked for random parts"


@pytest.mark.parametrize("collate", HARMLESS)
@pytest.mark.parametrize("lengths", [(3, 5, 2, 4, 2), (9, 8, 7, 6, 5, 4, 3, 2, 1), (3, 4, 2, 6, 7), (3, 3, 3), (4,)])
def test_nothing_else_is_blamed(collate, lengths):
    assert not sorts_samples(collate, texts(lengths))


@pytest.mark.parametrize("samples", [torch.arange(4), "abcd", [], {"x": [1, 2]}])
def test_samples_of_other_kinds_are_left_to_it(samples):
    assert not sorts_samples(lambda given: given, samples)


def test_it_is_looked_at_once_and_sees_the_batch_as_it_is():
    calls = []

    def collate(samples):
        calls.append(len(samples))
        return padded(samples)

    each, samples = FollowedCollate(collate, required=True), texts((2,) * 20)
    for _ in range(3):
        torch.testing.assert_close(each(samples), padded(samples))
    assert calls == [8, 8, 8, 8, 20, 20, 20]
    assert checked(default_collate, required=True) is default_collate
    assert checked(each, required=True) is each


def test_what_is_no_list_of_samples_is_passed_on():
    """As data sets give it that read a batch at once."""
    each, batch = FollowedCollate(lambda given: given, required=True), torch.arange(4)
    assert each(batch) is batch


def as_they_come(samples):
    return samples


def by_fields(samples):
    return tuple(zip(*samples, strict=True))


def in_a_dict(samples):
    tokens, labels = zip(*samples, strict=True)
    return {"tokens": list(tokens), "labels": torch.tensor(labels)}


@pytest.mark.parametrize("collate", [as_they_come, by_fields, in_a_dict])
@pytest.mark.parametrize("length", [1, 3, 4, 7, 8, 12])
def test_lists_of_samples_are_counted_by_their_items(collate, length):
    """And not by what an item holds, such as the channels of an image."""
    each = FollowedCollate(collate, required=True)
    for n in (8, 8, 5):
        batch = each(texts((length,) * n))
        assert type(batch) is type(collate(texts((length,) * n)))


def nodes(samples):
    return {"x": torch.cat([tokens for tokens, _ in samples]), "y": torch.cat([tokens + 1 for tokens, _ in samples])}


@pytest.mark.parametrize("lengths", [(3, 5, 2, 4, 2), (4, 4, 4, 4)])
def test_several_rows_of_each_sample_are_no_strangers(lengths):
    """As the nodes of graphs are, which the loss may or may not be over."""
    each = FollowedCollate(nodes, required=True)
    assert isinstance(each(texts(lengths)), dict)


def test_a_list_that_leaves_samples_out_is_followed():
    each = FollowedCollate(lambda samples: [sample for sample in samples if sample is not None], required=True)
    first, second = texts((3,) * 8), [None, *texts((3,) * 7)]
    assert isinstance(each(first), list)
    assert each(second).rows == [1, 2, 3, 4, 5, 6, 7]


def first_instead_of_broken(samples):
    """As data sets are collated whose files may be broken: as many samples as ever."""
    whole = [sample for sample in samples if sample[1] >= 0]
    return padded([sample if sample[1] >= 0 else whole[0] for sample in samples])


def test_a_sample_in_the_place_of_a_broken_one_is_followed():
    each, samples = FollowedCollate(first_instead_of_broken, required=True), texts((4,) * 6)
    assert isinstance(each(samples), tuple)
    broken = [(tokens, -1) if i in (2, 4) else (tokens, label) for i, (tokens, label) in enumerate(samples)]
    followed = each(broken)
    assert followed.rows == [0, 1, 0, 3, 0, 5]
    assert isinstance(each(samples), tuple), "nothing is held against later batches"


def last_in_place_of_broken(samples):
    whole = [sample for sample in samples if sample[1] >= 0]
    return padded(whole + whole[-1:] * (len(samples) - len(whole)))


def half(collate):
    """Pass no number of a sample on."""

    def halved(samples):
        tokens, labels = collate(samples)
        return tokens / 2, labels / 2

    return halved


@pytest.mark.parametrize("change", [lambda collate: collate, half])
@pytest.mark.parametrize(
    "collate, rows", [(first_instead_of_broken, [0, 1, 0, 3, 4, 5]), (last_in_place_of_broken, [0, 1, 3, 4, 5, 5])]
)
def test_a_broken_sample_is_noticed_in_the_first_batch_too(collate, rows, change):
    each, samples = FollowedCollate(change(collate), required=True), texts((4,) * 6)
    broken = [(tokens, -1) if i == 2 else (tokens, label) for i, (tokens, label) in enumerate(samples)]
    assert each(broken).rows == rows
    assert each(broken).rows == rows
    assert isinstance(each(samples), tuple)


def refilled_at_random(samples):
    whole = [sample for sample in samples if sample[1] >= 0]
    return padded(whole + random.choices(whole, k=len(samples) - len(whole)))


@pytest.mark.parametrize("seed", range(20))
def test_samples_drawn_in_place_of_broken_ones_are_followed_and_not_taken_for_sorted_ones(seed):
    each, samples = FollowedCollate(refilled_at_random, required=True), texts((4,) * 8)
    samples[3] = samples[3][0], -1
    with isolate_rng():
        random.seed(seed)
        found = each(samples)
    assert found.rows == [int(tokens[0]) // 10 for tokens in found.batch[0]]


def test_global_random_states_are_put_back():
    def collate(samples):
        random.random(), np.random.rand(), torch.rand(1)
        return padded(samples)

    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    assert not sorts_samples(collate, texts())
    assert states() == before


def descending(samples):
    return default_collate(sorted(samples, key=lambda sample: -sample[0][0]))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fit_that_needs_losses_is_refused(workers):
    train = DataLoader(dataset(), 10, shuffle=True, collate_fn=descending, num_workers=workers)
    with pytest.raises(ValueError, match="collate_fn, descending, reorders the samples of a batch"):
        fit(InfoBatch(), Net(), train, max_epochs=2)
    assert train.collate_fn is descending


class SortedAtOnce(torch.utils.data.Dataset):
    """Reads several samples at ascending positions, as from an HDF5 file."""

    def __len__(self):
        return 100

    def __getitems__(self, indices):
        return [dataset()[i] for i in self.order_of(indices)]

    def __getitem__(self, indices):
        return dataset()[self.order_of(indices)]

    def order_of(self, indices):
        return sorted(indices)


class InOrder(SortedAtOnce):
    """Puts them back."""

    def order_of(self, indices):
        return list(indices)


def read_at_once(data, *, by):
    if by == "getitems":
        return DataLoader(data, 10, shuffle=True)
    return DataLoader(data, batch_size=None, sampler=BatchSampler(RandomSampler(data), 10, drop_last=False))


@pytest.mark.parametrize("by", ["getitems", "batches"])
def test_a_data_set_that_sorts_what_it_reads_is_refused(by):
    for data in (SortedAtOnce(), Subset(SortedAtOnce(), range(99, -1, -1))) if by == "getitems" else (SortedAtOnce(),):
        with pytest.raises(ValueError, match="returns their samples in another order"):
            fit(InfoBatch(), Net(), read_at_once(data, by=by), max_epochs=2)
    with pytest.warns(UserWarning, match="returns their samples in another order"):
        fit(RandomPruning(prune_ratio=0.5), Net(), read_at_once(SortedAtOnce(), by=by), max_epochs=1)
    fit(InfoBatch(), Net(), read_at_once(InOrder(), by=by), max_epochs=2)


def test_a_fit_that_needs_none_is_warned():
    train = DataLoader(dataset(), 10, shuffle=True, collate_fn=descending)
    with pytest.warns(UserWarning, match="reorders the samples of a batch"):
        fit(RandomPruning(prune_ratio=0.5), Net(), train, max_epochs=2)


def test_a_fit_whose_collate_keeps_the_order_is_the_same():
    def stack(samples):
        return default_collate(samples)

    runs = []
    for collate in (None, stack):
        selector, net = Shares(0.5), Net()
        fit(selector, net, DataLoader(dataset(), 10, shuffle=True, collate_fn=collate), max_epochs=3)
        runs.append((selector, net))
    (plain, net), (own, other) = runs
    assert same_weights(net, other)
    torch.testing.assert_close(own.losses, plain.losses, rtol=0, atol=0, equal_nan=True)
