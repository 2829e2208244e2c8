"""Weights that torch has pickled: tensors come out of them, and nothing else."""

import io
import json
import pickle
import shutil
import warnings
import zipfile

import numpy as np
import pytest
from conftest import GOLDEN, write_sentence_model
from hypothesis import given
from hypothesis import strategies as st
from lab import examples
from safetensors.numpy import load_file

import ufbert
from ufbert import CheckpointError
from ufbert.checkpoint.pickled import read_pickled
from ufbert.checkpoint.tensors import Tensors

PICKLED = GOLDEN / "pickled"
FLOATS = np.arange(24, dtype=np.float32)


def archive(code, members=None, folder="archive", compression=zipfile.ZIP_STORED):
    """The bytes of a file of ``torch.save`` with these instructions and 24 float32 numbers."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that are there twice
        with zipfile.ZipFile(stream, "w", compression) as out:
            for name, content in [
                ("data.pkl", code),
                *({"data/0": FLOATS.tobytes()} if members is None else members).items(),
            ]:
                out.writestr(f"{folder}/{name}", content)
    return stream.getvalue()


def read(tmp_path, content):
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(content)
    return {tensor.name: tensor.array() for tensor in read_pickled(file)}


STORAGE = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + b"0X\3\0\0\0cpuK\x18tQ"
"""Instructions that put the storage of 24 numbers on the stack."""


def state_dict(shape=b"K\4K\6\x86", strides=b"K\6K\1\x86", storage=STORAGE, offset=b"K\0", rest=b"\x89"):
    """Instructions of ``{"a": tensor}``."""
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + shape + strides + rest + b"tR"
    return b"\x80\2}X\1\0\0\0a" + tensor + b"s."


def test_every_dtype_and_layout():
    expected = Tensors({PICKLED / "dtypes.safetensors": []})
    found = {tensor.name: tensor for tensor in read_pickled(PICKLED / "dtypes.bin")}
    assert set(found) == set(expected.names())
    for name, tensor in found.items():
        assert (tensor.dtype, tensor.shape) == (expected.tensor(name).dtype, expected.tensor(name).shape), name
        np.testing.assert_array_equal(tensor.array(), expected.tensor(name).array(), err_msg=name)


def test_a_state_dict_of_instructions(tmp_path):
    np.testing.assert_array_equal(read(tmp_path, archive(state_dict()))["a"], FLOATS.reshape(4, 6))


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_convert_takes_the_tensors(tmp_path, shards, dtype):
    golden, folder = GOLDEN / "hf" / "act-relu", tmp_path / "source"
    folder.mkdir()
    shutil.copy(golden / "config.json", folder)
    shutil.copy(PICKLED / "model.bin", folder / ("pytorch_model-1.bin" if shards else "pytorch_model.bin"))
    if shards:
        index = '{"weight_map": {"embeddings.word_embeddings.weight": "pytorch_model-1.bin"}}'
        (folder / "pytorch_model.bin.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"pytorch_model.*never read here.*ufbert convert FOLDER NEW_FOLDER"):
        ufbert.load(folder)
    model = ufbert.load(ufbert.convert(folder, tmp_path / "target", dtype))
    expected = load_file(golden / "expected.safetensors")
    found = model(expected["input_ids"], expected["attention_mask"], expected["token_type_ids"]).last_hidden_state
    kept = expected["attention_mask"] == 1
    error = np.abs(found[kept] - expected["last_hidden_state"][kept]).max()
    assert error < (1e-4 if dtype == "float32" else 0.2)
    assert not list((tmp_path / "target").glob("*.bin"))


def test_convert_takes_the_tensors_of_a_dense_module(tmp_path):
    folder = write_sentence_model(tmp_path / "source")
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "2_Dense").mkdir()
    settings = {"in_features": 12, "out_features": 2, "bias": False, "activation_function": "torch.nn.Identity"}
    (folder / "2_Dense" / "config.json").write_text(json.dumps(settings))
    code = state_dict(b"K\2K\x0c\x86", b"K\x0cK\1\x86").replace(b"X\1\0\0\0a", b"X\x0d\0\0\0linear.weight")
    (folder / "2_Dense" / "pytorch_model.bin").write_bytes(archive(code))
    encoder = ufbert.SentenceEncoder(ufbert.convert(folder, tmp_path / "target", "float32"))
    (folder / "modules.json").write_text(json.dumps(modules[:2]))
    pooled = ufbert.SentenceEncoder(folder).encode("the cat")
    np.testing.assert_allclose(encoder.encode("the cat"), FLOATS.reshape(2, 12) @ pooled, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (pickle.dumps(print, 2), "the name '__builtin__.print'"),
        (b"\x80\2cos\nsystem\nX\4\0\0\0true\x85R.", "the name 'os.system', which is neither imported nor called"),
        (b"\x80\2ctorch\nload\n.", "the name 'torch.load'"),
        (b"\x80\2ctorch.nn\nModule\n)R.", "the name 'torch.nn.Module'"),
        (b"\x80\2ccollections\nOrderedDict\n.", "names with tensors, found _Name"),
        (b"\x80\2ccollections\nOrderedDict\n]\x85R.", "arguments of collections.OrderedDict"),
        (b"\x80\2ctorch\nFloatStorage\n)R.", "arguments of torch.FloatStorage"),
        (b"\x80\2(ios\nsystem\n.", "instructions that build tensors, found INST"),
        (b"\x80\2ccollections\nOrderedDict\n)\x81.", "found NEWOBJ"),
        (b"\x80\4\x8c\2os\x8c\6system\x93.", "found STACK_GLOBAL"),
        (b"\x80\2Pstorage\n.", "found PERSID"),
        (b"\x80\2\x82\1.", "found EXT1"),
        (b"\x80\2]2.", "found DUP"),
        (b"\x80\2}}b.", None),
        (b"\x80\2K\1}b.", "a dict, found a int"),
        (b"\x80\2K\1.", "names with tensors, found int"),
        (b"\x80\2}X\1\0\0\0aK\1s.", "tensors alone, found int under 'a'"),
        (b"\x80\2}K\1K\2s.", "names with tensors"),
        (b"\x80\2}]K\2s.", "names with values"),
        (b"\x80\2}(K\1u.", "names with values"),
        (b"\x80\2}}.", "one value at the end, found 2"),
        (b"\x80\2(}.", "one value at the end"),
        (b"\x80\2.", "one value at the end, found 0"),
        (b"\x80\2u.", "fault"),
        (b"\x80\2(s.", "as many values as an instruction takes"),
        (b"\x80\2R.", "as many values"),
        (b"\x80\2h\7.", "fault"),
        (b"\x80\2X\xff\xff\xff\x7fa.", "fault"),
        (b"\x80\2\x8b\xff\xff\xff\x7fa.", "fault"),
        (b"\x80\2\xff.", "fault"),
        (b"\x80\2}", "fault"),
        (b"", "fault"),
        (b"\x80\2K\1Q.", "a tuple, found a int"),
        (b"\x80\2)Q.", "the persistent id of a storage"),
        (state_dict(storage=STORAGE.replace(b"K\x18", b"K\x19")), "100 bytes of data/'0', found 96"),
        (state_dict(storage=STORAGE.replace(b"Float", b"Double")), "192 bytes of data/'0', found 96"),
        (state_dict(storage=STORAGE.replace(b"0X\3", b"1X\3")), "96 bytes of data/'1', found none"),
        (state_dict(storage=STORAGE.replace(b"FloatS", b"QUInt8S")), "the name 'torch.QUInt8Storage'"),
        (state_dict(storage=b"N"), "a storage, found a nonetype"),
        (state_dict(offset=b"K\1"), "a tensor inside its storage of 24 numbers"),
        (state_dict(offset=b"J\xff\xff\xff\xff"), "a number from 0, found -1"),
        (state_dict(offset=b"\x88"), "a number from 0, found True"),
        (state_dict(shape=b"K\4K\7\x86"), "a tensor inside its storage"),
        (state_dict(strides=b"K\0K\0\x86"), None),
        (state_dict(shape=b"J\xff\xff\xff\x7fK\6\x86", strides=b"K\0K\0\x86"), "a tensor inside its storage"),
        (state_dict(shape=b"J\xff\xff\xff\x7fK\0\x86", strides=b"K\0K\0\x86"), None),
        (state_dict(strides=b"K\6\x85"), "a stride for each"),
        (state_dict(shape=b"(" + b"K\1" * 9 + b"t", strides=b"(" + b"K\1" * 9 + b"t"), "at most 8 axes"),
        (state_dict(shape=b"]", strides=b"]"), "a tuple, found a list"),
        (b"\x80\2" + b")" + b"\x85" * 100_000 + b".", "names with tensors, found tuple"),
        (b"\x80\2)" + b"".join(b"q\0h\0\x86" for _ in range(60)) + b"Q.", "the persistent id"),
        (b"\x80\2](" + b"q\0h\0" + b"e.", "fault|as many values|found list"),
    ],
)  # fmt: skip
def test_nothing_but_tensors(tmp_path, code, message):
    if message is None:
        assert read(tmp_path, archive(code)).keys() <= {"a"}
        return
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path, archive(code))


def test_a_file_cannot_grow(tmp_path):
    """Many names for the same numbers, each transposed and so copied."""
    tensor = state_dict(strides=b"K\1K\4\x86")[:-2].removeprefix(b"\x80\2}X\1\0\0\0a")
    put = b"\x80\2}" + b"X\1\0\0\0a" + tensor + b"q\1s"
    code = put + b"".join(b"X\4\0\0\0%04dh\1s" % number for number in range(2_000)) + b"."
    with pytest.raises(CheckpointError, match="at most 4 times the tensors"):
        read(tmp_path, archive(code))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\2}.", "a whole archive of torch 1.6 or later"),
        (archive(state_dict(), compression=zipfile.ZIP_DEFLATED), "stored as they are, found 'archive/data.pkl'"),
        (archive(state_dict(), {"data/0": FLOATS.tobytes(), "byteorder": b"big"}), "little-endian"),
        (archive(state_dict(), {"data.pkl": b""}), "one member of each name"),
        (archive(state_dict(), folder=""), "one folder"),
        (archive(state_dict())[:-30], "a whole archive"),
        (b"version https://git-lfs.github.com/spec/v1", "a whole archive"),
    ],
)
def test_other_archives_are_refused(tmp_path, content, message):
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path, content)


WHOLE = (PICKLED / "dtypes.bin").read_bytes()


@examples(300)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=5), st.integers(0, 40))
def test_damaged_files_are_tensors_or_refused(tmp_path_factory, changes, cut):
    content = bytearray(WHOLE)
    for place, value in changes:
        content[place] = value
    _read_or_refuse(tmp_path_factory, bytes(content[: len(content) - (cut if cut % 2 else 0)]))


CODE = zipfile.ZipFile(PICKLED / "dtypes.bin").read("dtypes/data.pkl")
PIECES = st.one_of(
    st.binary(max_size=3),
    st.sampled_from(
        [b"(", b"t", b"\x85", b"\x86", b"R", b"Q", b"s", b"u", b"e", b"a", b"q\0", b"h\0", b"b", b"}", b"]", b")"]
    ),
)


@examples(500)
@given(st.lists(st.tuples(st.integers(0, len(CODE)), st.integers(0, 3), PIECES), min_size=1, max_size=4))
def test_damaged_instructions_are_tensors_or_refused(tmp_path_factory, changes):
    code = CODE
    for place, removed, piece in changes:
        code = code[:place] + piece + code[place + removed :]
    members = {f"data/{number}": bytes(200) for number in range(14)}
    _read_or_refuse(tmp_path_factory, archive(code, members))


def _read_or_refuse(tmp_path_factory, content):
    try:
        for array in read(tmp_path_factory.getbasetemp(), content).values():
            assert isinstance(array, np.ndarray)
    except CheckpointError:
        pass
