"""The package's layout: who may import whom, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ufbert

PACKAGE = Path(ufbert.__file__).parent
RANKS = [
    {"errors", "_cmm", "_dense", "_host", "log"},
    {"checks"},
    {"activations", "bfloat16", "isa", "int8"},
    {"reference", "stored"},
    {"config", "precision", "threads", "batch"},
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
    {"compare", "integrations", "train", "scale", "server"},
    {"distill", "evaluate", "torch"},
    {"cli", "__init__"},
    {"__main__"},
]
# The same inside the larger sub-packages; their faces (`__init__`) stand above all rows.
ROWS = {
    "checkpoint": [
        "hub options positions template writing", "files names tensors", "families pickled weights",
        "folder", "build download tokenization", "pack", "sentence", "multi_vector saving sparse",
    ],
    "integrations": ["adapter", "bertopic chroma haystack keybert langchain llama_index mteb sklearn spacy"],
    "glue": ["metrics tasks", "data models", "evaluate submission", "probe report"],
    "routes": ["corpus statistics", "picture record report", "prune"],
    "scale": ["sources", "sinks", "worker", "job", "run", "ray"],
    "server": [
        "metrics openapi refusal settings", "body queue", "models", "trees", "service", "endpoint inference",
        "protocol tei", "hub leaves ollama openai", "cohere", "app", "run",
    ],
    "tasks": [
        "habits load quantize sentence_run similarity token_windows",
        "encoder_settings late_chunks pool sparse_embeddings",
        "fill_mask question_answerer sentence_encoder text_classifier token_classifier",
        "cross_encoder multi_vector_encoder sparse_encoder zero_shot_classifier",
    ],
    "train": ["batches device run tokens walk", "fast_feedforward", "bert", "cuda finetune", "distill"],
    "train.distill": [
        "curves grow recipe", "corpus state", "card teacher", "folder outputs revive", "local", "end_to_end", "packed",
        "command",
    ],
}  # fmt: skip
SERVER = {"starlette", "uvicorn", "orjson"}
ADAPTED = {"bertopic", "chromadb", "haystack", "keybert", "langchain_core", "llama_index", "mteb", "pydantic", "spacy"}
MODELS = {"torch", "transformers", "sentence_transformers"}
HEAVY = SERVER | ADAPTED | MODELS | {"pyarrow", "ray", "scipy", "sklearn", "hypothesis", "matplotlib"}
# Extras, which nothing else imports but on demand.
FENCED = {
    "testing": HEAVY,
    "routes": {"matplotlib"},
    "glue": {"scipy", "sklearn"},
    "integrations": ADAPTED | {"sklearn"},
    "train": {"torch", "matplotlib"},
    "server": SERVER,
    "scale": {"pyarrow", "ray"},
}
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
# Inside one rank imports follow the order of the data's path.
ALLOWED = {("server", "__init__"), ("heads", "layers"), ("cli", "__init__")}


MODULES = {
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): file
    for kind in ("*.py", "*.pyx")
    for file in PACKAGE.rglob(kind)
}


def imports(module):
    """Modules of the package that a module imports, anywhere in it, and first names of foreign ones."""
    file, own, foreign = MODULES[module], set(), set()
    folder = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_text())) if file.suffix == ".py" else ():
        if isinstance(node, ast.Import):
            foreign |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            foreign.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            source = ".".join(folder[: len(folder) - node.level + 1] + ([node.module] if node.module else []))
            own |= {name if (name := f"{source}.{alias.name}") in MODULES else source for alias in node.names}
    return own, foreign


def place(module):
    """The name that has a rank: a module's of the package, or its sub-package's."""
    return module.split(".")[1] if "." in module else "__init__"


def test_every_module_has_a_rank_and_imports_only_from_lower_ones():
    for module in MODULES:
        own = place(module)
        assert own in RANK, f"{own}: give it a rank"
        internal, foreign = imports(module)
        assert not foreign & (HEAVY - FENCED.get(own, set())), f"{module}: imports {foreign}"
        for other in map(place, internal):
            assert other == own or (own, other) in ALLOWED or RANK[other] < RANK[own], f"{module}: imports {other}"


@pytest.mark.parametrize("package", ROWS)
def test_modules_of_a_sub_package_import_only_from_lower_rows(package):
    whole = f"ufbert.{package}."
    row = {name: number for number, names in enumerate(ROWS[package]) for name in names.split()}
    for module in (name for name in MODULES if name.startswith(whole)):
        own = module.removeprefix(whole).split(".")[0]
        assert own in row, f"{module}: give it a row"
        for other in imports(module)[0]:
            if other.startswith(whole) and (name := other.removeprefix(whole).split(".")[0]) != own:
                assert row[name] < row[own], f"{module}: imports {other}, which is not below it"


def test_no_module_imports_itself_by_way_of_others():
    below = {module: imports(module)[0] for module in MODULES}
    while free := {module for module in below if not below[module] & below.keys()}:
        below = {module: others for module, others in below.items() if module not in free}
    assert not below, f"in a circle, or above one: {sorted(below)}"


def test_no_file_is_too_long_to_be_read_in_one_sitting():
    files = [file for file in PACKAGE.rglob("*") if file.suffix in {".py", ".pyx", ".pyi", ".pxd", ".h"}]
    sources = [file for file in PACKAGE.rglob("*.c") if file.with_suffix(".pyx") not in files]
    lengths = {str(file): len(file.read_text().splitlines()) for file in files + sources}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


@pytest.mark.timing
def test_import_is_cheap():
    code = "import numpy, time; start = time.process_time(); import ufbert; print(time.process_time() - start)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True) for _ in range(3)]
    assert min(float(run.stdout) for run in runs) < 0.15


UNUSED = {
    "concurrent.futures",
    "hashlib",
    "signal",
    "tempfile",
    "shutil",
    "zipfile",
    "lzma",
    "bz2",
    "tqdm",
    "ufbert.checkpoint.pickled",
}


def test_a_first_embedding_imports_nothing_that_it_does_not_use():
    """The modules of `UNUSED` took 15 ms and 5 MB."""
    embed = "import ufbert; ufbert.SentenceEncoder('all-MiniLM-L6-v2').encode('a')"
    code = f"import sys, numpy; before = set(sys.modules); {embed}; print(*set(sys.modules) - before)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "tokenizers" in loaded and not UNUSED & set(loaded)


def test_a_verb_imports_no_other_verb():
    code = "import sys; from ufbert.cli import parse; parse(['serve']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    verbs = {name.removeprefix("ufbert.cli.") for name in loaded if name.startswith("ufbert.cli.")}
    assert verbs == {"streams", "options", "serve"}
    assert not {"ufbert.glue", "ufbert.routes", "ufbert.scale", "ufbert.testing"} & set(loaded)


def test_import_leaves_heavy_packages_alone():
    code = "import sys, ufbert; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded and not HEAVY & set(loaded)


def test_glue_scores_without_torch():
    code = "import sys, ufbert.cli; from ufbert.glue import evaluate, probe; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
