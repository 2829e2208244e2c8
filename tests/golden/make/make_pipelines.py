"""Pipeline goldens: tiny random BERTs with a real WordPiece tokenizer, and what transformers' pipelines answer.

    python make_pipelines.py OUT

Run it twice, in two environments (Python 3.11, torch 2.13.0 on a CPU):
- transformers 5.23.0, tokenizers 0.23.3: fill-mask, text-classification, token-classification, tokenizers
- transformers 4.57.6, tokenizers 0.22.2: question-answering (transformers 5 has no such pipeline)

Each folder is what save_pretrained writes, plus expected.json: a list of {"call": keyword arguments, "result": ...}.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import torch
import transformers
from tokenizers import normalizers, pre_tokenizers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertTokenizerFast,
)

SENTENCES = """
The old lighthouse keeper climbed the narrow stairs every evening and lit the lamp before the ships came in.
Maria Garcia moved from Lisbon to Berlin because her company opened a new office near the river.
What is the capital of Portugal? Lisbon is the capital of Portugal, and it is also its largest city.
He bought three apples, two pears and a loaf of bread, then walked home through the rain.
The committee decided that the bridge should be rebuilt before the winter of 1987.
She plays the piano beautifully; her brother, however, prefers the trumpet.
Scientists discovered a small planet that orbits its star in only eleven hours.
The train to London leaves at nine o'clock and arrives shortly after noon.
John Smith works for a bank in New York and lives in a quiet street in Brooklyn.
I don't think we're going to finish this project before the end of the month.
The museum shows paintings by young artists who were born in Paris, Vienna and Prague.
A good teacher explains difficult ideas with simple words and patient examples.
The soup was too salty, the fish was cold, and the waiter never came back with our water.
This film is wonderful: the story is moving, the music is perfect and the actors are great.
Water boils at one hundred degrees, but on a high mountain it boils much earlier.
Anna and Peter are walking their dogs in the park near the railway station.
The farmer's daughter studied medicine in Edinburgh and became a well-known surgeon.
When the storm had passed, the fishermen repaired their nets and painted the boats blue.
Computers can translate texts quickly, though they sometimes misunderstand a joke.
Every morning the baker opens his shop at five and sells warm rolls to the workers.
The river flows through the valley, past the castle, and into the northern sea.
Dr. Meyer said that the results of the experiment were surprising and should be checked again.
Children learn to speak by listening, repeating and making many small mistakes.
The government announced higher taxes on fuel, tobacco and sugary drinks on Monday.
Who wrote the letter that was found under the floor of the kitchen?
The letter was written by Elizabeth Brown in 1912 and sent to her sister in Sydney.
They travelled across the desert for twenty days without seeing a single village.
My grandmother's garden is full of roses, tulips, beans and tomatoes.
The football team from Madrid won the match by four goals to one.
Reading books in the library is cheaper than buying them, but you must be silent.
The carpenter measured the table twice, cut the wood once and smiled.
An unexpected visitor knocked at the door while the family was eating dinner.
Electric cars are becoming popular because the price of batteries keeps falling.
The judge asked the witness to repeat the answer slowly and clearly.
Snow covered the roofs of Stockholm, and the harbour was frozen until April.
The bank refused the loan, so the brothers sold their father's house in Dublin.
Nobody knows why the birds return to the same tree every spring.
The doctor told him to drink more water, sleep longer and worry less.
In the year 2001 the company employed 350 people; today there are more than 4,200.
The cat slept on the warm stones while the mice were stealing the cheese.
""".strip().splitlines()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_vocab(lowercase=True, size=400):
    """A WordPiece vocabulary as a list: special tokens, characters, then frequent words and short pieces.

    (tokenizers' own WordPieceTrainer breaks ties by hash order, so two runs give two vocabularies.)
    """
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    split = pre_tokenizers.BertPreTokenizer()
    words = [w for s in SENTENCES for w, _ in split.pre_tokenize_str(normalizer.normalize_str(s))]
    characters = sorted(set("".join(words)) | set('0123456789!?()-"€éüß中文я'))
    continuing = sorted({c for w in words for c in w[1:]})
    counts = Counter()
    for word in words:
        for start in range(len(word)):
            for end in range(start + 2, len(word) + 1):
                if end - start <= 4 or (start, end) == (0, len(word)):
                    counts["##" * (start > 0) + word[start:end]] += 1
    vocab = SPECIAL + characters + ["##" + c for c in continuing]
    return vocab + sorted(counts, key=lambda piece: (-counts[piece], -len(piece), piece))[: size - len(vocab)]


def write_vocab(folder, vocab):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(token + "\n" for token in vocab), encoding="utf-8")


def load_tokenizer(cls, folder, **options):
    """A BERT tokenizer of either major version from the folder's vocab.txt."""
    if int(transformers.__version__.split(".")[0]) >= 5:
        return cls(vocab=str(folder / "vocab.txt"), **options)
    return cls(str(folder / "vocab.txt"), **options)


def save_tokenizer(folder, lowercase=True, size=400, **options):
    write_vocab(folder, make_vocab(lowercase, size))
    tokenizer = load_tokenizer(BertTokenizerFast, folder, do_lower_case=lowercase, **options)
    tokenizer.save_pretrained(folder)
    return tokenizer


def bert_config(vocab_size, **options):
    return BertConfig(
        **{
            **dict(
                vocab_size=vocab_size,
                hidden_size=24,
                num_hidden_layers=2,
                num_attention_heads=3,
                intermediate_size=40,
                max_position_embeddings=64,
            ),
            **options,
        }
    )


def randomize(model, seed, std=0.3, head_std=1.0, head_bias=None):
    """Weights large enough that tokens and labels differ clearly; norms and biases are not trivial."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if name.endswith("LayerNorm.weight"):
            p.data = 1 + 0.2 * noise
        elif name.endswith("bias"):
            p.data = 0.2 * noise
        else:
            p.data = noise * (head_std if name.startswith(("classifier", "qa_outputs")) else std)
    if head_bias:
        model.classifier.bias.data = torch.tensor(head_bias)
    return model.eval()


def plain(value):
    """NumPy and torch scalars to JSON numbers, eight digits."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    value = value.item() if hasattr(value, "item") else value
    return float(f"{value:.8g}") if isinstance(value, float) else value


def write_json(path, items):
    """A JSON list with one item a line."""
    lines = ",\n".join(json.dumps(item, ensure_ascii=False) for item in items)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def run(task, folder, model, tokenizer, calls):
    model.save_pretrained(folder)
    pipe = transformers.pipeline(task, model=str(folder), tokenizer=str(folder), device="cpu")
    results = []
    for call in calls:
        arguments = dict(call)
        positional = [arguments.pop("inputs")] if "inputs" in arguments else []
        results.append({"call": call, "result": plain(pipe(*positional, **arguments))})
    write_json(folder / "expected.json", results)


FILL_MASK = [
    {"inputs": "The train to [MASK] leaves at nine."},
    {"inputs": "The train to [MASK] leaves at nine.", "top_k": 1},
    {"inputs": "The train to [MASK] leaves at nine.", "top_k": 3},
    {"inputs": "[MASK] is the capital of Portugal.", "top_k": 3},
    {"inputs": "The capital of Portugal is [MASK]", "top_k": 3},
    {"inputs": "[MASK]", "top_k": 2},
    {"inputs": "The [MASK] of the farmer's daughter isn't [MASK]!", "top_k": 3},
    {"inputs": "[MASK][MASK] [MASK]", "top_k": 1},
    {"inputs": ["He bought [MASK] apples.", "She plays the [MASK] beautifully; don't you know?"], "top_k": 2},
    {"inputs": ["He bought [MASK] apples."], "top_k": 2},
    {"inputs": ["He bought [MASK] apples.", "The [MASK] of [MASK]."], "top_k": 2},
    {"inputs": "  Émile's café\tin Zürich—naïve  coöperation [MASK] 3,50 € 中文 🙂 straße…", "top_k": 3},
    {"inputs": "It 's 4 , 200 people ( or \" more \" ) who do n't know [MASK] .", "top_k": 2},
    {"inputs": "We re [MASK] going ' s [ MASK ] I 've , they 're ! Really ?", "top_k": 2},
]

PAIR = {"text": "The soup was too salty.", "text_pair": "The fish was cold, and the waiter never came back."}
TEXT_CLASSIFICATION = [
    {"inputs": text, **options}
    for options in ({}, {"top_k": 1}, {"top_k": 2}, {"top_k": None})
    for text in (
        "This film is wonderful: the story is moving.",
        ["The soup was too salty.", "", "Émile's café — 中文 🙂 isn't cheap!"],
        PAIR,
    )
] + [
    {"inputs": ["One text in a list."]},
    {"inputs": [PAIR, {"text": "Nobody knows why.", "text_pair": ""}, {"text": "One alone."}]},
    {"inputs": "This film is wonderful.", "function_to_apply": "none", "top_k": None},
    {"inputs": "This film is wonderful.", "function_to_apply": "sigmoid", "top_k": None},
    {"inputs": "This film is wonderful.", "function_to_apply": "softmax", "top_k": None},
]

NER_TEXTS = [
    "Maria Garcia moved from Lisbon to Berlin.",
    "Dr. Meyer's company (founded in 1987) isn't in New York, but in Edinburgh-Leith!",
    "Unbelievably, Wolfgang Rosenthal-Schmidt misunderstood Elizabeth's photographers.",
    "José visited the café in Zürich; Émile didn't. São Paulo?",
    "Jose\u0301 ate cre\u0300me bru\u0302le\u0301e in Malmo\u0308.",  # decomposed accents
    "東京 and Москва and 한국 and 🙂 smile.",  # unknown words
    "  Two  spaces\tand a\nnew line in Prague  ",
    "Straße ﬁle İstanbul ½ kg x² ＬＯＮＤＯＮ",  # characters that change length
    "John",
    "",
]
TOKEN_CLASSIFICATION = (
    [
        {"inputs": text, "aggregation_strategy": strategy}
        for strategy in ("none", "simple", "first", "average", "max")
        for text in NER_TEXTS
    ]
    + [
        {"inputs": NER_TEXTS[0]},
        {"inputs": NER_TEXTS[:3], "aggregation_strategy": "simple"},
        {"inputs": NER_TEXTS[:1], "aggregation_strategy": "max"},
        {"inputs": NER_TEXTS[1], "aggregation_strategy": "simple", "ignore_labels": []},
        {"inputs": NER_TEXTS[1], "aggregation_strategy": "none", "ignore_labels": ["O", "B-LOC"]},
        {"inputs": NER_TEXTS[1], "aggregation_strategy": "simple", "ignore_labels": ["LOC"]},
        {"inputs": " ".join(SENTENCES[:8]), "aggregation_strategy": "simple"},  # silently truncated
        {"inputs": " ".join(SENTENCES[:8]), "aggregation_strategy": "first", "stride": 8},  # in windows
    ]
)

CONTEXT = "John Smith works for a bank in New York and lives in a quiet street in Brooklyn."
LONG = " ".join(SENTENCES[:9])
QUESTION_ANSWERING = (
    [
        {"question": "Where does John live?", "context": CONTEXT},
        {"question": "Where does John live?", "context": CONTEXT, "top_k": 3},
        {"question": "Where does John live?", "context": CONTEXT, "top_k": 30, "handle_impossible_answer": True},
        {"question": "Where does John live?", "context": CONTEXT, "max_answer_len": 1},
        {"question": "Where does John live?", "context": CONTEXT, "max_answer_len": 3, "top_k": 3},
        {"question": "Where does John live?", "context": CONTEXT, "align_to_words": False, "top_k": 3},
        {"question": "Who?", "context": "Émile Zürcher, the naïve photographer — 東京!", "top_k": 3},
        {
            "question": "What? What did the unexpectedly misunderstanding photographer say?",
            "context": CONTEXT,
            "max_question_len": 4,
        },
        {"question": "What is the capital of Portugal?", "context": LONG, "max_seq_len": 40, "doc_stride": 12},
        {
            "question": "What is the capital of Portugal?",
            "context": LONG,
            "max_seq_len": 40,
            "doc_stride": 12,
            "top_k": 3,
        },
        {
            "question": "What is the capital of Portugal?",
            "context": LONG,
            "max_seq_len": 40,
            "doc_stride": 12,
            "top_k": 3,
            "handle_impossible_answer": True,
        },
        {
            "question": "What is the capital of Portugal?",
            "context": LONG,
            "max_seq_len": 40,
            "doc_stride": 12,
            "top_k": 3,
            "max_answer_len": 4,
        },
        {"question": "What is the capital of Portugal?", "context": LONG, "top_k": 2},  # split at model_max_length
        {"question": ["Who?", "Where does he live?"], "context": [CONTEXT, CONTEXT]},
        {"question": ["Who?", "Where does he live?"], "context": CONTEXT, "top_k": 2},
        {"question": "Who?", "context": "John"},
    ]
    + [
        {"question": question, "context": context, "handle_impossible_answer": True, "top_k": 2}
        for question in ("Who?", "What is the capital of Portugal?", "Where did Anna and Peter walk their dogs?")
        for context in SENTENCES[1:4]
    ]
)

TOKENIZER_TEXTS = NER_TEXTS + [
    "Hello, WORLD! It's 3.14 (or 2,718)... #hash @name a_b_c don't",
    "[CLS] [MASK] [SEP] [UNK] [PAD] [mask] [MASK]ing x[MASK]",
    "naïve coöperation ÀÉÎÕÜ ñandú ŁÓDŹ façade Ørsted",
    "中文字符 and 日本語のテキスト with 漢字混じり",
    "zero\u200bwidth soft\u00adhyphen nbsp\u00a0here bom\ufeff tab\there nul\x00byte rep\ufffd ctrl\x07bell",
    "ﬁﬂ ß ẞ ſ İ ı Σίσυφος ΌΔΟΣ",
    "👩‍👩‍👧 flags 🇩🇪 “quotes” ‘single’ – — … ¿qué? ¡sí! € £ ¥ § ^ ` ~ $ + < = > |",
    "supercalifragilisticexpialidocious" * 4,
    " \n\t ",
]
TOKENIZER_OPTIONS = [
    {"do_lower_case": lower, **extra}
    for lower in (True, False)
    for extra in ({}, {"strip_accents": False}, {"strip_accents": True}, {"tokenize_chinese_chars": False})
]


def tokenizer_ids(folder, cls):
    return [
        {"options": options, "text": text, "ids": load_tokenizer(cls, folder, **options)(text)["input_ids"]}
        for options in TOKENIZER_OPTIONS
        for text in TOKENIZER_TEXTS
    ]


def main(out):
    if int(transformers.__version__.split(".")[0]) < 5:
        folder = out / "question-answering"
        tokenizer = save_tokenizer(folder, model_max_length=128)
        config = bert_config(len(tokenizer), max_position_embeddings=128)
        run(
            "question-answering",
            folder,
            randomize(BertForQuestionAnswering(config), seed=4),
            tokenizer,
            QUESTION_ANSWERING,
        )
        return

    folder = out / "fill-mask"
    tokenizer = save_tokenizer(folder, model_max_length=64)
    run("fill-mask", folder, randomize(BertForMaskedLM(bert_config(len(tokenizer))), seed=0), tokenizer, FILL_MASK)
    folder = out / "fill-mask-clean-up"  # as transformers 4 saved most of its tokenizers
    tokenizer = save_tokenizer(folder, size=200, model_max_length=64, clean_up_tokenization_spaces=True)
    config = bert_config(len(tokenizer), num_hidden_layers=1)
    run("fill-mask", folder, randomize(BertForMaskedLM(config), seed=7), tokenizer, FILL_MASK)

    small = dict(num_hidden_layers=1, intermediate_size=28)
    for name, seed, size, options in [
        (
            "text-classification",
            1,
            400,
            dict(
                id2label={0: "negative", 1: "neutral", 2: "positive"},
                label2id={"negative": 0, "neutral": 1, "positive": 2},
            ),
        ),
        (
            "text-classification-multi-label",
            2,
            130,
            dict(small, num_labels=4, problem_type="multi_label_classification"),
        ),
        ("text-classification-regression", 3, 130, dict(small, num_labels=1, problem_type="regression")),
        ("text-classification-one-label", 4, 130, dict(small, num_labels=1)),
    ]:
        folder = out / name
        tokenizer = save_tokenizer(folder, size=size, model_max_length=64)
        model = BertForSequenceClassification(bert_config(len(tokenizer), **options))
        run("text-classification", folder, randomize(model, seed), tokenizer, TEXT_CLASSIFICATION)

    for name, seed, std, lowercase in [
        ("token-classification", 28, 0.15, True),
        ("token-classification-cased", 34, 0.15, False),
    ]:
        folder = out / name
        tokenizer = save_tokenizer(folder, lowercase, model_max_length=64)
        labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
        config = bert_config(
            len(tokenizer), id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)}
        )
        model = randomize(BertForTokenClassification(config), seed, std, head_bias=[2.0, 0.0, 1.0, 0.0, 1.0])
        run("token-classification", folder, model, tokenizer, TOKEN_CLASSIFICATION)

    folder = out / "tokenizers"
    write_vocab(folder, make_vocab(False))
    write_json(folder / "tokenizer_ids.json", tokenizer_ids(folder, BertTokenizerFast))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
