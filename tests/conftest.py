"""SideEffectGuard, single-threaded runs whose files land nowhere but in pytest's own folders."""

import contextlib
import logging
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

ROOT = Path(__file__).parents[1]
# A source distribution has the package, its tests and the notebooks, and no studies.
collect_ignore = [] if (ROOT / "benchmarks" / "results").is_dir() else ["benchmarks", "project/test_readme.py"]
QUIET = (
    "ignore:.*does not have many workers",
    "ignore:.*number of training batches",
    "ignore:.*LeafSpec",
    "ignore:.*`training_step` returned `None`",
    "ignore:.*Checkpoint directory",
    "ignore:.*resuming from a checkpoint that ended",
    "ignore:.*was configured so",
)


def pytest_configure(config):
    for line in QUIET:
        config.addinivalue_line("filterwarnings", line)
    torch.set_num_threads(1)
    with contextlib.suppress(ImportError):  # the environment of tests/libraries does without
        import hypothesis

        slow_machine = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
        hypothesis.settings.register_profile("slow machine", **slow_machine)
        hypothesis.settings.load_profile("slow machine")
    import lightning.pytorch  # noqa: F401  it sets the level of its loggers when it is imported

    for name in ("lightning.pytorch", "pytorch_lightning", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu") is not None:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture(autouse=True)
def what_single_samples_show_is_made_sense_of(monkeypatch):
    """Fail where what the witness was shown breaks our own code: a fit goes on without it then, and says nothing."""
    from lightning_dataselect.capture.testimony import Testimony

    errors = []

    def noted(ask):
        def asked(*args, **kwargs):
            try:
                return ask(*args, **kwargs)
            except Exception as error:
                errors.append(error)
                raise

        return asked

    for name in ("decide", "refuse_mined", "refuse_mixed", "refuse_ways", "warn_of_ways"):
        monkeypatch.setattr(Testimony, name, noted(getattr(Testimony, name)))
    yield
    assert not errors, errors


class StoppedClock:
    """A clock that goes on only when a test says so: no machine is too slow for it."""

    now = 0.0

    def advance(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """Stands in for the wall's clock of everything that asks `time.perf_counter`."""
    made = StoppedClock()
    monkeypatch.setattr(time, "perf_counter", lambda: made.now)
    return made
