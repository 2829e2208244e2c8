"""Goldens of sentence-transformers' MultiVectorEncoder (ColBERT): tiny random models, its own folders and PyLate's.

    python make_multi_vector.py GOLDEN

GOLDEN is the folder of all goldens. Made with sentence-transformers 6.2.0, transformers 5.24.0, tokenizers 0.23.3
(Python 3.11, torch 2.13.0 on a CPU). Writes multi-vector/: what save_pretrained() writes, PyLate's folders by hand in
the form of version 1.2, and expected.json with what sentence-transformers gives on them.
"""

import json
import string
import sys
import tempfile
from pathlib import Path

import torch
from make_cross_encoders import DOCUMENTS, QUERY, edit_json
from make_sparse_and_zero_shot import base
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from transformers import BertModel

QUERIES = [QUERY, "water", DOCUMENTS[3]]


def make(out, prompts, skiplist, **options):
    with tempfile.TemporaryDirectory() as folder:
        base(folder, BertModel, 60)
        torch.manual_seed(1)
        body = Transformer(folder, **options)
        dense = Dense(body.get_embedding_dimension(), 16, bias=False, activation_function=torch.nn.Identity(),
                      module_input_name="token_embeddings")  # fmt: skip
        after = [MultiVectorMask(skiplist_words=skiplist), Normalize(module_input_name="token_embeddings")]
        model = MultiVectorEncoder(modules=[body, dense, *after], prompts=prompts, device="cpu")
        model.save(str(out), create_model_card=False)


def as_pylate(folder, **settings):
    """Rewrite a folder as PyLate stores it."""
    modules = json.loads((folder / "modules.json").read_text())[:2]
    modules[0]["type"] = "sentence_transformers.models.Transformer"
    modules[1]["type"] = "pylate.models.Dense.Dense"
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n")
    (folder / "sentence_bert_config.json").write_text('{\n  "max_seq_length": 31,\n  "do_lower_case": false\n}\n')
    dense = folder / modules[1]["path"] / "config.json"
    kept = json.loads(dense.read_text())
    keys = ("in_features", "out_features", "bias", "activation_function")
    dense.write_text(json.dumps({key: kept[key] for key in keys}, indent=2) + "\n")
    for name in ("2_MultiVectorMask", "3_Normalize"):
        for file in sorted((folder / name).glob("*")):
            file.unlink()
        if (folder / name).exists():
            (folder / name).rmdir()
    edit_json(
        folder / "config_sentence_transformers.json", model_type="ColBERT", similarity_fn_name="MaxSim", **settings
    )


def expect(folder):
    model = MultiVectorEncoder(str(folder), device="cpu")
    queries, documents = model.encode_query(QUERIES), model.encode_document(DOCUMENTS)
    found = {
        "queries": QUERIES,
        "documents": DOCUMENTS,
        "encode_query": [[[round(v, 6) for v in row] for row in each.tolist()] for each in queries],
        "encode_document": [[[round(v, 6) for v in row] for row in each.tolist()] for each in documents],
        "similarity": model.similarity(queries, documents).tolist(),
    }
    (folder / "expected.json").write_text(json.dumps(found, ensure_ascii=False) + "\n", encoding="utf-8")


def main(out):
    prompts = {"query": "the ", "document": "a "}
    expansion = {"strategy": "fixed", "attend": False, "length": 34}
    make(out / "native", prompts, list(string.punctuation), query_expansion=expansion, document_length=30)
    make(out / "attend", {}, [], query_expansion=expansion | {"attend": True})
    make(out / "without-expansion", prompts, [], query_length=20)
    make(out / "pylate", {}, [])
    settings = {"query_prefix": "[UNK] ", "document_prefix": "[MASK] ", "query_length": 34, "document_length": 30}
    more = {"attend_to_expansion_tokens": False, "skiplist_words": list(string.punctuation)}
    as_pylate(out / "pylate", prompts={}, **settings, **more)
    make(out / "pylate-plain", {}, [])
    as_pylate(out / "pylate-plain", prompts={}, query_prefix="", document_prefix="", do_query_expansion=False,
              query_length=20, document_length=25, skiplist_words=["a", "."])  # fmt: skip
    for folder in sorted(out.iterdir()):
        expect(folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]) / "multi-vector")
