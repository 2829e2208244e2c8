"""Goldens of the crammed BERT, computed by its authors' code in evaluation mode, float32.

    python make_crammed.py TRAINING OUT

TRAINING is the folder `training` of a checkout of github.com/pbelcak/UltraFastBERT; only the files of the model are
imported. Made with Python 3.11, torch 2.13.0 on a CPU, transformers 5.23.0, omegaconf 2.4.0, einops 0.8.2. Each folder:
config.json, model.safetensors and expected.safetensors with input_ids, attention_mask -> last_hidden_state, logits;
logits_no_mask (last_hidden_state_no_mask for the model without a head) is the same without any mask.
"""

import copy
import importlib
import json
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file

ARCH = {
    "architectures": ["ScriptableCrammedBERT"],
    "attention": {
        "causal_attention": False,
        "dropout_prob": 0.1,
        "num_attention_heads": 4,
        "qkv_bias": False,
        "rotary_embedding": False,
        "seq_op_in_fp32": False,
        "sequence_op": "torch-softmax",
        "skip_output_projection": False,
        "type": "self-attention",
    },
    "classification_head": {
        "classifier_dropout": 0.1,
        "head_dim": 20,
        "include_ff_layer": True,
        "nonlin": "Tanh",
        "pooler": "avg",
    },
    "decoder_bias": False,
    "embedding": {
        "dropout_prob": 0.1,
        "embedding_dim": 24,
        "max_seq_length": 20,
        "normalization": True,
        "pad_token_id": 0,
        "pos_embedding": "scaled-sinusoidal",
        "stable_low_precision": False,
        "vocab_size": 48,
    },
    "ffn_layer_frequency": 1,
    "final_norm": True,
    "hidden_dropout_prob": 0.1,
    "hidden_size": 24,
    "init": {"std": 0.02, "type": "normal"},
    "intermed_depth": 3,
    "intermed_size": 1,
    "intermed_type": "fff",
    "loss": "cross-entropy",
    "nonlin": "GELU",
    "norm": "LayerNorm",
    "norm_eps": 1e-12,
    "norm_scheme": "pre",
    "num_labels": None,
    "num_transformer_layers": 1,
    "objective_layout": "MLM",
    "skip_head_transform": True,
    "sparse_prediction": 0.25,
    "tie_weights": True,
    "use_bias": False,
}
FF = {"intermed_type": "ff", "intermed_size": 32}
MASK = [[1] * 9, [1] * 6 + [0] * 3, [1] * 2 + [0] * 7]


def load_authors_model(training):
    """Their module crammed_bert, without the package initialisers that would import the training machinery."""
    folder = Path(training) / "cramming" / "architectures"
    package = types.ModuleType("authors")
    package.__path__ = [str(folder)]
    sys.modules["authors"] = package
    return importlib.import_module("authors.crammed_bert")


DELETE = object()


def merged(base, changes):
    """A copy of the settings with changes such as attention__qkv_bias=True; the value DELETE removes a key."""
    arch = copy.deepcopy(base)
    for name, value in changes.items():
        *path, last = name.split("__")
        section = arch
        for key in path:
            section = section[key]
        if value is DELETE:
            del section[last]
        else:
            section[last] = value
    return arch


