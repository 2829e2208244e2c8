"""A small GLUE download in the official layout, with the quirks of the official files."""

import numpy as np
from conftest import BERT_CONFIG, bert_tensors, write_bert

BOM = b"\xef\xbb\xbf"
MNLI = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse".split()
MNLI += "sentence1_parse sentence2_parse sentence1 sentence2".split()
STS = "index genre filename year old_index source1 source2 sentence1 sentence2".split()


def line(*cells):
    return "\t".join(cells) + "\n"


def mnli(index, premise, hypothesis, *labels):
    parses = ("( x )", "( y )", "(ROOT x)", "(ROOT y)")
    return line(index, "31193", "31193n", "slate", *parses, premise, hypothesis, *labels)


FILES = {
    # no header; the mark is "*" or empty
    "CoLA/train.tsv": line("gj04", "1", "", "Our friends won't buy this.")
    + line("gj04", "0", "*", "The more he reads."),
    "CoLA/dev.tsv": line("gj04", "1", "", "The sailors rode.") + line("gj04", "0", "*", 'Bill "rattled.'),
    "CoLA/test.tsv": line("index", "sentence") + line("0", "Bill whistled.") + line("1", "John is."),
    # blanks at the end, which the official file has
    "SST-2/train.tsv": line("sentence", "label") + line("hide new secretions ", "0") + line("contains no wit ", "0"),
    "SST-2/dev.tsv": line("sentence", "label") + line("it 's a charming journey . ", "1") + line("bleak . ", "0"),
    "SST-2/test.tsv": line("index", "sentence") + line("0", "uneasy mishmash ."),
    # a byte order mark, Windows line ends and single quotes that never close
    "MRPC/train.tsv": BOM
    + (
        line("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String").replace("\n", "\r\n")
        + line("1", "702876", "702977", 'He said "yes', '"Yes", he said').replace("\n", "\r\n")
        + line("0", "2108705", "2108831", "'Tis a", "b''").replace("\n", "\r\n")
    ).encode(),
    "MRPC/dev.tsv": line("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String") + line("1", "1", "2", "a b", "a c"),
    "MRPC/test.tsv": line("index", "#1 ID", "#2 ID", "#1 String", "#2 String") + line("0", "1", "2", "a b", "a c"),
    # rows cut short, as in the official train.tsv
    "QQP/train.tsv": line("id", "qid1", "qid2", "question1", "question2", "is_duplicate")
    + line("133273", "213221", "213222", "How is life?", "What is life?", "0")
    + line("402555", "536040", "536041", "What is")
    + line("150662", "", "", "", "", "1"),
    "QQP/dev.tsv": line("id", "qid1", "qid2", "question1", "question2", "is_duplicate")
    + line("133273", "213221", "213222", "How is\rlife?", "What is\u2028life?", "1"),
    "QQP/test.tsv": line("id", "question1", "question2") + line("0", "Would the idea?", "Do you see?"),
    "STS-B/train.tsv": line(*STS, "score")
    + line("0", "main-captions", "MSRvid", "2012test", "0001", "none", "none", "A plane.", "An air plane.", "5.000"),
    "STS-B/dev.tsv": line(*STS, "score")
    + line("0", "main-captions", "MSRvid", "2012test", "0000", "none", "none", "A man.", "A girl.", "2.5")
    + line("1", "main-captions", "MSRvid", "2012test", "0002", "none", "none", "A child.", "A cat.", "0")
    + line("2", "main-captions", "MSRvid", "2012test", "0003", "none", "none", "A dog.", "A dog.", "5"),
    "STS-B/test.tsv": line(*STS)
    + line("0", "main-captions", "MSRvid", "2012test", "0024", "none", "none", "A girl.", "A girl."),
    "MNLI/train.tsv": line(*MNLI, "label1", "gold_label") + mnli("0", "A cat.", "A dog.", "neutral", "neutral"),
    "MNLI/dev_matched.tsv": line(*MNLI, *(f"label{n}" for n in range(1, 6)), "gold_label")
    + mnli("0", "The new rights.", "Everyone.", *["neutral"] * 5, "neutral")
    + mnli("1", "This site.", "A list.", *["neutral", "entailment"] * 2, "neutral", "-"),
    "MNLI/dev_mismatched.tsv": line(*MNLI, *(f"label{n}" for n in range(1, 6)), "gold_label")
    + mnli("0", "Your gift.", "Hundreds.", *["contradiction"] * 5, "contradiction"),
    "MNLI/test_matched.tsv": line(*MNLI) + mnli("0", "Hierbas.", "Hierbas is a name."),
    "MNLI/test_mismatched.tsv": line(*MNLI) + mnli("0", "What have you decided.", "So what."),
    "diagnostic/diagnostic.tsv": line("index", "sentence1", "sentence2") + line("0", "The cat sat.", "It did not."),
    "QNLI/train.tsv": line("index", "question", "sentence", "label")
    + line("0", "When did it begin?", "It began.", "entailment"),
    "QNLI/dev.tsv": line("index", "question", "sentence", "label")
    + line("0", "What?", "As of that.", "not_entailment"),
    "QNLI/test.tsv": line("index", "question", "sentence") + line("0", "What seldom?", "Doctrine."),
    "RTE/train.tsv": line("index", "sentence1", "sentence2", "label")
    + line("0", "No W.", "W found.", "not_entailment"),
    "RTE/dev.tsv": line("index", "sentence1", "sentence2", "label") + line("0", "Dana.", "Dana C.", "entailment"),
    "RTE/test.tsv": line("index", "sentence1", "sentence2") + line("0", "Mangla.", "K2."),
    "WNLI/train.tsv": line("index", "sentence1", "sentence2", "label")
    + line("0", "I stuck a pin.", "It had a hole.", "1"),
    "WNLI/dev.tsv": line("index", "sentence1", "sentence2", "label") + line("0", "The drain.", "It is.", "0"),
    "WNLI/test.tsv": line("index", "sentence1", "sentence2") + line("0", "Maude.", "She."),
}


def write_files(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def write_classifier(folder, labels, **changes):
    """A tiny random BERT classifier with these labels."""
    rng = np.random.default_rng(len(labels))
    tensors = {"bert." + name: array for name, array in bert_tensors(BERT_CONFIG).items()}
    tensors["classifier.weight"] = rng.standard_normal((len(labels), 12)).astype(np.float32)
    tensors["classifier.bias"] = np.zeros(len(labels), np.float32)
    id2label = {str(index): label for index, label in enumerate(labels)}
    return write_bert(folder, tensors, architectures=["BertForSequenceClassification"], id2label=id2label, **changes)
