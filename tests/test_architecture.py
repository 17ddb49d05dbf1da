"""The order of the rooms: imports go down, in no circle, and methods keep to what the base offers them."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import lightning_dataselect
from lightning_dataselect import BatchSelector, DataSelector

PACKAGE = "lightning_dataselect"
ROOT = Path(lightning_dataselect.__file__).parent
ROOMS = [  # bottom to top
    "utils",
    "numerics",
    "capture",
    "state",
    "data",
    "trainer",
    "step",
    "fit",
    "callbacks",
    "methods",
    "report",
    "parsing",
    "comparison",
    "cli",
    "demo",
]
INNER_ROOMS = {  # bottom to top; what stands beside them comes last
    "capture": ["loss", "recording", "probing", "reading", "analysis", "witness"],
    "comparison": ["tasks", "runs", "plans", "findings", "showing"],
}
# results are data: those who hold them only say, when they are asked to, who writes and draws them
WRITERS = {
    ("callbacks.reports", "report.export"),
    ("callbacks.reports", "report.gallery"),
}
WITHOUT_LIGHTNING = ("utils", "numerics", "capture", "state")
DEMO_MAY_USE = {"utils"}


def name_of(path):
    """The module in a file, below the package; "" for the package itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}


def imported(tree):
    """Every module that is imported anywhere: at the top, in functions, for type checkers alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            # a name may be a module of the package that it is imported from
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inside(module):
    """The module of this package that holds what is imported as ``module``, or None for what is another's."""
    if module != PACKAGE and not module.startswith(f"{PACKAGE}."):
        return None
    below = module.removeprefix(PACKAGE).removeprefix(".")
    while below and below not in FILES:
        below = below.rpartition(".")[0]
    return below


EDGES = {name: {inside(module) for module in imported(tree)} - {None, name} for name, tree in TREES.items()}


def room(name):
    return name.partition(".")[0]


def folders_in(path):
    return {below.name for below in path.iterdir() if below.is_dir() and below.name != "__pycache__"}


def test_only_the_package_and_its_main_stand_at_the_root():
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "__main__.py"}
    assert folders_in(ROOT) == set(ROOMS)


def test_imports_go_down():
    up = [
        (name, target)
        for name, targets in EDGES.items()
        for target in targets
        if room(name) in ROOMS and target and ROOMS.index(room(target)) > ROOMS.index(room(name))
    ]
    assert set(up) <= WRITERS


@pytest.mark.parametrize(("outer", "inner"), INNER_ROOMS.items())
def test_imports_go_down_within_a_room(outer, inner):
    assert folders_in(ROOT / outer) == set(inner)

    def height(name):
        within = name.split(".")[1:2]
        return inner.index(within[0]) if within and within[0] in inner else len(inner)

    ours = [name for name in EDGES if room(name) == outer and name != outer]
    up = [(name, t) for name in ours for t in EDGES[name] if room(t) == outer and height(t) > height(name)]
    assert not up


def test_demo_stands_apart():
    assert {room(target) for name, targets in EDGES.items() if room(name) == "demo" for target in targets} <= {
        "demo",
        *DEMO_MAY_USE,
    }
    users = {name for name, targets in EDGES.items() for target in targets if room(target) == "demo"}
    assert all(room(name) in ("demo", "cli") for name in users), users


def test_no_modules_import_each_other_in_a_circle():
    below = {name: {t for t in targets if (name, t) not in WRITERS} for name, targets in EDGES.items()}
    try:
        TopologicalSorter(below).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("name", [name for name in FILES if room(name) in WITHOUT_LIGHTNING])
def test_what_lies_below_the_trainer_knows_no_lightning(name):
    others = {module.partition(".")[0] for module in imported(TREES[name])}
    assert not others & {"lightning", "pytorch_lightning", "lightning_fabric", "lightning_utilities"}


def bases_of_methods():
    """The classes of this package that a method is derived from."""
    known = {cls.__name__ for cls in (*DataSelector.__mro__, *BatchSelector.__mro__)}
    for name, tree in TREES.items():
        if room(name) in ("callbacks", "state"):
            yield from (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name in known)


def private_names(cls):
    """Return the names with a leading underscore that a class defines, or sets on itself."""
    for node in ast.walk(cls):
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self":
            yield node.attr
        elif isinstance(node, ast.Assign) and node in cls.body:
            yield from (target.id for target in node.targets)


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


