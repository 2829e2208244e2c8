"""Train converted models on a GPU that is hired for minutes: bare, without a network, with limits on what travels.

    python bench/hired.py pack TEACHER --corpus TEXTS ... --start 4x9=FOLDER ... --held-out TEXTS --out OUT
    python bench/hired.py unpack FOLDER ... --work WORK                       (there, after each transfer)
    python bench/hired.py smoke --work WORK --out OUT                         (there, in seconds)
    python bench/hired.py train --work WORK --out OUT --model 4x9=0.6 --model 1x11=0.4 --seconds 540
    cat OUT/4x9.tar.xz.* | tar xJ                                             (here)

`pack` makes OUT/first (teacher, first corpus) and a folder for each start; other corpora and the held-out texts are in
the first of those. Each folder is one transfer. `train` goes on where it was stopped: with less time than is spent
already it writes what the last checkpoint has. A share is of the time that is left when a training begins. A model
NAME is P x D, such as 4x9, or a control, such as none-4x9, affine-4x9, dense-4x9; where no --start of that name was
packed, its trees are grown. OUT gets each model in 8 bits, cut into files below the limit, and a report: logs, curves,
figures on the held-out texts. docs/distilling.md has the plan with sizes and seconds.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(1, str(HERE.parent))  # the package need not be installed
PIECE = 14 * 10**6  # bytes before packing: what a returned file must stay below is 16 MiB
SHORT = {"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 0, "lp": 1, "pb": 1, "dict_size": 2**26}  # numbers of two bytes
QUICK = {"id": lzma.FILTER_LZMA2, "preset": 1, "lc": 0, "lp": 0, "pb": 0}  # weights in 8 bits
FINISHING = 25.0  # seconds for what follows a training
RECIPE = (
    "--tokens 100000000000 --local-tokens 0 --grow-tokens 1000000 --batch-tokens 32768 --rate 0.0015 "
    "--other-rate 0.0007 --embedding-rate 0.0004 --joined 0.08 --cropped 0.08 --noisy 0.08"
).split()
PLAIN = ["--chunks", "1000000000"]  # the same training without this package's own kernels for GPUs


def main() -> None:
    arguments = parse()
    arguments.run(arguments)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("pack")
    verb.set_defaults(run=pack)
    verb.add_argument("teacher")
    verb.add_argument("--corpus", action="append", required=True, help="texts; the first travels first")
    verb.add_argument("--start", action="append", default=[], metavar="NAME=FOLDER")
    verb.add_argument("--held-out", required=True)
    verb.add_argument("--out", type=Path, required=True)
    verb = verbs.add_parser("unpack")
    verb.set_defaults(run=unpack)
    verb.add_argument("folders", nargs="+", type=Path)
    verb.add_argument("--work", type=Path, required=True)
    for name, run in (("smoke", smoke), ("train", train)):
        verb = verbs.add_parser(name)
        verb.set_defaults(run=run)
        verb.add_argument("--work", type=Path, required=True)
        verb.add_argument("--out", type=Path, required=True)
        verb.add_argument("--device", default="cuda")
        verb.add_argument("--seconds", type=float, default=3.0 if name == "smoke" else None, required=name == "train")
        if name == "train":
            verb.add_argument("--model", action="append", required=True, metavar="NAME=SHARE")
            verb.add_argument("--option", nargs="*", default=[], help="further options of ufbert distill, without --")
    return parser.parse_args()


def pack(arguments: argparse.Namespace) -> None:
    """Make what travels."""
    import ufbert
    from ufbert.checkpoint.folder import ModelFolder
    from ufbert.checkpoint.sentence import load_sentence_model
    from ufbert.routes import Corpus
    from ufbert.train.tokens import SUFFIX, TokenisedTexts

    starts = dict(pair.split("=", 1) for pair in arguments.start)
    places = [arguments.out / name for name in ("first", *(starts or ("second",)))]
    for place in places:
        place.mkdir(parents=True)
    made = arguments.out / "made"
    made.mkdir()
    ufbert.convert(arguments.teacher, made / "teacher", "bfloat16")
    (places[0] / "teacher.tar.xz").write_bytes(packed(made / "teacher", SHORT))
    for name, folder in starts.items():
        ufbert.convert(folder, made / name, "int8")
        (arguments.out / name / f"{name}.tar.xz").write_bytes(packed(made / name, QUICK))
    tokenizer = load_sentence_model(ModelFolder(arguments.teacher)).texts.tokenizer
    for number, corpus in enumerate(arguments.corpus):
        file = made / f"corpus-{number}{SUFFIX}"
        TokenisedTexts.of(list(Corpus(corpus)), tokenizer).write(file, tokenizer)
        whole = lzma.compress(file.read_bytes(), filters=[SHORT], check=lzma.CHECK_CRC32)
        (places[min(number, 1)] / f"{file.name}.xz").write_bytes(whole)
    (places[1] / "held-out.txt").write_text("\n".join(Corpus(arguments.held_out)) + "\n", encoding="utf-8")
    shutil.rmtree(made)
    for place in places:
        sizes = {file.name: file.stat().st_size for file in sorted(place.iterdir())}
        print(f"{place}: {sum(sizes.values()):,} bytes", sizes)


def packed(folder: Path, filters: dict[str, Any]) -> bytes:
    """Return a folder as .tar.xz."""
    return lzma.compress(as_tar(folder), filters=[filters], check=lzma.CHECK_CRC32)


def as_tar(folder: Path) -> bytes:
    whole = BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        archive.add(folder, folder.name)
    return whole.getvalue()


def unpack(arguments: argparse.Namespace) -> None:
    """Put what came where `train` looks for it."""
    begin = time.monotonic()
    files = [file for folder in arguments.folders for file in sorted(folder.iterdir())]
    arguments.work.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(len(files)) as pool:
        list(pool.map(unpack_file, files, [arguments.work] * len(files)))
    print(f"unpacked {len(files)} files in {time.monotonic() - begin:.1f} s")


def unpack_file(file: Path, work: Path) -> None:
    if file.name.endswith(".tar.xz"):
        with tarfile.open(file) as archive:
            archive.extractall(work, filter="data")
    elif file.suffix == ".xz":
        (work / file.stem).write_bytes(lzma.decompress(file.read_bytes()))
    else:
        shutil.copy(file, work)


def smoke(arguments: argparse.Namespace) -> None:
    """Compare the GPU's numbers with the reference, and time a step of each shape."""
    import gpu
    import torch

    from ufbert.train.distill.teacher import Teacher
    from ufbert.train.tokens import TokenisedTexts

    begin, device = time.monotonic(), torch.device(arguments.device)
    gpu.check(device)
    teacher = Teacher(os.fspath(arguments.work / "teacher"), device=device, plain=True)
    texts = TokenisedTexts.read(sorted(arguments.work.glob("*.tokens")), teacher.tokenizer)
    found: dict[str, Any] = {"texts": len(texts.starts) - 1, "tokens": len(texts.ids)}
    size = gpu.BATCHES[-1] if device.type == "cuda" else 256
    for shape in gpu.SHAPES:
        stepper, rate = gpu.speed(teacher, texts, shape, size, arguments.seconds)
        found["x".join(map(str, shape))] = rate
        del stepper
    found |= {"torch": str(torch.__version__), "seconds": round(time.monotonic() - begin, 1)}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "smoke.json").write_text(json.dumps(found, indent=1) + "\n")
    print(found)


