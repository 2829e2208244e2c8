r"""Put a converted model into the package of bundled weights: 8 bits, a card, a source page, digests, entry points.

    python bench/bundle.py FOLDER --name all-MiniLM-L6-v2-fff-4x9-v1 --report distill.json --row 4x9 \
        --made-with COMMANDS.txt [--glue glue.json --glue-row 4x9] [--default] [--remove FORMER ...]

FOLDER is what `ufbert distill` wrote, or the same in 8 bits. The figures are a row of the report that
`bench/distill.py` wrote for that very model, COMMANDS.txt has the commands that made it. A model above 35 MB is
refused. Afterwards `python tests/pinned/measure.py` pins what it gives. Prints the files that name a removed model.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import ufbert
from ufbert.checkpoint.folder import ModelFolder
from ufbert.checkpoint.tokenization import load_tokenizer
from ufbert.checkpoint.writing import digest, new_folder

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "weights" / "ufbert_weights"
LARGEST = 35_000_000  # bytes of a folder
PROBE = ("Hello, World!", "naïve café — 東京 \u0301x", "[CLS] [MASK] tokens [SEP]", "don't_stop 3.14e-5 #tag", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", required=True, help="with a version, such as -v1: its embeddings are its own")
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--row", required=True)
    parser.add_argument("--glue", type=Path)
    parser.add_argument("--glue-row")
    parser.add_argument("--made-with", type=Path, required=True)
    parser.add_argument("--default", action="store_true")
    parser.add_argument("--remove", nargs="*", default=[])
    parser.add_argument("--package", type=Path, default=PACKAGE)
    arguments = parser.parse_args()
    if not re.search(r"-v\d+$", arguments.name):
        parser.error(f"--name: expected a version at its end, such as {arguments.name}-v1")
    figures = row_of(arguments)
    for former in arguments.remove:
        shutil.rmtree(arguments.package / former)
    target = arguments.package / arguments.name
    with new_folder(target) as complete:
        write_model(arguments.folder, complete)
        (complete / "README.md").write_text(card(arguments.name, complete, figures), encoding="utf-8")
        (complete / "SOURCE.md").write_text(
            source(complete, figures, arguments.made_with.read_text()), encoding="utf-8"
        )
        size = sum(file.stat().st_size for file in complete.rglob("*") if file.is_file())
        if size > LARGEST:
            raise SystemExit(f"{arguments.folder}: expected at most {LARGEST:,} bytes in 8 bits, found {size:,}")
    write_package(arguments.package, arguments.name if arguments.default else None)
    total = sum(file.stat().st_size for file in arguments.package.rglob("*") if file.is_file())
    print(f"{target}: {size:,} bytes; the package: {total:,} bytes")
    for former in arguments.remove:
        named = ["git", "-C", str(ROOT), "grep", "-lF", former]
        print(
            f"{former} is named in", subprocess.run(named, capture_output=True, text=True, check=False).stdout.split()
        )


def row_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The measured figures."""
    rows = json.loads(arguments.report.read_text())["rows"]
    if arguments.row not in rows:
        raise SystemExit(f"--row: expected one of {', '.join(rows)}, got {arguments.row!r}")
    found: dict[str, Any] = rows[arguments.row]
    if arguments.glue:
        summary = json.loads(arguments.glue.read_text())["summary"][arguments.glue_row]
        found |= {"glue": {key: 100 * value["median"] for key, value in summary.items() if key != "hours"}}
    return found


def write_model(folder: Path, target: Path) -> None:
    """Write the model in 8 bits, with one file for its tokenizer where one says all."""
    ufbert.convert(folder, target, "int8")
    for name in ("README.md", "SOURCE.md"):
        (target / name).unlink(missing_ok=True)
    if (target / "vocab.txt").exists() and (target / "tokenizer.json").exists():
        before = encoded(target)
        (target / "tokenizer.json").rename(target / "left-out")
        if encoded(target) == before:
            (target / "left-out").unlink()
        else:
            (target / "left-out").rename(target / "tokenizer.json")


def encoded(folder: Path) -> tuple[dict[str, int], list[list[int]]]:
    """The vocabulary, and the ids of texts that tokenizers may take apart in different ways."""
    texts = [*PROBE, *(ROOT / "examples" / "sentences.txt").read_text(encoding="utf-8").splitlines()]
    tokenizer = load_tokenizer(ModelFolder(folder), 512)
    return tokenizer.backend.get_vocab(), [encoding.ids for encoding in tokenizer.encode(texts)[0]]


