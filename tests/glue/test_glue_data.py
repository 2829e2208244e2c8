"""Official file layouts, with their quirks, and what is refused."""

import pytest

from ufbert import InputError
from ufbert.glue import GLUE, find_task, load_task, read_split, read_train, tasks_in

TRAIN = {  # texts and labels of the fixture's training files, as a person reads them
    "CoLA": (["Our friends won't buy this.", "The more he reads."], ["1", "0"]),
    "SST-2": (["hide new secretions ", "contains no wit "], ["0", "0"]),
    "MRPC": ([('He said "yes', '"Yes", he said'), ("'Tis a", "b''")], ["1", "0"]),
    "QQP": ([("How is life?", "What is life?"), ("", "")], ["0", "1"]),
    "STS-B": ([("A plane.", "An air plane.")], [5.0]),
    "MNLI": ([("A cat.", "A dog.")], ["neutral"]),
    "QNLI": ([("When did it begin?", "It began.")], ["entailment"]),
    "RTE": ([("No W.", "W found.")], ["not_entailment"]),
    "WNLI": ([("I stuck a pin.", "It had a hole.")], ["1"]),
}


def make_custom(root, name, **files):
    (root / name).mkdir(parents=True)
    for split, text in files.items():
        (root / name / f"{split}.tsv").write_text(text)
    return load_task(root, name)


def test_all_nine_tasks_are_found_in_their_order(glue):
    assert tasks_in(glue) == [task.name for task in GLUE] == list(TRAIN)


@pytest.mark.parametrize("name", TRAIN)
def test_training_rows(glue, name):
    rows = read_train(*load_task(glue, name))
    assert (rows.texts, rows.labels) == TRAIN[name]
    assert rows.skipped == (name == "QQP")


@pytest.mark.parametrize("name", TRAIN)
def test_test_rows_have_no_labels_and_keep_their_numbers(glue, name):
    task, folder = load_task(glue, name)
    for split in task.test:
        rows = read_split(task, split, folder)
        assert rows.labels == [] and rows.index == [str(n) for n in range(len(rows))] and len(rows) > 0


def test_both_dev_sets_and_the_diagnostic_set_of_mnli(glue):
    task, folder = load_task(glue, "mnli")
    matched, mismatched = (read_split(task, split, folder) for split in task.dev)
    assert (matched.labels, matched.skipped) == (["neutral"], 1)  # "-": no gold label
    assert mismatched.texts == [("Your gift.", "Hundreds.")]
    assert [split.name for split in task.test] == ["MNLI-m", "MNLI-mm", "AX"]
    assert read_split(task, task.test[2], folder).texts == [("The cat sat.", "It did not.")]


def test_other_characters_that_end_lines_elsewhere_do_not_here(glue):
    task, folder = load_task(glue, "QQP")
    assert read_split(task, task.dev[0], folder).texts == [("How is\rlife?", "What is\u2028life?")]


def test_microsofts_own_files_of_mrpc(tmp_path, glue):
    folder = tmp_path / "MRPC"
    folder.mkdir()
    text = (glue / "MRPC" / "train.tsv").read_bytes()
    (folder / "msr_paraphrase_train.txt").write_bytes(text)
    (folder / "msr_paraphrase_test.txt").write_bytes(text)
    task, folder = load_task(tmp_path, "MRPC")
    with pytest.raises(InputError, match=r"dev_ids.tsv: expected GLUE's list"):
        read_train(task, folder)
    (folder / "dev_ids.tsv").write_text("2108705\t2108831\n")
    assert read_train(task, folder).labels == ["1"]
    assert read_split(task, task.dev[0], folder).labels == ["0"]
    assert read_split(task, task.test[0], folder).index == ["0", "1"]