def train(arguments: argparse.Namespace) -> None:
    """Train one model after another; pack each while the next is trained."""
    end, left = time.monotonic() + arguments.seconds, dict(pair.split("=", 1) for pair in arguments.model)
    arguments.out.mkdir(parents=True, exist_ok=True)
    finishing = []
    while left:
        name, share = next(iter(left.items()))
        seconds = (end - FINISHING - time.monotonic()) * float(share) / sum(float(part) for part in left.values())
        print(f"{name}: {seconds:.0f} seconds", flush=True)
        del left[name]
        if trained(name, max(seconds, 1.0), arguments):
            finishing.append(subprocess.Popen(finish_command(name, arguments)))
    for process in finishing:
        process.wait()
    report(arguments.work, arguments.out)
    if len(finishing) < len(arguments.model) or any(process.returncode for process in finishing):
        raise SystemExit("not all models were made; the report has the output of each")


def trained(name: str, seconds: float, arguments: argparse.Namespace) -> bool:
    """Train one model unless it is there; without this package's kernels for GPUs if they fail."""
    work, (control, _, shape) = arguments.work, name.rpartition("-")
    trees, depth = shape.split("x")
    command = [
        sys.executable,
        "-m",
        "ufbert",
        "distill",
        work / "teacher",
        "--corpus",
        work,
        "--device",
        arguments.device,
    ]
    command += [*RECIPE, "--trees", trees, "--depth", depth, "--seconds", f"{seconds:.0f}"]
    command += ["--control", control] if control else []
    command += [word for pair in arguments.option for word in ("--" + pair).split("=", 1)]
    if (work / name).is_dir():
        command += ["--start", work / name]
    target = work / f"new-{name}"
    for number, more in enumerate(([], PLAIN)):
        if target.is_dir():
            return True
        with open(work / f"{name}.{number}.out", "a", encoding="utf-8") as stream:
            begin = time.monotonic()
            code = subprocess.call([*command, *more, "--out", target], stdout=stream, stderr=stream, env=environment())
        print(f"{name}: ended with {code} after {time.monotonic() - begin:.0f} s", flush=True)
        if code == 0:
            return True
        if any(entry["stage"] == "end_to_end" for entry in logged(target)):
            return False  # it had begun well: the checkpoint is worth more than another beginning
        shutil.rmtree(f"{target}.training", ignore_errors=True)
    return False


