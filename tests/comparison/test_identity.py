"""A finished run is taken up again only if the code, the data, the versions and the settings are the same."""

import importlib
import random
import sys
from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lightning_dataselect.comparison.plans.spec import MethodSpec
from lightning_dataselect.comparison.runs import identity
from lightning_dataselect.demo import DigitsModel

NET = '''
"""A module."""
import os
from {name}_parts import WIDTH

class Net:
    """Is documented."""
    def forward(self, x):  # and commented
        return x * WIDTH
'''


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Writes modules of the user's own, and gives the class `Net` of the first, imported afresh."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"net_{tmp_path.name.replace('-', '_')}"

    def write(net=NET, parts="WIDTH = 1\n"):
        (tmp_path / f"{name}.py").write_text(net.format(name=name))
        (tmp_path / f"{name}_parts.py").write_text(parts)
        for module in (name, f"{name}_parts"):
            sys.modules.pop(module, None)
        importlib.invalidate_caches()
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            return importlib.import_module(name).Net
        finally:
            sys.dont_write_bytecode = before

    write.name = name
    return write


def test_code_counts_with_what_it_imports_of_the_users_own(project):
    first = identity.code([project()])
    assert set(first) == {f"code of {project.name}.py", f"code of {project.name}_parts.py"}
    assert identity.code([project()]) == first
    changed = identity.code([project(parts="WIDTH = 2\n")])
    assert identity.changes(first, changed) == [f"code of {project.name}_parts.py"]
    changed = identity.code([project(NET.replace("x * WIDTH", "x + WIDTH"))])
    assert identity.changes(first, changed) == [f"code of {project.name}.py"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# and commented", "# and explained"),
        ('"""Is documented."""', '"""Is well documented."""'),
        ("return x", "return  x"),
        ("import os", "import os\ndef main(): compare(seeds=3)"),
    ],
)
def test_comments_docstrings_and_calls_of_compare_do_not_count(project, old, new):
    net = NET.replace("import os", "import os\ndef main(): compare(seeds=5)") if "compare" in new else NET
    assert identity.code([project(net)]) == identity.code([project(NET.replace(old, new))])


def test_libraries_and_this_package_count_by_their_versions():
    assert identity.code([torch.nn.Linear, DigitsModel, MethodSpec]) == {}
    assert torch.__version__ in identity.versions()


def test_what_is_bound_to_a_function_counts():
    def maker(width):
        return lambda: width

    def own(prints):
        return {name: value for name, value in prints.items() if name.startswith("arguments")}

    assert own(identity.code([maker(1)])) != own(identity.code([maker(2)]))
    assert own(identity.code([partial(int, "7")])) != own(identity.code([partial(int, "8")]))
    assert own(identity.code([partial(int, "7")])) == own(identity.code([partial(int, "7")]))


def test_what_a_notebook_defines_counts_by_its_bytecode(monkeypatch):
    import __main__

    monkeypatch.delattr(__main__, "__file__", raising=False)

    def define(width):
        scope = {"__name__": "__main__"}
        exec(f"def helper(): return {width}\nclass Net:\n  def forward(self): return helper()", scope)
        return scope["Net"]

    assert identity.code([define(1)]) == identity.code([define(1)])
    assert list(identity.code([define(1)])) == ["code of Net"]
    assert identity.code([define(1)]) != identity.code([define(2)])


def loader(x, y=None):
    return DataLoader(TensorDataset(x, torch.zeros(len(x)) if y is None else y))


def test_data_count_by_their_length_and_a_few_items():
    x = torch.arange(100.0)
    first = identity.data([loader(x), {"val": loader(x)}])
    assert identity.data([loader(x.clone()), {"val": loader(x)}]) == first
    assert identity.data([loader(x[:99]), {"val": loader(x)}]) != first
    assert identity.data([loader(x + 1), {"val": loader(x)}]) != first
    assert identity.data([loader(x), {"val": loader(x, torch.ones(100))}]) != first
    assert identity.data(None) == identity.data([])


class Augmented(Dataset):
    def __init__(self, draw, size=3):
        self.draw, self.size = draw, size

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.draw(self.size), index


def test_augmented_data_are_the_same_data_and_no_random_state_is_touched():
    state = torch.get_rng_state()
    drawn = [identity.data(DataLoader(Augmented(torch.rand))) for _ in range(2)]
    assert drawn[0] == drawn[1] and torch.equal(torch.get_rng_state(), state)
    own = random.Random(0)  # a generator that nobody seeds: the shape alone is told
    free = [identity.data(DataLoader(Augmented(lambda n: torch.tensor([own.random()] * n)))) for _ in range(2)]
    assert free[0] == free[1]
    assert identity.data(DataLoader(Augmented(lambda n: torch.tensor([own.random()] * n), size=5))) != free[0]
