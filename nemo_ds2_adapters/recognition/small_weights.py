"""Weights of a graph in fewer bits: a smaller file, computed with in fp32 all the same."""

from typing import TYPE_CHECKING

import numpy as np

from nemo_ds2_adapters.errors import InputError

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto

WEIGHTS = ("fp32", "fp16", "int8")
LEAST = 256  # numbers; smaller tensors stay as they are
LARGEST_INT8 = 127


def store_smaller(graph: "GraphProto", weights: str) -> None:
    """Keep the matrices of a graph as `fp16`, or as `int8` with an fp32 scale per row; what they become again is
    computed when the graph is loaded.

    Args:
        graph: is changed. What its inputs are by default stays as it is.
        weights: one of `WEIGHTS`.

    Raises:
        InputError: a weight is too large for fp16.
    """
    if weights == "fp32":
        return
    import onnx

    inputs = {value.name for value in graph.input}
    nodes: list[NodeProto] = []
    for tensor in [*graph.initializer]:
        # More than two rows: biases of a recurrent layer are one row per direction.
        is_matrix = len(tensor.dims) > 1 and tensor.dims[-2] > 2 and np.prod(tensor.dims) >= LEAST
        if tensor.data_type == onnx.TensorProto.FLOAT and is_matrix and tensor.name not in inputs:
            values = onnx.numpy_helper.to_array(tensor)
            nodes += _in_half(tensor, values) if weights == "fp16" else _in_bytes(graph, tensor, values)
    before = [*graph.node]
    del graph.node[:]
    graph.node.extend(nodes + before)


def _in_half(tensor: "TensorProto", values: np.ndarray) -> "list[NodeProto]":
    from onnx import TensorProto, helper, numpy_helper

    name, largest = tensor.name, float(np.abs(values).max())
    if largest > np.finfo(np.float16).max:
        raise InputError(f"weights='fp16': the base has a weight of {largest:g}, too large for it: take fp32")
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.fp16"))
    return [helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT)]


def _in_bytes(graph: "GraphProto", tensor: "TensorProto", values: np.ndarray) -> "list[NodeProto]":
    from onnx import TensorProto, helper, numpy_helper

    name = tensor.name
    scale = np.maximum(np.abs(values).max(axis=-1, keepdims=True) / LARGEST_INT8, np.finfo(np.float32).tiny)
    tensor.CopyFrom(numpy_helper.from_array(np.round(values / scale).astype(np.int8), f"{name}.int8"))
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
    return [  # not DequantizeLinear, which onnxruntime would run anew in every batch
        helper.make_node("Cast", [tensor.name], [f"{name}.whole"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}.whole", f"{name}.scale"], [name]),
    ]
