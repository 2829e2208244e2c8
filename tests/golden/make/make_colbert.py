"""Goldens of Stanford's ColBERT: tiny random models in the folders of colbert-ai, with what its algorithm gives.

    python make_colbert.py GOLDEN

GOLDEN is the folder of all goldens. Made with transformers 5.24.0, tokenizers 0.23.3 (Python 3.11, torch 2.13.0 on a
CPU). Writes colbert/. The algorithm is written here anew, in the steps of colbert-ai 0.2.22: its tokenizers of queries
and documents, and its model, padded batches included.
"""

import json
import string
import sys
import tempfile
from pathlib import Path

import torch
from make_cross_encoders import DOCUMENTS, QUERY, edit_json
from make_pipelines import bert_config, randomize, save_tokenizer
from safetensors.torch import save_file
from transformers import AutoTokenizer, BertModel, BertPreTrainedModel

DEFAULTS = {
    "query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_maxlen": 32, "doc_maxlen": 220, "dim": 128,
    "mask_punctuation": True, "attend_to_mask_tokens": False,
}  # fmt: skip
SAVED = {  # the rest of what colbert-ai saves
    "query_token": "[Q]", "doc_token": "[D]", "ncells": None, "nbits": 1, "kmeans_niters": 20, "similarity": "cosine",
    "bsize": 8, "lr": 1e-05, "relu": False, "nway": 64, "use_ib_negatives": True, "reranker": False,
    "interaction": "colbert", "checkpoint": "experiments/colbert-20000", "rank": 0, "nranks": 4, "amp": True, "gpus": 4,
    "meta": {"hostname": "node4", "version": "colbert-v0.4"},
}  # fmt: skip
QUERIES = [QUERY, "water", DOCUMENTS[3], "[unused0] the [MASK]?"]
TEXTS = [*DOCUMENTS, "what, [unused1] and (a) [UNK]: the!"]


class HF_ColBERT(BertPreTrainedModel):
    def __init__(self, config, dim):
        super().__init__(config)
        self.bert = BertModel(config)
        self.linear = torch.nn.Linear(config.hidden_size, dim, bias=False)
        self.post_init()


class ColBERT:
    """colbert-ai's tokenizers and model, on a folder."""

    def __init__(self, folder):
        metadata = json.loads((folder / "artifact.metadata").read_text())
        self.settings = DEFAULTS | metadata.get("config", metadata)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = HF_ColBERT.from_pretrained(folder, dim=self.settings["dim"]).eval()
        marks = string.punctuation if self.settings["mask_punctuation"] else ""
        self.skipped = {self.tokenizer.encode(mark, add_special_tokens=False)[0] for mark in marks}

    def tokenized(self, texts, marker, padding, length):
        """Ids and mask; the marker is put behind [CLS]."""
        found = self.tokenizer(texts, padding=padding, truncation=True, max_length=length - 1, return_tensors="pt")
        ids, mask = found["input_ids"], found["attention_mask"]
        number = self.tokenizer.convert_tokens_to_ids(self.settings[marker])
        column = torch.full((len(ids), 1), number)
        return torch.cat([ids[:, :1], column, ids[:, 1:]], 1), torch.cat([mask[:, :1], column * 0 + 1, mask[:, 1:]], 1)

    @torch.no_grad()
    def vectors(self, ids, mask):
        return torch.nn.functional.normalize(self.model.linear(self.model.bert(ids, attention_mask=mask)[0]), dim=2)

    def query(self, texts):
        ids, mask = self.tokenized(texts, "query_token_id", "max_length", self.settings["query_maxlen"])
        ids[ids == self.tokenizer.pad_token_id] = self.tokenizer.mask_token_id
        if self.settings["attend_to_mask_tokens"]:
            mask[ids == self.tokenizer.mask_token_id] = 1
        return list(self.vectors(ids, mask))

    def doc(self, texts):
        ids, mask = self.tokenized(texts, "doc_token_id", "longest", self.settings["doc_maxlen"])
        left_out = torch.tensor(sorted({*self.skipped, self.tokenizer.pad_token_id}))
        kept = ~torch.isin(ids, left_out)
        return [rows[own] for rows, own in zip(self.vectors(ids, mask), kept, strict=True)]


def make(folder, seed, settings, wrapped=False):
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as first:
        tokenizer = save_tokenizer(Path(first), True, size=130, model_max_length=40)
        edited = json.loads((Path(first) / "tokenizer.json").read_text())
    tokenizer.save_pretrained(folder)
    for number in range(2):  # two words of the vocabulary that texts cannot spell, as BERT has them
        edited["model"]["vocab"][f"[unused{number}]"] = len(tokenizer) + number
    (folder / "tokenizer.json").write_text(json.dumps(edited, indent=2, ensure_ascii=False), encoding="utf-8")
    config = bert_config(len(tokenizer) + 2, num_hidden_layers=1, intermediate_size=20, max_position_embeddings=48)
    model = randomize(HF_ColBERT(config, settings["dim"]), seed)
    model.config.save_pretrained(folder)
    edit_json(folder / "config.json", architectures=["HF_ColBERT"])
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    metadata = {"config": SAVED | settings, "version": "0.2"} if wrapped else SAVED | settings
    (folder / "artifact.metadata").write_text(json.dumps(metadata, indent=4) + "\n")


def rounded(vectors):
    return [[[round(value, 6) for value in row] for row in each.tolist()] for each in vectors]


def expect(folder):
    model = ColBERT(folder)
    queries, documents = model.query(QUERIES), model.doc(TEXTS)
    found = {
        "queries": QUERIES,
        "documents": TEXTS,
        "encode_query": rounded(queries),
        "encode_document": rounded(documents),
        "similarity": [[(q @ d.T).max(1).values.sum().item() for d in documents] for q in queries],
    }
    (folder / "expected.json").write_text(json.dumps(found, ensure_ascii=False) + "\n", encoding="utf-8")


def main(out):
    make(out / "plain", 70, {"dim": 16, "query_maxlen": 34, "doc_maxlen": 30})
    make(
        out / "attend", 71,
        {"dim": 16, "query_maxlen": 20, "doc_maxlen": 48, "attend_to_mask_tokens": True, "mask_punctuation": False,
         "query_token_id": "the", "doc_token_id": "[unused7]"}, wrapped=True,
    )  # fmt: skip
    for folder in sorted(out.iterdir()):
        expect(folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]) / "colbert")
