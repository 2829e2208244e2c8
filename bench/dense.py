"""Dense feed-forward layers with exact GELU, in whichever of NumPy, torch, ONNX Runtime and OpenVINO are installed.

Each maker takes the layer's weights and a number of threads and returns a function from x (T, H) to y (T, H_out).
"""

import importlib.util

import numpy as np


def numpy_layer(w_in, b_in, w_out, threads):
    from scipy.special import erf
    from threadpoolctl import threadpool_limits

    half_root = np.float32(np.sqrt(0.5))

    def run(x):
        with threadpool_limits(threads):
            hidden = x @ w_in.T
            hidden += b_in
            return (np.float32(0.5) * hidden * (1 + erf(hidden * half_root))) @ w_out

    return run


def torch_layer(w_in, b_in, w_out, threads):
    import torch

    w_in, b_in, w_out = (torch.from_numpy(array) for array in (w_in, b_in, w_out))
    w_out = w_out.T

    def run(x):
        torch.set_num_threads(threads)
        with torch.inference_mode():
            hidden = torch.nn.functional.linear(torch.from_numpy(x), w_in, b_in)
            return torch.nn.functional.linear(torch.nn.functional.gelu(hidden), w_out).numpy()

    return run


def onnxruntime_layer(w_in, b_in, w_out, threads):
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    constants = {"w_in": w_in.T, "b_in": b_in, "w_out": w_out, "half": np.float32(0.5), "one": np.float32(1)}
    constants["half_root"] = np.float32(np.sqrt(0.5))
    # The spelling of GELU that exporters write and ONNX Runtime fuses.
    nodes = [
        helper.make_node(op, inputs, [output])
        for op, inputs, output in (
            ("MatMul", ["x", "w_in"], "product"),
            ("Add", ["product", "b_in"], "h"),
            ("Mul", ["h", "half_root"], "scaled"),
            ("Erf", ["scaled"], "erf"),
            ("Add", ["erf", "one"], "raised"),
            ("Mul", ["h", "raised"], "weighted"),
            ("Mul", ["weighted", "half"], "gelu"),
            ("MatMul", ["gelu", "w_out"], "y"),
        )
    ]
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, w_in.shape[1]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, w_out.shape[1]])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # or its idle threads slow the others
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]


def openvino_layer(w_in, b_in, w_out, threads):
    import openvino
    from openvino import opset13 as ops

    x = ops.parameter([-1, w_in.shape[1]], np.float32)
    hidden = ops.add(ops.matmul(x, ops.constant(w_in), False, True), ops.constant(b_in[None]))
    y = ops.matmul(ops.gelu(hidden, "erf"), ops.constant(np.ascontiguousarray(w_out.T)), False, True)
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(openvino.Model([y], [x]), "CPU", options)
    request = compiled.create_infer_request()

    def run(x):
        return request.infer([openvino.Tensor(x, shared_memory=True)], share_outputs=True)[0]

    return run


MAKERS = {
    "NumPy": (numpy_layer, ("scipy", "threadpoolctl")),
    "torch": (torch_layer, ("torch",)),
    "ONNX Runtime": (onnxruntime_layer, ("onnxruntime", "onnx")),
    "OpenVINO": (openvino_layer, ("openvino",)),
}


def installed():
    """Name to maker, for what can be imported here."""
    return {
        name: maker
        for name, (maker, modules) in MAKERS.items()
        if all(importlib.util.find_spec(module) for module in modules)
    }
