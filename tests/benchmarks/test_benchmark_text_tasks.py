"""The tasks of the text studies are what they say: no look ahead, no padding in the loss, the file's own labels."""

import argparse
import gzip

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import language_model, text, translation
from benchmarks.controls import RandomWithinBatches
from benchmarks.glue import TASKS, read
from benchmarks.harness import parts_by_name
from benchmarks.multi30k import BEGIN, END, PAD, ReversedData, Translator, padded, until_end
from benchmarks.schedule import linear_with_warmup
from benchmarks.shakespeare import CharacterGPT, sequences
from lightning_dataselect.utils.errors import UserInputError


def arguments(**given):
    return argparse.Namespace(**{"data_dir": None, "quick": False, "only": None, **given})


def test_bare_quotes_do_not_join_lines(tmp_path):
    path = tmp_path / "rte_dev.tsv.gz"
    path.write_bytes(
        gzip.compress(b'sentence1\tsentence2\tlabel\n"One\ttwo\tentailment\nthree"\tfour\tnot_entailment\n')
    )
    assert read(path, TASKS["rte"]) == ([['"One', 'three"'], ["two", "four"]], [1, 0])


def test_each_target_is_the_next_character():
    ids, following = sequences(torch.arange(11), block=3)
    assert ids.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert (following == ids + 1).all()


def test_gpt_sees_no_later_character():
    torch.manual_seed(0)
    model = CharacterGPT(n_layers=2, n_heads=2, width=16, block=8, n_classes=10).eval()
    ids = torch.randint(10, (2, 8))
    changed = ids.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 10
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


@pytest.fixture
def translator():
    torch.manual_seed(0)
    return Translator(n_pieces=16, n_layers=2, width=16, dropout=0.0, bleu=False).eval()


def test_padding_changes_neither_logits_nor_loss(translator):
    short, long = ([4, 5], [6, 7, 8]), ([9] * 6, [10] * 7)
    alone, beside = padded([short]), padded([short, long])
    torch.testing.assert_close(translator(beside)[0, :4], translator(alone)[0])
    # by hand, over the 4 and 8 pieces that are no padding
    logits = translator(beside)
    sums = [
        F.cross_entropy(logits[i, :n], beside["labels"][i, :n], label_smoothing=0.1, reduction="sum")
        for i, n in ((0, 4), (1, 8))
    ]
    torch.testing.assert_close(translator.loss(beside, label_smoothing=0.1), sum(sums) / 12)


def test_greedy_decoding_takes_the_likeliest_piece_given_its_own(translator):
    source = padded([([4, 5, 6], [4]), ([7] * 5, [4])])["source"]
    found = translator.translate(source)
    unseen = source == PAD
    memory = translator.encoder(translator.embed(source), src_key_padding_mask=unseen)
    given = torch.cat([torch.full((2, 1), BEGIN), found[:, :-1]], 1)
    likeliest = translator.decode(given, memory, unseen).argmax(2)
    assert (likeliest == found)[found != PAD].all()


def test_translation_ends_before_the_first_end():
    assert until_end([5, 6, END, 7, PAD]) == [5, 6]
    assert until_end([5, 6, 7]) == [5, 6, 7]


def test_made_up_targets_are_their_sources_backwards():
    data = ReversedData()
    data.setup("fit")
    for source, target in data.train[:20]:
        assert target == [i + 1 for i in reversed(source)]


def test_schedule_rises_to_the_peak_and_falls_to_nothing():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = linear_with_warmup(optimizer, n_steps=20, warmup=0.1)["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:3] == [1.0, 2.0, 2.0]
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] == pytest.approx(2.0 / 18)
    assert optimizer.param_groups[0]["lr"] == 0


def test_only_parts_that_are_asked_for_are_made():
    def fails():
        raise AssertionError("made")

    assert parts_by_name(arguments(only=["b"]), {"a": fails}, {"b": lambda: "made"}) == ["made"]
    with pytest.raises(UserInputError, match="--only c: the parts are a, b"):
        parts_by_name(arguments(only=["c"]), {"a": fails}, {"b": fails})


@pytest.mark.parametrize("study", [text, translation, language_model])
def test_study_without_its_data_says_what_is_missing(study, monkeypatch):
    monkeypatch.setattr("benchmarks.text.need", lambda *modules: None)
    monkeypatch.setattr("benchmarks.translation.need", lambda *modules: None)
    with pytest.raises(UserInputError, match="--data-dir is needed for"):
        study.parts(arguments())


@pytest.mark.parametrize("study", [text, translation, language_model])
def test_quick_parts_need_no_data(study, capsys):
    (part,) = study.parts(arguments(quick=True))
    assert "--quick leaves" in capsys.readouterr().out
    assert "data_dir" not in str(part.config) or part.config["data"]["init_args"]["data_dir"] is None


def test_random_within_batches_takes_as_many_steps():
    seen = []

    class Model(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 2)

        def training_step(self, batch, batch_idx):
            x, y, i = batch
            if self.training:
                seen.append(i.tolist())
            return F.cross_entropy(self.layer(x), y)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    data = TensorDataset(torch.randn(80, 3), torch.randint(2, (80,)), torch.arange(80))
    control = RandomWithinBatches(batch_ratio=0.5, warmup_epochs=1)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=11, callbacks=[control], **options)
    trainer.fit(Model(), DataLoader(data, 20, shuffle=True))
    assert [len(batch) for batch in seen] == [20] * 4 + [10] * 40
    assert [record["n_backward"] for record in control.history] == [80] + [40] * 10
    # one batch an epoch is scored
    assert [record["n_forward"] for record in control.history] == [80] + [60] * 10
    # ten draws at a half each: a sample is taken Binomial(10, 1/2) times, whose standard deviation is 1.58
    taken = torch.bincount(torch.tensor(sum(seen[4:], [])), minlength=80)
    assert taken.float().std() == pytest.approx(1.58, abs=0.4)
