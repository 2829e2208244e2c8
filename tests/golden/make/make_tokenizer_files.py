"""What transformers reads from the files of a BERT tokenizer that say the same thing in several places.

    python make_tokenizer_files.py OUT        # with transformers 5: writes OUT/expected.json
    python make_tokenizer_files.py OUT check  # with transformers 4: compares

Each case is a set of files and calls with their ids and token types. Cases in which the two versions differ are
dropped. A file that several cases have is stored once, under "shared", and named there by its number.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "the", "cat", "sat", "on", "mat", "maria", "Maria", "café", "cafe", ".", "?", "中", "国"]
WORDS += [*"abcdefghijklmnopqrstuvwxyzMC[]", *("##" + letter for letter in "abcdefghijklmnopqrstuvwxyzé中国")]
CONFIG = {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": len(WORDS) + 8}
TEXTS = ["Maria sat on the mat.", "café [ENT] cat", "the [ENT2] [MASK]the cat", "中国 cat"]
PAIRS = [("the cat", "Maria sat on [ENT]"), ("cat", "the cat sat on the mat?")]
ENT, ENT2 = len(WORDS), len(WORDS) + 1


def wordpiece(lowercase=True, strip_accents=None, chinese=True, truncation=None):
    """A tokenizer.json."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    backend = Tokenizer(models.WordPiece({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(True, chinese, strip_accents, lowercase)
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    backend.add_special_tokens(SPECIAL)
    if truncation:
        backend.enable_truncation(64, direction=truncation)
    return json.loads(backend.to_str())


