"""Hugging Face transformers: the model computes its loss inside."""

import lightning as L
import pytest
import torch
from harness import Case, check_batch_method, check_losses, check_trains, rows_loader

hf = pytest.importorskip("transformers")

VOCABULARY, LENGTH, N = 60, 12, 48
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


class HuggingFace(L.LightningModule):
    """As the documentation of either library has it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def training_step(self, batch, batch_idx):
        loss = self.model(**batch).loss
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def texts(pad=0, seed=0):
    """Token ids and their mask: texts of every length, padded at the end."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, LENGTH + 1, (N,), generator=generator)
    mask = (torch.arange(LENGTH) < lengths[:, None]).long()
    ids = torch.randint(5, VOCABULARY, (N, LENGTH), generator=generator) * mask + pad * (1 - mask)
    return ids, mask


def case(model, columns, units=None):
    """A case of a model and its columns, each with a row a sample."""
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def module():
        torch.manual_seed(0)
        return HuggingFace(model())

    return Case(module, rows_loader(rows), units)


def bert(**options):
    return hf.BertConfig(vocab_size=VOCABULARY, max_position_embeddings=32, **SMALL, **options)


def classification():
    ids, mask = texts()
    columns = {"input_ids": ids, "attention_mask": mask, "labels": ids[:, 1] % 3}
    return case(lambda: hf.BertForSequenceClassification(bert(num_labels=3)), columns)


def regression():
    ids, mask = texts()
    columns = {"input_ids": ids, "attention_mask": mask, "labels": (ids[:, 1] / VOCABULARY).float()}
    return case(lambda: hf.BertForSequenceClassification(bert(num_labels=1)), columns)


def several_labels():
    ids, mask = texts()
    columns = {"input_ids": ids, "attention_mask": mask, "labels": (ids[:, :4] % 2).float()}
    kind = "multi_label_classification"
    return case(lambda: hf.BertForSequenceClassification(bert(num_labels=4, problem_type=kind)), columns)


def question_answering():
    ids, mask = texts()
    columns = {
        "input_ids": ids,
        "attention_mask": mask,
        "start_positions": ids[:, 0] % 3,
        "end_positions": ids[:, 1] % 3,
    }
    return case(lambda: hf.BertForQuestionAnswering(bert()), columns)


def masked_lm():
    ids, mask = texts()
    hidden = (torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)) < 0.4) & mask.bool()
    hidden[:, 0] = True
    columns = {
        "input_ids": ids.masked_fill(hidden, 3),
        "attention_mask": mask,
        "labels": ids.masked_fill(~hidden, -100),
    }
    return case(lambda: hf.BertForMaskedLM(bert()), columns, hidden.sum(1).float())


def token_classification():
    ids, mask = texts()
    columns = {"input_ids": ids, "attention_mask": mask, "labels": (ids % 4).masked_fill(mask == 0, -100)}
    config = hf.DistilBertConfig(
        vocab_size=VOCABULARY, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=32, num_labels=4
    )
    return case(lambda: hf.DistilBertForTokenClassification(config), columns, mask.sum(1).float())


def causal(model):
    ids, mask = texts()
    columns = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}
    return case(model, columns, mask.sum(1).float() - 1)


def gpt2():
    config = hf.GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    return causal(lambda: hf.GPT2LMHeadModel(config))


def llama():
    config = hf.LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=1, max_position_embeddings=32, **SMALL)
    return causal(lambda: hf.LlamaForCausalLM(config))


def sequence_to_sequence(model):
    ids, mask = texts()
    targets, present = texts(seed=1)
    columns = {"input_ids": ids, "attention_mask": mask, "labels": targets.masked_fill(present == 0, -100)}
    return case(model, columns, present.sum(1).float())


def t5():
    config = hf.T5Config(
        vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    return sequence_to_sequence(lambda: hf.T5ForConditionalGeneration(config))


def bart():
    config = hf.BartConfig(
        vocab_size=VOCABULARY, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=32,
    )  # fmt: skip
    return sequence_to_sequence(lambda: hf.BartForConditionalGeneration(config))


def images(size=16):
    return torch.randn(N, 3, size, size, generator=torch.Generator().manual_seed(2))


def vit():
    columns = {"pixel_values": images(), "labels": torch.arange(N) % 4}
    config = hf.ViTConfig(image_size=16, patch_size=8, num_labels=4, **SMALL)
    return case(lambda: hf.ViTForImageClassification(config), columns)


def segformer():
    columns = {"pixel_values": images(32), "labels": (images(32)[:, 0] > 0).long()}
    config = hf.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16,
        num_labels=3,
    )  # fmt: skip
    try:
        hf.SegformerForSemanticSegmentation(config)(pixel_values=images(2))
    except RuntimeError as error:
        pytest.skip(f"this transformers cannot run its own Segformer of this size: {error}")
    return case(lambda: hf.SegformerForSemanticSegmentation(config), columns)


CASES = [
    classification, regression, several_labels, question_answering, masked_lm, token_classification, gpt2, llama,
    t5, bart, vit, segformer,
]  # fmt: skip


@pytest.mark.parametrize("make", CASES)
def test_losses_are_each_samples_own(make):
    check_losses(make())


@pytest.mark.parametrize("make", CASES)
def test_trains(make):
    check_trains(make())


@pytest.mark.parametrize("make", [classification, token_classification, llama, t5])
def test_batch_level_method_trains_on_parts_of_batches(make):
    check_batch_method(make())