def randomize(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if name.endswith("learnable_scale") and p.ndim == 0:  # ScaleNorm
            p.data = 4 + 0.5 * noise
        elif name.endswith("learnable_scale") or "norm" in name and name.endswith("weight"):
            p.data = 1 + 0.2 * noise
        elif name.endswith("scale_factor"):
            p.data = 0.4 + 0.1 * noise
        else:
            p.data = (0.2 if p.ndim == 1 else 0.3) * noise
    return model.eval()


@torch.no_grad()
def outputs(model, input_ids, attention_mask):
    """The encoder's states and the head's logits (None without a head)."""
    if not hasattr(model, "encoder"):
        return model(input_ids, attention_mask), None
    result = model(input_ids, attention_mask)
    logits = result["outputs"].view(*input_ids.shape, -1) if "outputs" in result else result["logits"]
    return model.encoder(input_ids, attention_mask), logits


def make(authors, folder, seed, cls="ScriptableLMForPreTraining", labels=None, mask=MASK, **changes):
    arch = merged(ARCH, changes)
    config = authors.crammedBertConfig(arch, **({"num_labels": labels} if labels else {}))
    model = randomize(getattr(authors, cls)(config), seed)

    attention_mask = torch.tensor(mask)
    generator = torch.Generator().manual_seed(1000 + seed)
    input_ids = torch.randint(1, arch["embedding"]["vocab_size"], attention_mask.shape, generator=generator)
    input_ids = torch.where(attention_mask == 0, 0, input_ids)
    hidden, logits = outputs(model, input_ids, attention_mask)
    hidden_no_mask, logits_no_mask = outputs(model, input_ids, None)
    expected = {"input_ids": input_ids, "attention_mask": attention_mask, "last_hidden_state": hidden}
    if logits is None:
        expected["last_hidden_state_no_mask"] = hidden_no_mask
    else:
        expected.update(logits=logits, logits_no_mask=logits_no_mask)

    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.clone().contiguous() for k, v in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    save_file({k: v.contiguous() for k, v in expected.items()}, folder / "expected.safetensors")
    stored = {**json.loads(config.to_json_string()), "architectures": [cls]}
    (folder / "config.json").write_text(json.dumps(stored, indent=1) + "\n")

    double, _ = outputs(model.double(), input_ids, attention_mask)
    assert (double - hidden).abs().max() < 2e-5, "a decision is too close to call, take another seed"


def main(training, out):
    authors = load_authors_model(training)
    classifier = dict(cls="ScriptableLMForSequenceClassification")

    make(authors, out / "rmsnorm-1x3", 0, norm="RMSNorm", num_transformer_layers=2)
    make(
        authors,
        out / "scalenorm-relu-3x1",
        1,
        norm="ScaleNorm",
        nonlin="ReLU",
        intermed_size=3,
        intermed_depth=1,
        num_transformer_layers=2,
    )
    make(
        authors, out / "silu-1x4-no-embedding-norm", 2, nonlin="SiLU", intermed_depth=4, embedding__normalization=False
    )
    make(
        authors,
        out / "tanh-2x2-no-final-norm-sinusoidal",
        3,
        nonlin="Tanh",
        intermed_size=2,
        intermed_depth=2,
        final_norm=False,
        embedding__pos_embedding="sinusoidal",
    )
    make(
        authors,
        out / "heads-1-hidden-40-2x6",
        4,
        hidden_size=40,
        embedding__embedding_dim=40,
        attention__num_attention_heads=1,
        intermed_size=2,
        intermed_depth=6,
    )
    make(
        authors,
        out / "ff-reluglu-no-output-projection",
        5,
        **FF,
        nonlin="ReLUglu",
        attention__skip_output_projection=True,
    )
    make(
        authors,
        out / "ff-siluglu-qkv-bias",
        6,
        **FF,
        nonlin="SiLUglu",
        attention__qkv_bias=True,
        num_transformer_layers=2,
    )
    make(
        authors,
        out / "ff-tanhglu-decoder-bias-learned",
        7,
        **FF,
        nonlin="Tanhglu",
        decoder_bias=True,
        embedding__pos_embedding="learned",
    )
    make(authors, out / "ff-head-rmsnorm-geluglu", 8, **FF, nonlin="GELUglu", norm="RMSNorm", skip_head_transform=False)
    make(
        authors,
        out / "ff-no-intermed-type",
        9,
        intermed_type=DELETE,
        intermed_depth=DELETE,
        intermed_size=33,
        use_bias=True,
    )
    make(authors, out / "encoder-only-1x3", 10, cls="ScriptableLM", num_transformer_layers=2)
    make(
        authors,
        out / "classifier-max-relu",
        11,
        **classifier,
        labels=4,
        num_labels=4,
        classification_head__pooler="max",
        classification_head__nonlin="ReLU",
    )
    make(
        authors,
        out / "classifier-lse-gelu-no-dense",
        12,
        **classifier,
        labels=3,
        num_labels=3,
        classification_head__pooler="lse",
        classification_head__nonlin="GELU",
        classification_head__include_ff_layer=False,
        classification_head__head_dim=24,
    )
    make(authors, out / "classifier-1-label", 13, **classifier, labels=1, classification_head__pooler="zero_index")
    make(authors, out / "classifier-full-mask", 14, **classifier, labels=2, num_labels=2, mask=[[1] * 9] * 3, **FF)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