def logged(target: Path) -> list[dict[str, Any]]:
    """The log in a training's checkpoint."""
    from safetensors import safe_open

    file = Path(f"{target}.training", "state.safetensors")
    if not file.is_file():
        return []
    with safe_open(file, framework="numpy") as stored:
        entries: list[dict[str, Any]] = json.loads(stored.metadata()["run"])["log"]
    return entries


def environment() -> dict[str, str]:
    """The package beside this script, built or not."""
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def finish_command(name: str, arguments: argparse.Namespace) -> list[str]:
    code = "import sys; sys.path[:0] = sys.argv[1:3]; import hired; hired.finish(*sys.argv[3:])"
    places = str(arguments.work), str(arguments.out)
    return [sys.executable, "-c", code, str(HERE), str(HERE.parent), name, *places, arguments.device]


def finish(name: str, work: str, out: str, device: str) -> None:
    """Convert a trained model to 8 bits, measure both, and pack it."""
    import ufbert

    new, small = Path(work, f"new-{name}"), Path(work, "int8", name)
    shutil.rmtree(small, ignore_errors=True)
    small.parent.mkdir(exist_ok=True)
    ufbert.convert(new, small, "int8")
    whole = as_tar(small)
    pieces = [whole[start : start + PIECE] for start in range(0, len(whole), PIECE)]
    with ThreadPoolExecutor(len(pieces)) as pool:
        for number, piece in enumerate(pool.map(packed_piece, pieces)):
            Path(out, f"{name}.tar.xz.{number}").write_bytes(piece)
    texts = Path(work, "held-out.txt").read_text(encoding="utf-8").splitlines()
    found = measured(Path(work, "teacher"), {"float16": new, "int8": small}, texts, device)
    Path(work, f"{name}.scores.json").write_text(json.dumps(found, indent=1) + "\n")
    print(name, found, flush=True)


def packed_piece(piece: bytes) -> bytes:
    """Pack a part of an archive: such files, one after another, are a valid .xz file."""
    return lzma.compress(piece, filters=[QUICK], check=lzma.CHECK_CRC32)


def measured(teacher: Path, models: dict[str, Path], texts: list[str], device: str) -> dict[str, dict[str, float]]:
    """Mean cosine to the teacher's embeddings, and the share of the ten nearest texts that stay."""
    from ufbert.compare import neighbours_kept

    wanted = embeddings(teacher, texts, device)
    found = {}
    for name, folder in models.items():
        rows = embeddings(folder, texts, device)
        cosines = (rows * wanted).sum(1)
        found[name] = {"cosine": float(cosines.mean()), "lowest": float(cosines.min())}
        found[name]["neighbours"] = neighbours_kept(wanted, rows, min(10, len(texts) - 1))
    return found


def embeddings(folder: Path, texts: list[str], device: str) -> np.ndarray:
    """Embeddings of length 1, pooled by the mean, in PyTorch: (N, H) float32."""
    import torch

    from ufbert.checkpoint.folder import ModelFolder
    from ufbert.checkpoint.sentence import load_sentence_model
    from ufbert.train import Bert
    from ufbert.train.batches import cut, padded

    tokenizer = load_sentence_model(ModelFolder(folder)).texts.tokenizer
    encodings, _ = tokenizer.encode(texts, min(128, tokenizer.max_length))
    ids = [encoding.ids for encoding in encodings]
    bert = Bert.from_folder(folder).to(device).eval()
    for layer in bert.layers:
        if layer.ffn is not None:
            layer.ffn.plain = True
    found = np.empty((len(texts), bert.config.hidden_size), np.float32)
    for rows in cut(np.array([len(row) for row in ids]), np.arange(len(ids)), max_texts=64):
        mask, tokens = padded([ids[row] for row in rows])
        mask = mask.to(device)
        with torch.no_grad():
            hidden = bert(tokens.to(device), mask).float() * mask[:, :, None]
        found[rows] = torch.nn.functional.normalize(hidden.sum(1), dim=1).cpu().numpy()
    return found


def report(work: Path, out: Path) -> None:
    """Pack logs, curves, figures and what was printed."""
    kinds = ("*.scores.json", "*.out", "*.training/log.json", "*.training/curves.png")
    with tarfile.open(out / "report.tar.xz", "w:xz") as archive:
        for file in sorted(file for kind in kinds for file in work.glob(kind)):
            archive.add(file, Path("report", file.relative_to(work)))


if __name__ == "__main__":
    main()
