"""Goldens of sentence-transformers folders: tiny random BERTs with tokenizer, pooling, dense and normalize modules.

    python make_sentence_transformers.py OUT

Run it twice, in two environments (Python 3.11, torch 2.13.0 on a CPU):
- sentence-transformers 6.2.0, transformers 5.23.0, tokenizers 0.23.3: everything but old-format
- sentence-transformers 2.7.0, transformers 4.57.6, tokenizers 0.22.2: old-format (HF_HUB_OFFLINE=1)

Each folder is what save() writes, plus texts.txt (one text a line, an empty line is an empty text) and
expected.safetensors: `embeddings` of encode(texts), other arrays for other arguments of encode, max_seq_length.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import sentence_transformers
import torch
from make_pipelines import bert_config, randomize, save_tokenizer
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from transformers import BertModel

OLD = sentence_transformers.__version__.startswith("2.")
if OLD:
    from sentence_transformers.models import Dense, Normalize, Pooling, Transformer
else:
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling

TEXTS = [
    "The train to London leaves at nine o'clock.",
    "water",
    "",
    "  What is the capital of Portugal?  ",
    "Émile's café in Zürich — 東京 🙂 and ÜBER-naïve UPPER case",
    "The farmer's daughter studied medicine in Edinburgh and became a well-known surgeon. " * 4,
    "Snow, snow, snow!",
]


def transformer(seed, lowercase=True, tokenizer_options={}, config_options={}, **options):
    """The first module, over a random BERT and its tokenizer in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = save_tokenizer(Path(folder), lowercase, size=130, **{"model_max_length": 24, **tokenizer_options})
        config = bert_config(
            len(tokenizer),
            num_hidden_layers=1,
            intermediate_size=20,
            **{"max_position_embeddings": 32, **config_options},
        )
        randomize(BertModel(config), seed).save_pretrained(folder)
        return Transformer(folder, **options)


def dense(seed, *args, **options):
    module = Dense(*args, **options)
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=generator)
    return module


def layer_norm(seed, width):
    module = LayerNorm(width)
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        p.data = torch.randn(p.shape, generator=generator)
    return module


def encode(folder, **calls):
    """Load the folder again and store encode(texts, **arguments) for every named set of arguments."""
    (folder / "texts.txt").write_text("".join(text + "\n" for text in TEXTS), encoding="utf-8")
    model = SentenceTransformer(str(folder), device="cpu")
    result = {
        name: torch.from_numpy(model.encode(TEXTS, show_progress_bar=False, **arguments)).contiguous()
        for name, arguments in {"embeddings": {}, **calls}.items()
    }
    result["max_seq_length"] = torch.tensor(model.max_seq_length)
    save_file(result, folder / "expected.safetensors")


def make(folder, *modules, options={}, **calls):
    SentenceTransformer(modules=list(modules), device="cpu", **options).save(str(folder), create_model_card=False)
    for path in folder.glob("*_Normalize"):
        if not any(path.iterdir()):  # as old versions leave it; git keeps no empty folders
            path.rmdir()
    encode(folder, **calls)


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}, indent=2) + "\n", encoding="utf-8")


TRUNCATED = dict(
    truncate_8=dict(truncate_dim=8),
    truncate_8_normalized=dict(truncate_dim=8, normalize_embeddings=True),
    normalized=dict(normalize_embeddings=True),
)
PROMPTS = dict(
    prompt_name_query=dict(prompt_name="query"),
    prompt_name_document=dict(prompt_name="document"),
    prompt_custom=dict(prompt="Who knows the answer: "),
    prompt_empty=dict(prompt=""),
)