def byte_level(add_prefix_space):
    """A tokenizer.json as RoBERTa's, with a few merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("c", "a"), ("ca", "t"), ("Ġ", "cat"), ("a", "t"), ("o", "n")]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces += ["".join(pair) for pair in merges]
    backend = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=add_prefix_space)
    backend.add_special_tokens(pieces[:5])
    return json.loads(backend.to_str())


def cases():
    """Names and files of the cases; a text stands for itself, anything else is JSON."""
    vocab = {"vocab.txt": "\n".join(WORDS) + "\n"}
    lower, cased = {"tokenizer.json": wordpiece()}, {"tokenizer.json": wordpiece(lowercase=False)}
    token = {"content": "[ENT]", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}

    def settings(**values):
        return {"tokenizer_config.json": {"tokenizer_class": "BertTokenizer", **values}}

    for where, files in (("vocab", vocab), ("json", lower)):
        decoder = {str(ENT): token | {"special": True}, str(ENT2): token | {"content": "[ENT2]", "special": False}}
        yield f"{where}-nothing", files | settings()
        yield f"{where}-added_tokens_decoder", files | settings(added_tokens_decoder=decoder)
        stripping = {str(ENT): token | {"special": True, "lstrip": True, "rstrip": True}}
        yield f"{where}-added_tokens_decoder-lstrip", files | settings(added_tokens_decoder=stripping)
        normalized = {str(ENT): token | {"content": "the mat", "normalized": True, "special": False}}
        yield f"{where}-added_tokens_decoder-normalized", files | settings(added_tokens_decoder=normalized)
        yield f"{where}-additional_special_tokens", files | settings(additional_special_tokens=["[ENT]", "[ENT2]"])
        mapped = {
            "special_tokens_map.json": {
                "additional_special_tokens": ["[ENT2]", "[ENT]"],
                "mask_token": token | {"content": "[MASK]"},
            }
        }
        yield f"{where}-special_tokens_map", files | settings() | mapped
        yield f"{where}-bos_token", files | settings(bos_token="cat", eos_token="mat")
    added = {"added_tokens.json": {"[ENT2]": ENT2, "[ENT]": ENT}}
    yield "vocab-added_tokens", vocab | settings() | added
    mapped = {"special_tokens_map.json": {"additional_special_tokens": ["[ENT]"], "mask_token": "[MASK]"}}
    yield "vocab-added_tokens-special", vocab | settings() | added | mapped
    yield "vocab-added_tokens-cased", vocab | settings(do_lower_case=False) | added
    for key in ("do_lower_case", "strip_accents", "tokenize_chinese_chars"):
        for value in (True, False):
            yield f"json-{key}-{value}", lower | settings(**{key: value})
            yield f"json-cased-{key}-{value}", cased | settings(**{key: value})
            yield f"vocab-{key}-{value}", vocab | settings(**{key: value})
            generic = settings(**{key: value}, tokenizer_class="PreTrainedTokenizerFast", cls_token="[CLS]")
            generic["tokenizer_config.json"]["model_input_names"] = ["input_ids", "token_type_ids"]
            yield f"json-cased-generic-{key}-{value}", cased | generic
    for stored in (True, False):
        files = {"tokenizer.json": byte_level(stored)}
        for given in ({"add_prefix_space": True}, {"add_prefix_space": False}, {}):
            name = f"byte-level-{stored}-{given.get('add_prefix_space', 'silent')}"
            yield name, files | settings(tokenizer_class="RobertaTokenizer", **given)
    yield "json-added_tokens", lower | settings() | added
    word = {str(ENT): token | {"content": "at", "single_word": True, "special": False}}
    yield "json-added_tokens_decoder-single_word", lower | settings(added_tokens_decoder=word)
    yield "json-extra_special_tokens", lower | settings(extra_special_tokens={"entity_token": "[ENT]"})
    yield "vocab-max_len", vocab | settings(max_len=5)
    yield "json-cased-silent", cased | settings()
    yield "json-cased-no-config", cased
    yield "json-accents", {"tokenizer.json": wordpiece(strip_accents=False)} | settings(strip_accents=None)
    for side in ("left", "right"):
        yield f"vocab-truncation-{side}", vocab | settings(truncation_side=side)
        yield f"json-truncation-{side}", lower | settings(truncation_side=side)
    yield "json-truncation-in-json", {"tokenizer.json": wordpiece(truncation="left")} | settings()
    yield "json-truncation-both", {"tokenizer.json": wordpiece(truncation="left")} | settings(truncation_side="right")
    yield "json-model_input_names", lower | settings(model_input_names=["input_ids", "attention_mask"])
    yield "vocab-model_input_names", vocab | settings(model_input_names=["input_ids", "attention_mask"])
    yield "json-distilbert-class", lower | settings(tokenizer_class="DistilBertTokenizer")
    yield "json-electra-class", cased | settings(tokenizer_class="ElectraTokenizerFast", do_lower_case=False)


def calls(files):
    """What transformers gives for the texts and pairs, whole and cut."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        for name, content in {"config.json": CONFIG, **files}.items():
            text = content if isinstance(content, str) else json.dumps(content)
            Path(folder, name).write_text(text, encoding="utf-8")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for text in [*TEXTS, *PAIRS]:
            arguments = list(text) if isinstance(text, tuple) else [text]
            for length in (64, 6):
                length = min(length, tokenizer.model_max_length)
                result = tokenizer(*arguments, truncation=True, max_length=length)
                ids = result["input_ids"]
                types = result.get("token_type_ids", [0] * len(ids))
                yield {"text": arguments, "max_length": length, "ids": ids, "types": types}


def main():
    """Write the file, or compare."""
    file = Path(sys.argv[1], "expected.json")
    found = {name: {"files": files, "calls": list(calls(files))} for name, files in cases()}
    if "check" in sys.argv:
        stored = json.loads(file.read_text(encoding="utf-8"))["cases"]
        different = [name for name in found if stored[name]["calls"] != found[name]["calls"]]
        found = {name: case for name, case in found.items() if name not in different}
        print("differ and are dropped:", different)
    shared = []
    for case in found.values():
        for name, content in case["files"].items():
            if name in ("tokenizer.json", "vocab.txt"):
                shared += [] if content in shared else [content]
                case["files"][name] = shared.index(content)
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"shared": shared, "cases": found}, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
    print(len(found), "cases")


if __name__ == "__main__":
    main()