def test_custom_tasks_with_a_header_and_without(tmp_path):
    task, folder = make_custom(tmp_path, "Mood", train="so good\tgood\nso bad\tbad\n", dev='"quoted\tbad\n')
    assert task.labels == {"bad": "bad", "good": "good"} and not task.text_pair
    assert read_train(task, folder).labels == ["good", "bad"]
    assert read_split(task, task.dev[0], folder).texts == ['"quoted']
    task, folder = make_custom(tmp_path, "Pairs", train="a\tb\tlabel\nx\ty\t1\n", dev="a\tb\tlabel\nx\tz\t1\n")
    assert (task.text, task.text_pair) == ("a", "b")
    assert read_split(task, task.dev[0], folder).texts == [("x", "z")]
    task, folder = make_custom(tmp_path, "Scores", train="a\tb\tscore\nx\ty\t1.5\n", test="x\ty\nv\tw\n")
    assert task.regression and task.metrics == ("pearson", "spearman")
    assert read_train(task, folder).labels == [1.5]
    assert tasks_in(tmp_path) == ["Mood", "Pairs", "Scores"]


def test_test_file_of_a_custom_task_without_a_header(tmp_path):
    task, folder = make_custom(tmp_path, "Mood", train="so good\tgood\n", dev="x\tgood\n", test="one\ntwo\n")
    assert read_split(task, task.test[0], folder).texts == ["one", "two"]


def test_sick_is_two_tasks_of_one_folder(tmp_path):
    (tmp_path / "SICK").mkdir()
    text = "index\tsentence1\tsentence2\tscore\tlabel\n0\tA group.\tA boy.\t4.5\tneutral\n"
    (tmp_path / "SICK" / "train.tsv").write_text(text)
    assert tasks_in(tmp_path) == ["SICK"]
    assert read_train(*load_task(tmp_path, "SICK")).labels == ["neutral"]
    assert read_train(*load_task(tmp_path, "SICK-R")).labels == [4.5]


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("SST-2", "sentence\tlabel\nfine\t1\nshort\n", "line 3: expected 2 columns separated by tabs, found 1"),
        ("SST-2", "sentence\tlabel\nfine\t2\n", "line 2: expected label to be one of 0, 1, found '2'"),
        ("SST-2", "text\tlabel\nfine\t1\n", "expected a header with the columns sentence, label"),
        ("SST-2", "sentence\tlabel\n", "expected rows below the header, found the end"),
        ("SST-2", b"sentence\tlabel\n\xff\t1\n", "expected UTF-8 text"),
        ("CoLA", "sentence\tlabel\nfine\t1\n", "line 1: expected 4 columns"),
        ("STS-B", "sentence1\tsentence2\tscore\na\tb\thigh\n", "line 2: expected a number as score, found 'high'"),
        ("STS-B", "sentence1\tsentence2\tscore\na\tb\tnan\n", "line 2: expected a number as score, found 'nan'"),
        ("Mine", "a\tb\tc\td\n", "line 1: expected 2 columns .* or 3 .*, found 4"),
    ],
)
def test_refused_with_file_and_line(tmp_path, name, bad, message):
    (tmp_path / name).mkdir()
    (tmp_path / name / "train.tsv").write_bytes(bad if isinstance(bad, bytes) else bad.encode())
    with pytest.raises(InputError, match=f"train.tsv: .*{message}"):
        read_train(*load_task(tmp_path, name))


def test_a_malformed_row_of_a_test_file_is_never_skipped(tmp_path):
    (tmp_path / "QQP").mkdir()
    (tmp_path / "QQP" / "test.tsv").write_text("id\tquestion1\tquestion2\n0\tonly one\n")
    task, folder = load_task(tmp_path, "QQP")
    with pytest.raises(InputError, match=r"test.tsv: line 2: expected 3 columns"):
        read_split(task, task.test[0], folder)


def test_missing_folders_and_files(tmp_path):
    with pytest.raises(InputError, match="expected a folder with a folder for each task"):
        tasks_in(tmp_path / "none")
    with pytest.raises(InputError, match="expected the folder of the task RTE, it is missing"):
        load_task(tmp_path, "RTE")
    (tmp_path / "RTE").mkdir()
    with pytest.raises(InputError, match=r"expected train.tsv, it is missing"):
        read_train(*load_task(tmp_path, "RTE"))


def test_names_of_tasks_in_any_case():
    assert find_task("sst-2").name == "SST-2" and find_task("Whatever").name == "Whatever"
