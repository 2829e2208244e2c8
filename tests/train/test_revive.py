"""Trees that are trained on: dead subtrees live again, trees are added, and nothing that was learnt is lost."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import fff_tensors, some_texts, write_fff, write_sentence_model

from ufbert.train import Bert, FastFeedForward, run
from ufbert.train.distill import Recipe, distill
from ufbert.train.distill import revive as revive_module
from ufbert.train.distill.corpus import Chunks
from ufbert.train.distill.grow import grow
from ufbert.train.distill.revive import add_trees, revive, revive_layers
from ufbert.train.distill.teacher import Teacher

torch.set_num_threads(1)
HIDDEN, DEPTH = 12, 4
TREE = 2 ** (DEPTH + 1) - 1


@pytest.fixture
def data():
    torch.manual_seed(0)
    x = torch.randn(4_000, HIDDEN)
    return x, torch.relu(x @ torch.randn(HIDDEN, 30)) @ torch.randn(30, HIDDEN)


def grown(x, y, trees=2):
    layer = FastFeedForward(HIDDEN, trees, DEPTH, output_bias=True)
    grow(layer, x, y, 1 / y.std(0))
    return layer


def one_sided(layer, node, bias):
    """Let all tokens go one way at a node of the first tree, which adds nothing."""
    with torch.no_grad():
        layer.linear_in.weight[node] = 0
        layer.linear_in.bias[node] = bias
        layer.linear_out.weight[:, node] = 0


def visits(layer, x):
    """How many tokens each node of each tree has: (P, n)."""
    layer(x)
    return np.stack([np.bincount(path.ravel(), minlength=TREE) for path in layer.path.transpose(1, 0, 2)])


@pytest.mark.parametrize("node", [0, 1, 2, 5])
@pytest.mark.parametrize("bias", [-1.0, 1.0])
def test_a_dead_subtree_lives_again_and_the_error_falls(data, node, bias):
    x, y = data
    layer, factors = grown(x, y), 1 / y.std(0)
    one_sided(layer, node, bias)
    dead = 2 * node + (1 if bias > 0 else 2)
    assert visits(layer, x)[0, dead] == 0
    other = layer.linear_in.weight.detach()[TREE:].clone()
    missing = (y - layer(x)).detach() * factors
    before = missing.square().mean()
    assert revive(layer, x, missing, factors) == 1
    torch.testing.assert_close(missing, (y - layer(x)).detach() * factors, rtol=1e-4, atol=1e-4)
    assert missing.square().mean() < before
    found = visits(layer, x)[0]
    assert 0.4 * found[node] < found[dead] < 0.6 * found[node]
    assert torch.equal(layer.linear_in.weight.detach()[TREE:], other)


def test_the_revived_side_is_a_copy_of_the_living_one(data):
    x, y = data
    layer = grown(x, y)
    one_sided(layer, 0, -1.0)  # all go left: node 1, with 3 and 4, 7 to 10, 15 to 22 below it
    revive(layer, x, (y - layer(x)).detach(), torch.ones(HIDDEN))
    living, copied = (1, 3, 4, 7, 8, 9, 10, *range(15, 23)), (2, 5, 6, 11, 12, 13, 14, *range(23, 31))
    assert torch.equal(layer.linear_in.weight[list(living)], layer.linear_in.weight[list(copied)])
    assert torch.equal(layer.linear_in.bias[list(living)], layer.linear_in.bias[list(copied)])
    assert torch.equal(layer.linear_out.weight[:, list(living)], layer.linear_out.weight[:, list(copied)])


def test_trees_without_dead_subtrees_stay_as_they_are(data):
    x, y = data
    layer = grown(x, y)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    assert revive(layer, x, (y - layer(x)).detach(), torch.ones(HIDDEN)) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_a_neuron_that_all_tokens_need_is_no_decision_to_be_replaced(data):
    x, _ = data
    layer, y = grown(x, x, trees=1), 5 * x[:, :1].expand(-1, HIDDEN) + 100
    with torch.no_grad():  # the root gives all of y, and always goes right
        layer.linear_in.weight.zero_(), layer.linear_in.bias.zero_(), layer.linear_out.weight.zero_()
        layer.linear_out.bias.zero_()
        layer.linear_in.weight[0, 0], layer.linear_in.bias[0], layer.linear_out.weight[:, 0] = 1, 20, 5
    missing = (y - layer(x)).detach()
    assert missing.abs().max() < 1e-3
    revive(layer, x, missing, torch.ones(HIDDEN))
    assert layer.linear_in.bias[0].item() == 20


def test_one_token_again_and_again_gives_no_infinite_weights(data):
    x, y = data
    x[: len(x) // 2] = 3 + 1e-3 * x[: len(x) // 2]  # such as the separator, in the first layer
    layer = grown(x, y)
    one_sided(layer, 1, 1.0)
    one_sided(layer, 2, 1.0)
    assert revive(layer, x, (y - layer(x)).detach(), torch.ones(HIDDEN)) > 0
    assert all(torch.isfinite(parameter).all() and parameter.abs().max() < 1e3 for parameter in layer.parameters())


def test_added_trees_change_nothing_until_they_learn(tmp_path):
    student = Bert.from_folder(write_fff(tmp_path / "fff"))
    ids = torch.randint(5, 20, (3, 7))
    before, config = student(ids), student.config
    add_trees(student, config.num_trees + 3)
    assert student.config.num_trees == config.num_trees + 3
    torch.testing.assert_close(student(ids), before, rtol=1e-5, atol=1e-5)
    assert all(layer.ffn.num_trees == config.num_trees + 3 for layer in student.layers)


def test_all_layers_come_nearer_to_the_teacher(tmp_path):
    folder = write_sentence_model(tmp_path / "teacher")
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(some_texts(1_500)) + "\n")
    small = Recipe(num_trees=2, depth=3, grow_tokens=40_000, local_tokens=0, tokens=0, batch_tokens=512, max_length=20)
    student = Bert.from_folder(distill(folder, file, tmp_path / "fff", small))
    for layer in student.layers:
        one_sided(layer.ffn, 0, 1.0)
    teacher = Teacher(str(folder))
    corpus = Chunks(some_texts(1_500), teacher.texts, Recipe(batch_tokens=512, max_length=20, joined=0.0))
    batches = corpus.chunk(3)
    scale = torch.stack([z.std(0) for z in teacher(batches[0]).outputs])

    def error():
        with torch.no_grad():
            hidden = torch.cat([student(batch.input_ids, batch.mask)[batch.mask] for batch in batches])
        wanted = torch.cat([teacher(batch).outputs[-1] for batch in batches])
        return float(((hidden - wanted) / scale[-1]).square().mean())

    before = error()
    assert min(revive_layers(student, teacher, corpus, scale, 0, 5_000)) > 0
    assert error() < before


def test_a_model_with_fewer_trees_is_gone_on_from_and_resumes(tmp_path):
    teacher, file = write_sentence_model(tmp_path / "teacher"), tmp_path / "texts.txt"
    file.write_text("\n".join(some_texts(1_500)) + "\n")
    small = Recipe(num_trees=2, depth=3, grow_tokens=40_000, local_tokens=0, tokens=0, batch_tokens=512, max_length=20)
    first = distill(teacher, file, tmp_path / "first", small)
    wider = dataclasses.replace(small, num_trees=5, tokens=5_000)
    second = Bert.from_folder(distill(teacher, file, tmp_path / "second", wider, start=first))
    assert second.config.num_trees == 5
    added = second.layers[0].ffn.linear_out.weight[:, 2 * 15 :]
    assert added.abs().max() > 0  # they learnt
    again = Bert.from_folder(distill(teacher, file, tmp_path / "second-again", wider, start=first))
    for one, other in zip(second.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_what_was_revived_before_an_interruption_is_kept(tmp_path, monkeypatch):
    teacher, file = write_sentence_model(tmp_path / "teacher"), tmp_path / "texts.txt"
    file.write_text("\n".join(some_texts(1_500)) + "\n")
    tensors = fff_tensors()
    for name, tensor in tensors.items():
        if name.endswith("linear_in.bias"):
            tensor[:] = np.copysign(9, tensor)  # all decisions are one-sided
    start = write_fff(tmp_path / "start", tensors)
    recipe = Recipe(num_trees=2, depth=3, local_tokens=0, tokens=0, batch_tokens=512, max_length=20)
    whole = Bert.from_folder(distill(teacher, file, tmp_path / "whole", recipe, start=start))
    for layer, old in zip(whole.layers, Bert.from_folder(start).layers, strict=True):
        assert not torch.equal(layer.ffn.linear_in.weight, old.ffn.linear_in.weight.half().float())
    calls, plain = [], revive_module.revive

    def interrupted(layer, *arguments):
        calls.append(layer)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(layer, *arguments)

    monkeypatch.setattr(run, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(revive_module, "revive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        distill(teacher, file, tmp_path / "again", recipe, start=start)
    again = Bert.from_folder(distill(teacher, file, tmp_path / "again", recipe, start=start))
    assert len(calls) == 1 + len(whole.layers)  # the first layer once
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