PRIVATE = {name for cls in bases_of_methods() for name in private_names(cls) if is_private(name)}


@pytest.mark.parametrize("name", [name for name in FILES if room(name) == "methods"])
def test_methods_touch_nothing_private_of_the_base(name):
    assert {"_checkpointer", "_end_fit", "_cutter"} <= PRIVATE
    imports = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.Import | ast.ImportFrom)]
    others = {alias.asname or alias.name for node in imports for alias in node.names}
    for node in ast.walk(TREES[name]):
        if not isinstance(node, ast.Attribute) or not is_private(node.attr):
            continue
        owner = ast.unparse(node.value)
        if owner in ("self", "cls"):
            assert node.attr not in PRIVATE, f"{name}, line {node.lineno}: self.{node.attr} is the base's own"
        else:  # torch has public classes with private names
            assert owner.partition(".")[0] in others, f"{name}, line {node.lineno}: {owner}.{node.attr} is private"


# what a test must reach for on purpose: the protocol of notebooks, and sizes that only large runs would come to
TESTS_MAY_TOUCH = {"_repr_html_", "_repr_png_"}
MAY_BE_MADE_SMALLER = {"_BLOCK", "_CHUNK", "_FEWEST_AT_ONCE", "_FEWEST_KEYS", "_HELD_AT_ONCE"}
TESTS = Path(__file__).parent


def defined_in(tree):
    """Every name that code defines: functions, classes, attributes that it sets, names it assigns to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.attr if isinstance(node, ast.Attribute) else node.id


OWN_PRIVATE = {name for tree in TREES.values() for name in defined_in(tree) if is_private(name)}


def private_uses(tree):
    """The private names of this package that a test reads, sets, imports or replaces, but for those it defines too."""
    own = set(defined_in(ast.parse("\n".join(ast.unparse(n) for n in tree.body if isinstance(n, ast.ClassDef)))))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in OWN_PRIVATE - own:
            if ast.unparse(node.value).partition(".")[0] != "torch":
                yield node.attr
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE:
            yield from (alias.name for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr"):
            texts = (arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))
            yield from {text.rpartition(".")[2] for text in texts} & (OWN_PRIVATE - MAY_BE_MADE_SMALLER)


@pytest.mark.parametrize(
    "code, expected",
    [
        ("capture._recorder is None", {"_recorder"}),
        ("from lightning_dataselect.step.reader import _keep_output", {"_keep_output"}),
        ("monkeypatch.setattr(capture, '_recorder', None)", {"_recorder"}),
        ("class Mine:\n    def __init__(self):\n        self._watch = 1\nMine()._watch", set()),
        ("torch._C._watch", set()),
        ("selector.history", set()),
    ],
)
def test_what_is_private_is_found_in_a_test(code, expected):
    assert set(private_uses(ast.parse(code))) == expected


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: path.name)
def test_tests_touch_nothing_private_of_the_package(path):
    assert set(private_uses(ast.parse(path.read_text()))) <= TESTS_MAY_TOUCH


# first words of a docstring that is no imperative; those that may be nouns are left out
NOT_IMPERATIVE = set(
    "What Whether Where Which Begins Does Finds Follows Gives Goes Hides Judges Keeps Leaves Lets Looks Makes Puts"
    " Reads Restores Returns Says Sets Takes Tells Trains Writes Yields".split()
)


@pytest.mark.parametrize("name", FILES)
def test_docstrings_begin_with_an_imperative(name):
    described = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    public = [node for node in described if not is_private(node.name)]
    first_words = {(ast.get_docstring(node) or "").partition(" ")[0] for node in public}
    assert not first_words & NOT_IMPERATIVE


SOURCES = sorted(path for folder in (ROOT, TESTS, TESTS.parent / "benchmarks") for path in folder.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(path.parts[-2:]))
def test_no_docstring_begins_as_a_question(path):
    bare = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Expr)]
    texts = [node.value for node in bare if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert not [text for text in texts if text.split()[0] in ("What", "Whether", "Where", "Which")]


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: path.name)
def test_no_test_imports_from_another(path):
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = [alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module or "" for node in imports if isinstance(node, ast.ImportFrom)]
    assert not [module for module in modules if module.rpartition(".")[2].startswith("test_")]
