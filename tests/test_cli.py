"""The command line as a process: what it prints, writes and returns."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import GOLDEN

import ufbert

PIPELINES = GOLDEN / "pipelines"
COMMAND = [sys.executable, "-m", "ufbert"]
TEXTS = "first text\n\n  third, with Ünïcödé 🙂\n"


def run(*arguments, stdin="", code=0):
    result = subprocess.run([*COMMAND, *map(str, arguments)], input=stdin.encode(), capture_output=True)
    assert result.returncode == code, result.stderr.decode()
    return result.stdout.decode(), result.stderr.decode()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from conftest import write_sentence_model

    return write_sentence_model(tmp_path_factory.mktemp("cli") / "model")


@pytest.fixture(scope="module")
def expected(model):
    return ufbert.SentenceEncoder(model).encode(TEXTS.split("\n")[:-1])


def test_embed_plain(model, expected):
    out, _ = run("embed", "--model", model, stdin=TEXTS)
    np.testing.assert_allclose(np.loadtxt(out.splitlines()), expected, atol=1e-6)


def test_embed_jsonl_from_a_file(model, expected, tmp_path):
    (tmp_path / "texts.txt").write_text(TEXTS, encoding="utf-8")
    run("embed", "--model", model, "--input", tmp_path / "texts.txt", "--output", tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == TEXTS.split("\n")[:-1]
    np.testing.assert_array_equal(np.float32([row["embedding"] for row in rows]), expected)


def test_embed_npy_from_arguments(model, expected, tmp_path):
    run("embed", "--model", model, "--output", tmp_path / "out.npy", *TEXTS.split("\n")[:-1])
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
    assert os.listdir(tmp_path) == ["out.npy"]


def test_embed_nothing_is_an_empty_array(model, tmp_path):
    run("embed", "--model", model, "--output", tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").shape == (0, 12)


def test_windows_line_ends_and_byte_order_mark(model):
    plain, _ = run("embed", "--model", model, stdin="a\nb\n")
    assert run("embed", "--model", model, stdin="\ufeffa\r\nb\r\n")[0] == plain


def test_ranking_with_the_bundled_model():
    texts = ["The stock market fell.", "Leaves turn sunlight into sugar.", "Cats are mammals."]
    out, _ = run("embed", "--query", "How do plants make food?", "--top", 2, *texts)
    scores, ranked = zip(*(line.split("\t") for line in out.splitlines()), strict=True)
    assert ranked == ("Leaves turn sunlight into sugar.", "Cats are mammals.")
    assert float(scores[0]) > 0.4 > float(scores[1])


@pytest.mark.parametrize(
    ("arguments", "key", "direct"),
    [
        (["fill-mask", "--top-k", 2, "The [MASK]."], "fills", lambda f: ufbert.FillMask(f)("The [MASK].", 2)),
        (["classify", "--top-k", 2, "A text."], "labels", lambda f: ufbert.TextClassifier(f)("A text.", 2)),
        (["classify", "--pairs", "A\tB"], "labels", lambda f: ufbert.TextClassifier(f)(("A", "B"))),
        (["ner", "Maria went home."], "entities", lambda f: ufbert.TokenClassifier(f)("Maria went home.")),
        (
            ["qa", "--question", "Who?", "Maria went home."],
            "answers",
            lambda f: [ufbert.QuestionAnswerer(f)(question="Who?", context="Maria went home.")],
        ),
    ],
)
def test_tasks_print_what_python_returns(arguments, key, direct):
    command = arguments[0]
    folders = {"classify": "text-classification", "ner": "token-classification", "qa": "question-answering"}
    folder = PIPELINES / folders.get(command, command)
    out, _ = run(*arguments, "--model", folder, "--format", "jsonl")
    assert json.loads(out) == {"text": str(arguments[-1]), key: direct(folder)}
    assert len(run(*arguments, "--model", folder)[0].splitlines()) >= 1


def test_reranking_prints_what_python_returns():
    folder, query = GOLDEN / "cross-encoders" / "one-label-identity", "How do plants make food?"
    texts = ["Leaves turn sunlight into sugar.", "water", "The stock market fell."]
    ranked = ufbert.CrossEncoder(folder).rank(query, texts, top_k=2, return_documents=True)
    arguments = ["rerank", "--model", folder, "--query", query, "--top", 2, *texts]
    lines = run(*arguments, "--format", "jsonl")[0].splitlines()
    assert [json.loads(line) for line in lines] == [{"text": row["text"], "score": row["score"]} for row in ranked]
    plain = [f"{row['score']:.4f}\t{row['text']}" for row in ranked]
    assert run(*arguments)[0].splitlines() == plain
    assert run(*arguments, "--max-length", "5")[1].startswith("ufbert: warning: 3 text(s) longer than 5 tokens")


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_embeddings_are_written_as_bits(model, expected, tmp_path, precision):
    texts = TEXTS.split("\n")[:-1]
    wanted = ufbert.quantize_embeddings(expected, precision)
    options = "embed", "--model", model, "--precision", precision
    run(*options, "--output", tmp_path / "out.npy", *texts)
    found = np.load(tmp_path / "out.npy")
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == wanted.dtype
    assert json.loads(run(*options, "--format", "jsonl", texts[0])[0])["embedding"] == wanted[0].tolist()


def test_info_and_version():
    assert json.loads(run("info", "--json")[0])["version"] == ufbert.__version__
    assert "instruction set" in run("info")[0]
    assert run("--version")[0] == f"ufbert {ufbert.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "message"),
    [
        (["embed", "--model", "no/such/folder", "x"], "", 1, "expected a model folder"),
        (["embed", "--input", "no/such/file"], "", 1, "no/such/file: No such file"),
        (["embed", "--output", "no/such/folder/out.npy", "x"], "", 1, "No such file"),
        (["embed", "--on-overflow", "error"], "word " * 9_000, 1, "too many"),
        (["fill-mask", "--model", PIPELINES / "fill-mask"], "a\nb\n", 1, "expected at least one [MASK]"),
        (["classify", "--pairs", "--model", PIPELINES / "text-classification", "one"], "", 1, "one tab"),
        (["embed", "--format", "npy", "x"], "", 2, "--output"),
        (["embed", "--precision", "binary", "--query", "a", "x"], "", 1, "--precision: expected float32 with --query"),
        (["embed", "--batch-size", "0", "x"], "", 2, "at least 1"),
        (["embed", "--batch-size", "1000001", "x"], "", 2, "at most 1000000"),
        (["embed", "--output", ".", "x"], "", 2, "--output"),
        (["embed", "--output", GOLDEN, "x"], "", 2, "--output"),
        (["embed", "--output", "new/", "x"], "", 2, "--output"),
        (["embed", "--output", "/dev/null", "--format", "npy", "x"], "", 2, "--output"),
        (["embed", "--output", "out.npy", "--query", "a", "x"], "", 2, "without --query"),
        (["ner", "--model", "m", "--output", "out.npy", "x"], "", 2, "npy holds embeddings"),
        (["embed", "--input", "file", "x"], "", 2, "got both"),
        (["qa", "x"], "", 2, "--question"),
        (["rerank", "--model", "m", "x"], "", 2, "--query"),
        (["rerank", "--model", "m", "--query", "q", "--output", "out.npy", "x"], "", 2, "npy holds embeddings"),
        (["frobnicate"], "", 2, "invalid choice"),
        ([], "", 2, "COMMAND"),
    ],
)
def test_failures(arguments, stdin, code, message):
    out, err = run(*arguments, stdin=stdin, code=code)
    assert message in err and out == "" and "Traceback" not in err


def test_text_that_is_not_utf8(model):
    command = [*COMMAND, "embed", "--model", str(model)]
    result = subprocess.run(command, input="good\nn\xf6t\n".encode("latin-1"), capture_output=True)
    assert result.returncode == 1 and b"line 2: expected UTF-8" in result.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["out.jsonl", "out.npy"])
def test_interrupt_leaves_whole_results(model, tmp_path, name, how):
    """Ctrl-C, or a termination, in the middle of an endless input."""
    command = [*COMMAND, "embed", "--model", str(model), "--output", str(tmp_path / name)]
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # not so in background jobs
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 100_000 for path in tmp_path.iterdir()):
        assert time.monotonic() < deadline
        process.stdin.write(b"a text\n" * 1_000)
        process.stdin.flush()
    process.send_signal(how)
    assert process.wait(60) == 1
    assert b"results, which are written" in process.stderr.read()
    assert os.listdir(tmp_path) == [name]
    if name.endswith("npy"):
        rows = np.load(tmp_path / name)
    else:
        rows = np.float32([json.loads(line)["embedding"] for line in (tmp_path / name).read_text().splitlines()])
    assert len(rows) > 10 and rows.shape[1] == 12
    np.testing.assert_allclose(rows, np.broadcast_to(rows[0], rows.shape), atol=1e-5)


def test_a_failure_before_the_first_result_leaves_the_old_file(tmp_path):
    (tmp_path / "out.jsonl").write_text("old\n")
    run("fill-mask", "--model", PIPELINES / "fill-mask", "--output", tmp_path / "out.jsonl", "no mask", code=1)
    assert (tmp_path / "out.jsonl").read_text() == "old\n"
    assert os.listdir(tmp_path) == ["out.jsonl"]


def shell(script, model):
    command = " ".join(f"'{part}'" for part in [*COMMAND, "embed", "--model", str(model)])
    return subprocess.run(["bash", "-c", script.replace("COMMAND", command)], capture_output=True, text=True)


def test_a_reader_that_stops_early_is_no_error(model):
    result = shell("yes text | head -5000 | COMMAND | head -1 | wc -l; echo ${PIPESTATUS[2]}", model)
    assert result.stdout.split() == ["1", "1"] and result.stderr == ""


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("COMMAND <&-", "standard input: expected texts, found it closed"),
        ("COMMAND a >&-", "standard output: expected an open one, found it closed"),
        ("COMMAND a > /dev/full", "output: No space left"),
        ("COMMAND a --output /dev/full", "No space left"),
        ("COMMAND --model nowhere a 2>&-", ""),
    ],
)
def test_streams_that_cannot_be_used(model, script, message):
    result = shell(script, model)
    assert result.returncode == 1 and result.stdout == "" and message in result.stderr
    assert len(result.stderr.splitlines()) <= 1


@pytest.mark.parametrize("name", ["out.jsonl", "out.npy"])
def test_a_full_disk_leaves_what_was_there(model, tmp_path, name):
    (tmp_path / name).write_text("old")
    result = shell(f"ulimit -f 1; yes a | head -2000 | COMMAND --output {tmp_path / name}", model)
    assert result.returncode == 1 and result.stderr == "ufbert: error: output: File too large\n"
    assert os.listdir(tmp_path) == [name] and (tmp_path / name).read_text() == "old"


def test_output_to_what_is_no_file(model, tmp_path):
    expected, _ = run("embed", "--model", model, "a")
    assert run("embed", "--model", model, "a", "--output", "-")[0] == expected
    assert run("embed", "--model", model, "a", "--output", "/dev/stdout")[0] == expected
    pipe = tmp_path / "pipe"
    assert shell(f"mkfifo {pipe}; cat {pipe} & COMMAND a --output {pipe}; wait", model).stdout == expected
    (tmp_path / "link").symlink_to("file")
    for _ in range(2):
        run("embed", "--model", model, "a", "--output", tmp_path / "link")
        assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == expected
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "pipe"]


def test_output_that_cannot_be_written_is_named_as_it_was_given(model, tmp_path):
    _, complaint = run("embed", "--model", model, "a", "--output", tmp_path / "none" / "x.npy", code=1)
    place = repr(str(tmp_path / "none" / "x.npy"))
    reason = "No such file or directory"
    assert complaint == f"ufbert: error: --output: expected a file that can be written, got {place}: {reason}\n"


def test_results_come_as_soon_as_a_batch_is_full(model):
    command = [*COMMAND, "embed", "--model", str(model), "--batch-size", "2"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for _ in range(3):
        process.stdin.write(b"a\nb\n")
        process.stdin.flush()
        assert process.stdout.readline().count(b" ") == process.stdout.readline().count(b" ") == 11
    process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.parametrize("port", ["-1", "65536", "99999", "http"])
def test_a_port_that_does_not_exist_is_wrong_usage(port):
    assert "argument --port: " in run("serve", f"--port={port}", code=2)[1]


def test_no_text_at_a_terminal_is_wrong_usage(model):
    controller, terminal = os.openpty()
    result = subprocess.run([*COMMAND, "embed", "--model", str(model)], stdin=terminal, capture_output=True, timeout=60)
    assert result.returncode == 2 and b"found no text" in result.stderr
    os.close(controller)
    os.close(terminal)


@pytest.mark.parametrize("verb", ["fill-mask", "ner", "qa", "rerank"])
def test_a_verb_without_a_bundled_model_says_which_to_get(verb):
    needed = {"qa": ["--question", "Who?"], "rerank": ["--query", "Who?"]}.get(verb, [])
    _, errors = run(verb, *needed, "a text", code=2)
    command = rf"this fetches one the first time and keeps it: ufbert {verb} --model [\w-]+/"
    assert re.search(rf"none is bundled for {verb}; {command}", errors)


def test_options_of_the_tasks():
    out, _ = run("fill-mask", "--model", PIPELINES / "fill-mask", "--targets", "the,a", "a [MASK] b")
    assert sorted(line.split("\t")[1] for line in out.splitlines()) == ["a", "the"]
    question = ["qa", "--model", PIPELINES / "question-answering", "--question", "who"]
    out, _ = run(*question, "--handle-impossible-answer", "--top-k", 99, "--max-answer-len", 1, "the cat")
    answers = [line.split("\t")[3] for line in out.splitlines()]
    assert "" in answers and len(answers) > 1
    long = ["ner", "--model", PIPELINES / "token-classification", "the cat " * 200]
    run(*long, "--stride", 5, "--on-overflow", "error")
    assert "tokens too many" in run(*long, "--on-overflow", "error", code=1)[1]
    labels = ["classify", "--model", PIPELINES / "text-classification", "the cat", "--function-to-apply"]
    assert len({run(*labels, function)[0] for function in ("none", "softmax", "sigmoid")}) == 3
