"""Goldens of sentence-transformers' SparseEncoder and of transformers' zero-shot-classification pipeline.

    python make_sparse_and_zero_shot.py GOLDEN

GOLDEN is the folder of all goldens. Made with sentence-transformers 6.2.0, transformers 5.24.0, tokenizers 0.23.3
(Python 3.11, torch 2.13.0 on a CPU). Writes sparse-encoders/ and zero-shot/: tiny random models with expected.json.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from make_cross_encoders import DOCUMENTS, QUERY, edit_json
from make_pipelines import bert_config, randomize, save_tokenizer
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import AutoTokenizer, BertForMaskedLM, BertForSequenceClassification, pipeline

CANDIDATES = ["sport", "the farmer's daughter", "plants, sugar"]
NLI = {
    "id2label": {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"},
    "label2id": {"CONTRADICTION": 0, "NEUTRAL": 1, "ENTAILMENT": 2},
}


def base(folder, cls, seed, **options):
    """A random model with its tokenizer, as transformers saves it."""
    tokenizer = save_tokenizer(Path(folder), True, size=130, model_max_length=40)
    config = bert_config(
        len(tokenizer), num_hidden_layers=1, intermediate_size=20, max_position_embeddings=48, **options
    )
    randomize(cls(config), seed).save_pretrained(folder)


def dense(embeddings):
    return [[round(value, 6) for value in row] for row in embeddings.to_dense().tolist()]


def expect_sparse(folder):
    """What the folder gives, loaded anew."""
    model = SparseEncoder(str(folder), device="cpu")
    embeddings = model.encode(DOCUMENTS)
    found = {
        "texts": DOCUMENTS,
        "max_seq_length": model.max_seq_length,
        "encode": dense(embeddings),
        "most": dense(model.encode(DOCUMENTS, max_active_dims=7)),
        "query": dense(model.encode_query([QUERY])),
        "document": dense(model.encode_document([QUERY])),
        "similarity": model.similarity(embeddings, embeddings).tolist(),
        "decode": model.decode(embeddings[0], top_k=4),
    }
    (folder / "expected.json").write_text(json.dumps(found, ensure_ascii=False) + "\n", encoding="utf-8")


def make_sparse(out):
    with tempfile.TemporaryDirectory() as folder:
        base(folder, BertForMaskedLM, 50)
        modules = [Transformer(folder, transformer_task="fill-mask"), SpladePooling("max")]
        SparseEncoder(modules=modules, device="cpu").save(str(out / "max-relu"), create_model_card=False)
    with tempfile.TemporaryDirectory() as folder:
        base(folder, BertForMaskedLM, 51)
        modules = [
            Transformer(folder, transformer_task="fill-mask", max_seq_length=30),
            SpladePooling("sum", "log1p_relu"),
        ]
        prompts = {"query": "food ", "document": "the "}
        model = SparseEncoder(
            modules=modules, device="cpu", prompts=prompts, similarity_fn_name="cosine", max_active_dims=60
        )
        model.save(str(out / "sum-log1p"), create_model_card=False)
    base(out / "plain", BertForMaskedLM, 52)
    old = out / "sum-log1p"  # as version 5 wrote it
    edit_modules = json.loads((old / "modules.json").read_text())
    edit_modules[0]["type"] = "sentence_transformers.sparse_encoder.models.MLMTransformer"
    edit_modules[1]["type"] = "sentence_transformers.sparse_encoder.models.SpladePooling"
    (old / "modules.json").write_text(json.dumps(edit_modules, indent=2) + "\n")
    (old / "sentence_bert_config.json").write_text('{\n  "max_seq_length": 30,\n  "do_lower_case": false\n}\n')
    edit_json(old / "1_SpladePooling" / "config.json", word_embedding_dimension=130)
    for folder in out.iterdir():
        expect_sparse(folder)


def make_zero_shot(out):
    base(out, BertForSequenceClassification, 53, **NLI)
    tokenizer = AutoTokenizer.from_pretrained(out)
    task = pipeline("zero-shot-classification", model=str(out), tokenizer=tokenizer, device="cpu")
    texts = [text for text in DOCUMENTS if text]  # the pipeline refuses an empty one
    calls = [
        {"candidate_labels": CANDIDATES},
        {"candidate_labels": CANDIDATES, "multi_label": True},
        {"candidate_labels": "sport, plants , sugar", "hypothesis_template": "It is about {}!"},
        {"candidate_labels": ["sport"]},
    ]
    found = [{"call": call, "texts": texts, "result": task(texts, **call)} for call in calls]
    (out / "expected.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    make_sparse(Path(sys.argv[1]) / "sparse-encoders")
    make_zero_shot(Path(sys.argv[1]) / "zero-shot")
