"""The README says what the results and the methods say."""

from pathlib import Path

from benchmarks.tables import TABLES

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_tables_are_those_of_the_results():
    for name, table in TABLES.items():
        written = README.split(f"<!-- {name} -->\n")[1].split(f"\n<!-- end {name} -->")[0]
        assert written == table(), f"{name}: run python -m benchmarks.tables"


def test_every_python_example_compiles_and_imports():
    blocks = [block.split("```")[0] for block in README.split("```python\n")[1:]]
    assert len(blocks) >= 3
    for block in blocks:
        compile(block, "README.md", "exec")
        for line in block.splitlines():
            if line.startswith(("import ", "from ")):
                exec(line, {})
