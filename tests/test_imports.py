"""The package's layout: who may import whom, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import ufbert

PACKAGE = Path(ufbert.__file__).parent
RANKS = [
    {"errors", "_cmm", "_dense"},
    {"checks"},
    {"activations", "isa", "int8"},
    {"reference"},
    {"config", "threads", "batch"},
    {"leaf", "paths"},
    {"cmm"},
    {"dense"},
    {"layers", "heads"},
    {"encoder", "tokenizer"},
    {"text_model"},
    {"checkpoint"},
    {"tasks", "convert", "info"},
    {"testing", "routes"},
    {"glue"},
    {"evaluate", "train"},
    {"distill", "torch"},
    {"cli", "__init__"},
    {"__main__"},
]
HEAVY = {"torch", "transformers", "scipy", "sklearn", "hypothesis", "matplotlib", "sentence_transformers"}
# Extras, which nothing else imports but on demand.
FENCED = {
    "testing": HEAVY,
    "routes": {"matplotlib"},
    "glue": {"scipy", "sklearn"},
    "train": {"torch", "matplotlib"},
}
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
# Inside one rank, and inside a folder, imports follow the order of the data's path.
ALLOWED = {("heads", "layers"), ("__init__", "cli"), ("cli", "__init__")}


def imports(file):
    """Modules of the package that a file imports, by their first name, and foreign ones."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((None, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield None, node.module.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and len(parts) - node.level == 0:
            names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
            yield from ((name if name in RANK else "__init__", None) for name in names)


def test_every_module_has_a_rank_and_imports_only_from_lower_ones():
    for file in PACKAGE.rglob("*.py"):
        own = file.relative_to(PACKAGE).with_suffix("").parts[0]
        assert own in RANK, f"{own}: give it a rank"
        for internal, foreign in imports(file):
            assert foreign not in HEAVY - FENCED.get(own, set()), f"{file}: imports {foreign}"
            if internal is not None and internal != own and (own, internal) not in ALLOWED:
                assert RANK[internal] < RANK[own], f"{file}: imports {internal}, which is not below it"


def test_import_is_cheap_and_leaves_heavy_packages_alone():
    code = (
        "import numpy, sys, time; start = time.perf_counter(); import ufbert; "
        "print(time.perf_counter() - start, *{name.split('.')[0] for name in sys.modules})"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    seconds = min(float(run.stdout.split()[0]) for run in runs)
    assert seconds < 0.15
    assert not HEAVY & set(runs[0].stdout.split()[1:])


def test_glue_scores_without_torch():
    code = "import sys, ufbert.cli; from ufbert.glue import evaluate, probe; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