def make_ends(out):
    """Write folders with what newer versions pool by, and put behind it."""
    options = dict(prompts={"query": "query: ", "document": "The passage is: "})
    ends = Pooling(24, ("weightedmean", "lasttoken"), include_prompt=False)
    make(out / "pooling-weighted-last", transformer(27), ends, options=options, **PROMPTS)
    make(
        out / "layer-norm",
        transformer(28),
        Pooling(24, "lasttoken"),
        dense(29, 24, 20, activation_function=torch.nn.ELU()),
        layer_norm(30, 20),
        dense(31, 20, 12, activation_function=torch.nn.LeakyReLU()),
    )


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    if OLD:
        make(
            out / "old-format",
            transformer(50, max_seq_length=10),
            Pooling(
                24,
                pooling_mode_cls_token=True,
                pooling_mode_max_tokens=True,
                pooling_mode_mean_tokens=True,
                pooling_mode_mean_sqrt_len_tokens=True,
            ),
            Normalize(),
            options=dict(prompts={"query": "what "}),
            prompt_name_query=dict(prompt_name="query"),
        )
        return

    for i, (name, mode) in enumerate(
        [("cls", "cls"), ("mean", "mean"), ("max", "max"), ("mean-sqrt-len", "mean_sqrt_len_tokens")]
    ):
        make(out / f"pooling-{name}", transformer(i), Pooling(24, mode), **TRUNCATED)
    make(out / "pooling-mean-cls", transformer(10), Pooling(24, ("mean", "cls")))  # in the order of the list
    make(out / "dense-normalize", transformer(11), Pooling(24, "mean"), dense(12, 24, 16), Normalize(), **TRUNCATED)
    make(
        out / "dense-twice",
        transformer(13),
        Pooling(24, "mean"),
        dense(14, 24, 32, bias=False, activation_function=torch.nn.Identity()),
        dense(15, 32, 10, activation_function=torch.nn.ReLU()),
    )
    make(
        out / "dense-residual",
        transformer(23),
        Pooling(24, "mean"),
        dense(24, 24, 24, use_residual=True),
        dense(25, 24, 12, use_residual=True, activation_function=torch.nn.Identity()),
        Dropout(0.5),
        Normalize(),
    )
    prompts = {"query": "query: ", "document": "The passage is: "}
    make(
        out / "prompts",
        transformer(16),
        Pooling(24, "mean"),
        options=dict(prompts=prompts, default_prompt_name="query"),
        **PROMPTS,
    )
    make(
        out / "prompts-excluded",
        transformer(17),
        Pooling(24, ("cls", "mean"), include_prompt=False),
        options=dict(prompts=prompts),
        **PROMPTS,
    )
    make_ends(out)
    make(out / "truncate-dim-in-config", transformer(20), Pooling(24, "mean"), options=dict(truncate_dim=6))

    # What saving hides: the library writes the effective values. Edited by hand, read by the library again.
    folder = out / "do-lower-case"  # the cased tokenizer gets a Lowercase in front, accents stay
    make(folder, transformer(18, lowercase=False), Pooling(24, "mean"))
    edit_json(folder / "sentence_bert_config.json", do_lower_case=True)
    encode(folder)
    folder = out / "max-seq-length-from-positions"
    make(folder, transformer(19), Pooling(24, "mean"))
    edit_json(folder / "tokenizer_config.json", model_max_length=int(1e30))
    encode(folder)
    folder = out / "settings-of-another-name"
    make(folder, transformer(26, lowercase=False), Pooling(24, "mean"))
    (folder / "sentence_bert_config.json").unlink()
    (folder / "sentence_distilbert_config.json").write_text('{"max_seq_length": 7, "do_lower_case": true}\n')
    encode(folder)
    folder = out / "max-seq-length-null"
    make(folder, transformer(21), Pooling(24, "mean"))
    edit_json(folder / "tokenizer_config.json", model_max_length=512)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": null, "do_lower_case": false}\n')
    encode(folder)
    folder = out / "subfolder-0-transformer"
    make(folder, transformer(22), Pooling(24, "cls"))
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    modules[0]["type"] = "sentence_transformers.models.Transformer"
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n")
    (folder / "0_Transformer").mkdir(exist_ok=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.move(folder / name, folder / "0_Transformer" / name)
    (folder / "sentence_bert_config.json").unlink()
    (folder / "0_Transformer" / "sentence_bert_config.json").write_text(
        '{"max_seq_length": 9, "do_lower_case": false}\n'
    )
    encode(folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