def card(name: str, folder: Path, figures: dict[str, Any]) -> str:
    """The model's card, in the form of the Hugging Face hub."""
    config = ufbert.load(folder).config
    visited, neurons = config.num_trees * (config.depth + 1), config.num_trees * config.num_nodes
    dataset = {"type": "held-out", "name": "held-out English sentences"}
    metrics = [{"type": "cosine", "name": "mean cosine to the teacher", "value": round(figures["cosine"], 4)}]
    metrics.append({"type": "recall", "name": "10 neighbours kept", "value": round(figures["neighbours"], 4)})
    results = [result("feature-extraction", dataset, metrics)]
    for task, value in figures["spearman"].items():
        one = {"type": "spearman", "name": "Spearman, of cosines to people's scores", "value": round(value, 4)}
        results.append(
            result("sentence-similarity", {"type": task.lower(), "name": f"{task}, as laid out there"}, [one])
        )
    facts = {
        "language": "en",
        "license": "apache-2.0",
        "library_name": "ufbert",
        "base_model": "sentence-transformers/all-MiniLM-L6-v2",
        "base_model_relation": "finetune",
        "pipeline_tag": "sentence-similarity",
        "tags": ["ufbert", "fast-feedforward", "feature-extraction", "sentence-similarity", "int8", "cpu"],
        "model-index": [{"name": name, "results": results}],
    }
    ratios = ", ".join(f"{100 * value:.1f} % on {task}" for task, value in figures["spearman_ratio"].items())
    glue = "\n"
    if "glue" in figures:
        rows = "; ".join(f"{key} {value:.1f}" for key, value in figures["glue"].items())
        glue = f"\nFine-tuned on GLUE's tasks and others like them, medians over seeds: {rows}. No GLUE scores.\n\n"
    trees = "one tree" if config.num_trees == 1 else f"{config.num_trees} trees"
    front = "".join(f"{key}: {json.dumps(value)}\n" for key, value in facts.items())  # JSON is YAML
    return f"---\n{front}---\n" + textwrap.dedent(f"""
        # {name}

        A sentence encoder for English: all-MiniLM-L6-v2 with {trees} of depth {config.depth} (fast feedforward layers,
        arXiv 2311.10770) in place of each feed-forward layer. A token visits {visited} of {neurons:,} neurons. Weights
        have 8 bits.

        ## Use

        ```python
        import ufbert

        encoder = ufbert.SentenceEncoder("{name}")
        embeddings = encoder.encode(["This is an example sentence", "Each sentence is converted"])
        ```

        `encoder.id` is the sha256 of the weights: store it beside embeddings. Those of another version, and those of
        the original, are not to be compared with these.

        ## How near it comes to the original

        Mean cosine {figures["cosine"]:.4f} (lowest {figures["lowest_cosine"]:.3f}) on sentences that nothing was
        trained on; {100 * figures["neighbours"]:.1f} % of the ten nearest neighbours stay; Spearman is {ratios} of the
        original's.
        GLUE
        ## Limits

        - English only. Texts beyond 256 tokens are cut off by default; training saw 128 at most.
        - It knows what its teacher knows, with the error above: rare words and long texts lose most.
        - It inherits its teacher's biases. Similarities are no judgements about people.
        - Only ufbert reads these weights.

        `SOURCE.md` has the commands that made it, the data, and the licence of its base.
        """).replace("GLUE\n", glue)


def result(task: str, dataset: dict[str, str], metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """One entry of the hub's ``model-index``."""
    return {"task": {"type": task}, "dataset": dataset, "metrics": metrics}


def source(folder: Path, figures: dict[str, Any], commands: str) -> str:
    """Where the model comes from."""
    table = {
        "derived from": "sentence-transformers/all-MiniLM-L6-v2, the float16 copy in `../all-MiniLM-L6-v2`",
        "licence": "Apache-2.0, as its base",
        "trained on": f"English sentences without labels, {figures['tokens'] / 1e6:g} million tokens end to end; no "
        "labelled set and none of the held-out sentences",
        "sha256 of `model.safetensors`": f"`{digest([folder / 'model.safetensors'])}`",
    }
    rows = "\n".join(f"| {key} | {value} |" for key, value in table.items())
    made = textwrap.indent(commands.strip(), "    ")
    return f"# Where this model comes from\n\n| | |\n|---|---|\n{rows}\n\nMade with:\n\n{made}\n"


def write_package(package: Path, default: str | None) -> None:
    """Bring digests, entry points and the default up to date with the folders that are there."""
    names = sorted(folder.name for folder in package.iterdir() if (folder / "config.json").is_file())
    sums = [f"{digest([package / name / 'model.safetensors'])}  {name}/model.safetensors\n" for name in names]
    (package / "SHA256SUMS").write_text("".join(sums))
    file = package.parent / "pyproject.toml"
    head, _, rest = re.split(r'(?<=folder of that name\n)((?:\S+ = "ufbert_weights"\n)+)', file.read_text())
    file.write_text(head + "".join(f'{name} = "ufbert_weights"\n' for name in names) + rest)
    if default is not None:
        file = package / "__init__.py"
        file.write_text(re.sub(r'(?m)^DEFAULT = ".*"$', f'DEFAULT = "{default}"', file.read_text()))


if __name__ == "__main__":
    main()
