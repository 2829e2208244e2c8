"""Hostile model folders: a mutated file gives a model, or one `UfbertError` that names the file."""

import io
import json
import warnings
import zipfile

import numpy as np
from conftest import GOLDEN
from folders import scratch, seeds, use
from mutate import dump, generator, mutate_bytes, mutate_json, mutate_safetensors, mutate_text
from watch import Fault

from ufbert import UfbertError
from ufbert.checkpoint.pickled import read_pickled
from ufbert.checkpoint.tensors import Tensors

READ = (".json", ".txt", ".safetensors", ".metadata", ".bin")


class Files:
    """Cases on files: one file of one folder is mutated, and the folder is used as its owner would use it."""

    def __init__(self):
        self.root = scratch()
        self.folders = seeds(self.root)
        self.files = [
            (name, path.relative_to(folder).as_posix())
            for name, folder in sorted(self.folders.items())
            for path in sorted(folder.rglob("*"))
            if path.suffix in READ and path.stat().st_size < 2**20
        ]
        self.content = {place: (self.folders[place[0]] / place[1]).read_bytes() for place in self.files}
        self.pickled = [(GOLDEN / "pickled" / name).read_bytes() for name in ("model.bin", "dtypes.bin")]
        self.weights = [place for place in self.files if place[1].endswith(".safetensors")]

    def __call__(self, seed, number, acts):
        rng = generator(seed, number)
        kind = rng.random()
        if kind < 0.25:
            self.parse_weights(rng, acts)
        elif kind < 0.45:
            self.parse_pickle(rng, acts)
        else:
            self.use_folder(rng, acts)

    def parse_weights(self, rng, acts):
        """The reader of safetensors alone."""
        file = self.root / "model.safetensors"
        file.write_bytes(mutate_safetensors(self.content[rng.choice(self.weights)], rng))
        with accepted_or_refused(acts, file):
            tensors = Tensors({file: []})
            for name in tensors.names():
                tensor = tensors.tensor(name)
                tensor.float32() if tensor.is_floating else tensor.array()

    def parse_pickle(self, rng, acts):
        """The reader of torch's files: the zip archive, or the instructions inside it."""
        file = self.root / "pytorch_model.bin"
        file.write_bytes(mutate_archive(rng.choice(self.pickled), rng))
        with accepted_or_refused(acts, file):
            for tensor in read_pickled(file):
                tensor.array()

    def use_folder(self, rng, acts):
        """A whole folder, loaded and run."""
        name, path = rng.choice(self.files)
        folder = self.folders[name]
        file, before = folder / path, self.content[name, path]
        file.write_bytes(mutate_file(path, before, rng))
        try:
            with np.errstate(all="ignore"), accepted_or_refused(acts, folder):  # NumPy warns of weights that are NaN
                use(name, folder, rng)
        finally:
            file.write_bytes(before)


class accepted_or_refused:
    """What is inside may succeed or raise one `UfbertError` that names something in the folder."""

    def __init__(self, acts, place):
        self.acts, self.place = acts, place

    def __enter__(self):
        self.acts.on = True

    def __exit__(self, kind, error, trace):
        self.acts.on = False
        if kind is None:
            return False
        if not issubclass(kind, UfbertError):
            return False
        message = str(error)
        if len(message) > 3000:
            raise Fault(f"message of {len(message)} characters: {message[:200]}")
        if str(self.place) not in message and not message.startswith(
            ("input_ids: ", "token_type_ids: ", "text 0: expected at least one ")
        ):  # another vocabulary, mask, or room for it
            raise Fault(f"the message names no file: {message[:300]}")
        return True


def mutate_file(path, content, rng):
    """A mutation that knows what kind of file it is, or not."""
    if rng.random() < 0.1:
        return mutate_bytes(content, rng)
    if path.endswith(".safetensors"):
        return mutate_safetensors(content, rng)
    if path.endswith(".bin"):
        return mutate_archive(content, rng)
    if path.endswith((".json", ".metadata")):
        return dump(mutate_json(json.loads(content), rng))
    lines = content.decode().split("\n")
    for _ in range(rng.randint(1, 3)):
        where = rng.randrange(len(lines))
        lines[where : where + 1] = rng.choice([[], [lines[where]] * 2, [mutate_text(lines[where], rng)], [""]])
        lines = lines or [""]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def mutate_archive(content, rng):
    """An archive with other bytes, or with other instructions in its pickle."""
    if rng.random() < 0.4:
        return mutate_bytes(content, rng)
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(stream, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith(".pkl") or rng.random() < 0.02:
                data = mutate_pickle(data, rng)
            if rng.random() < 0.98:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    target.writestr(_member(name, rng) if rng.random() < 0.02 else name, data)
    return stream.getvalue()


def _member(name, rng):
    """Another name of a member, that can be written."""
    return mutate_text(name, rng).encode(errors="replace").decode()[:1000].replace("\0", "0").strip("/") or "x"


def mutate_pickle(data, rng):
    """Instructions with others put in between."""
    pieces = [
        b"cos\nsystem\n", b"R", b"b", b"0", b"(", b"t", b"}", b"]", b"u", b"s", b"N", b"K\xff", b"J\xff\xff\xff\xff",
        b"X\xff\xff\xff\x7f", b"\x8a\xff", b"q\x01", b"h\x01", b"r\xff\xff\xff\x7f", b".", b"\x88", b"\x93", b"2",
    ]  # fmt: skip
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        where = rng.randint(0, len(data))
        data[where : where + rng.choice([0, 0, 1, 2])] = rng.choice(pieces) * rng.choice([1, 1, 1, 3])
    return bytes(data)
