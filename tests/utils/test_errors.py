"""The package's own errors: one base class, and a builtin beside each kind."""

import ast
import builtins
import pickle
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

import lightning_dataselect
from lightning_dataselect import InfoBatch
from lightning_dataselect.utils import errors
from lightning_dataselect.utils.errors import DataSelectError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DataSelectError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_prints_its_message_and_survives_pickling(kind):
    error = kind("prune_ratio='x': give a float.")
    assert str(error) == "prune_ratio='x': give a float."
    assert isinstance(error, DataSelectError)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error)


def test_each_kind_is_caught_as_the_builtin_it_stands_for():
    assert issubclass(errors.InvalidArgumentError, ValueError)
    assert issubclass(errors.UnexpectedArgumentError, TypeError)
    assert issubclass(errors.MissingFileError, FileNotFoundError)
    assert issubclass(errors.MissingOutputError, KeyError)
    assert issubclass(errors.NoFitYetError, RuntimeError)


BUILTINS = {
    name
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning)
} - {"NotImplementedError"}
# A __getattr__ has to raise this one.
PROTOCOL = {
    (path, "AttributeError")
    for path in ("__init__.py", "methods/__init__.py", "trainer/quiet_loggers.py", "data/kept_stream.py")
}
TRACEBACKS = {"tb_frame", "tb_next", "tb_lasti"}
ROOT = Path(lightning_dataselect.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))


def test_no_builtin_is_raised_on_purpose():
    raised = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BUILTINS:
                raised.add((str(path.relative_to(ROOT)), node.func.id))
    assert raised == PROTOCOL


def test_nothing_looks_into_tracebacks_or_bytecode_to_tell_errors_apart():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert "dis" not in [name.name for name in node.names], path
            assert not (isinstance(node, ast.ImportFrom) and node.module == "dis"), path
            assert not (isinstance(node, ast.Attribute) and node.attr in TRACEBACKS), path


class Broken(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise errors.InvalidLoaderError(f"Sample {index}: say more.")


def test_an_error_from_a_worker_of_a_loader_is_one_line_without_its_traceback():
    with pytest.raises(errors.InvalidLoaderError, match="Traceback") as caught:
        next(iter(DataLoader(Broken(), num_workers=1)))
    assert errors.one_line(caught.value) == "Sample 0: say more."


def test_before_a_fit_a_selector_says_so_and_hasattr_answers_no():
    selector = InfoBatch()
    assert not hasattr(selector, "losses") and not hasattr(selector, "scores")
    assert "InfoBatch" in repr(selector)
    with pytest.raises(errors.NoFitYetError, match="InfoBatch has no per-sample state before a fit"):
        _ = selector.losses
    for kind in ("kept_share", "score_histogram", "data_map", "gallery"):
        with pytest.raises(errors.NoFitYetError, match="InfoBatch has .* before a fit has begun: call trainer.fit"):
            selector.plot(kind)
