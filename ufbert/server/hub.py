"""The route of the hub's inference client: ``POST /`` (or ``/models/NAME``), whose answer the model's task decides."""

from __future__ import annotations

from ..tasks import FillMask, QuestionAnswerer, TokenClassifier
from ..tasks.text_classifier import FUNCTIONS
from ..tasks.token_classifier import STRATEGIES
from .body import Body
from .inference import ranking, scores, truncation
from .models import Classifier, Embedder, Served, TaskModel
from .refusal import invalid
from .service import Call
from .tei import asked, embed_route, pairs, prompt_name, similarity

__all__ = ["infer"]

MOST_LISTED = 1_000  # results of a text
MOST_FILLS = 10_000  # of a request; each is a text of its own


async def infer(call: Call) -> object:
    """Answer as ``huggingface_hub.InferenceClient`` expects it of the task of the model.

    The model is the one that the path or the body names. Else the shape of ``inputs`` chooses: sentences to compare
    go to an embedder, a question to a question answerer; everything else to the first model.
    """
    name, inputs = call.argument or asked(call.body), call.body.get("inputs")
    _check_fields(call.body)
    if name and not asked(call.body):
        call.body = Body({**call.body.found, "model": name})
    if isinstance(inputs, dict) and "source_sentence" in inputs:
        return await similarity(call)
    if name is None and isinstance(inputs, dict):
        Body(inputs, "inputs").filled("question")
        Body(inputs, "inputs").filled("context")
        return await _task(call, call.service.model(None, TaskModel, "question-answering"))
    model = call.service.model(name, Served)
    if isinstance(model, TaskModel):
        return await _task(call, model)
    if isinstance(model, Embedder):
        return await embed_route(call)
    assert isinstance(model, Classifier)
    return await _classify(call, model)


def _check_fields(body: Body) -> None:
    """Check what is there, also where the model's task does not read it."""
    prompt_name(body)
    truncation(body, True)
    body.flag("normalize", True)
    body.flag("raw_scores", False)
    body.integer("dimensions", 1)
    parameters = body.part("parameters")
    parameters.integer("top_k", 1, MOST_LISTED)
    if parameters.has("candidate_labels"):
        raise invalid("parameters.candidate_labels: expected none, for the labels are the model's; leave it out")
    parameters.strings("ignore_labels", ())
    for name, choices in (("function_to_apply", tuple(FUNCTIONS)), ("aggregation_strategy", STRATEGIES)):
        if parameters.has(name):
            parameters.choice(name, choices, "")


async def _classify(call: Call, model: Classifier) -> object:
    """[[{label, score}]]: one level more than TEI's ``/predict``, which the client would take for one text."""
    call.choose(model)
    parameters = call.body.part("parameters")
    texts, _ = pairs(call.body.get("inputs"))
    function = "none" if call.body.flag("raw_scores", False) else None
    if parameters.has("function_to_apply"):
        function = parameters.choice("function_to_apply", tuple(FUNCTIONS), "")
    count = parameters.integer("top_k", 1, MOST_LISTED)
    truncate, left = truncation(call.body, call.service.settings.auto_truncate)
    found = await scores(call, model, texts, function=function, truncate=truncate, left=left)
    return [ranking(model, row, count) for row in found]


async def _task(call: Call, model: TaskModel) -> object:
    """Run fill-mask, entities or question answering in a thread; its forward passes wait in the queue."""
    call.choose(model)
    parameters = call.body.part("parameters")
    task = model.bound(lambda encodings: call.wait(model.hidden, encodings))
    if isinstance(task, QuestionAnswerer):
        return await _answer(call, task, parameters)
    value = call.body.get("inputs")
    texts = call.body.texts("inputs")
    call.admit(texts, "inputs", "predict")
    overflow = "truncate" if call.body.flag("truncate", call.service.settings.auto_truncate) else "error"
    inputs = value if isinstance(value, str) else texts
    if isinstance(task, FillMask):
        if parameters.has("targets"):
            raise invalid("parameters.targets: expected none, for ufbert ranks the whole vocabulary; leave it out")
        count = parameters.integer("top_k", 1, MOST_LISTED) or 5
        if count * sum(text.count(task.mask_token) for text in texts) > MOST_FILLS:
            raise invalid(f"parameters.top_k: expected masks * top_k to be {MOST_FILLS} at most; send fewer texts")
        return await call.in_thread(lambda: task(inputs, count, on_overflow=overflow))
    assert isinstance(task, TokenClassifier)
    strategy = parameters.choice("aggregation_strategy", STRATEGIES, "simple")
    ignored = parameters.strings("ignore_labels", ("O",))
    return await call.in_thread(lambda: task(inputs, strategy, ignored, on_overflow=overflow))


async def _answer(call: Call, task: QuestionAnswerer, parameters: Body) -> object:
    inputs = call.body.part("inputs")
    question, context = inputs.filled("question"), inputs.filled("context")
    call.admit([question, context], "inputs", "predict")
    count, longest = parameters.integer("top_k", 1, MOST_LISTED) or 1, parameters.integer("max_answer_len", 1) or 15
    may_be_none = parameters.flag("handle_impossible_answer", False)
    aligned = parameters.flag("align_to_words", True)
    spans, stride = parameters.integer("max_seq_len", 1), parameters.integer("doc_stride", 0)
    await call.in_tokenizer(lambda: _check_spans(task, question, spans, stride))
    return await call.in_thread(lambda: task(question, context, count, longest, may_be_none, spans, stride, aligned))


def _check_spans(task: QuestionAnswerer, question: str, max_seq_len: int | None, doc_stride: int | None) -> None:
    """Refuse what would make of a context many times its own tokens: a long question, spans that hardly move."""
    texts = task._texts
    longest = min(max_seq_len or 384, texts.max_length)
    asked = len(texts.tokenizer.pieces([question])[0])
    room = longest - asked - texts.tokenizer.num_special_tokens(pair=True)
    if asked > longest // 2:
        raise invalid(
            f"inputs.question: expected at most {longest // 2} tokens, half of max_seq_len, got {asked}; shorten it"
        )
    if doc_stride is not None and room - doc_stride < longest // 8:
        raise invalid(
            f"parameters.doc_stride: expected at most {max(room - longest // 8, 0)}, so that each span of {longest} "
            f"tokens reads something new, got {doc_stride}; lower it"
        )
