"""What a model.onnx from a stranger may hold."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.bundle import read_bundle, write_bundle
from models.errors import InputError
from models.runtime.engines import load_runtime
from models.runtime.operators import OPERATORS, check_graph


@pytest.fixture
def changed(run_copy):
    """A function that changes a run's model.onnx, and its bundle.json with it, as a stranger would."""
    folder = run_copy("classification")

    def change(how):
        model = onnx.load(folder / "model.onnx")
        made = how(model)
        (folder / "model.onnx").write_bytes(made if isinstance(made, bytes) else model.SerializeToString())
        write_bundle(folder, read_bundle(folder))
        return folder

    return change


def with_node(node):
    return lambda model: model.graph.node.append(node)


def graph(name="inner"):
    value = helper.make_tensor_value_info("inner_out", TensorProto.FLOAT, [1])
    constant = helper.make_node("Constant", [], ["inner_out"], value=numpy_helper.from_array(np.ones(1, np.float32)))
    return helper.make_graph([constant], name, [], [value])


def functions(model):
    function = helper.make_function("own", "F", ["a"], ["b"], [helper.make_node("Abs", ["a"], ["b"])], [])
    model.functions.append(function)


def external(model):
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "/etc/passwd"), ("offset", "0"), ("length", "4")):
        weight.external_data.add(key=key, value=value)


def constant_elsewhere(model):
    node = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.ones(1, np.float32)))
    node.attribute[0].t.external_data.add(key="location", value="/etc/passwd")
    model.graph.node.append(node)


def nan(model):
    weight = next(w for w in model.graph.initializer if w.data_type == TensorProto.FLOAT and np.prod(w.dims) > 9)
    values = numpy_helper.to_array(weight).copy()
    values.flat[-1] = np.nan
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))


IR = b'<?xml version="1.0"?><net name="x" version="11"><layers/><edges/></net>'
HARM = {
    "loop": (with_node(helper.make_node("Loop", ["", ""], ["l"], body=graph())), "operator Loop"),
    "scan": (with_node(helper.make_node("Scan", ["x"], ["l"], body=graph(), num_scan_inputs=1)), "operator Scan"),
    "if": (with_node(helper.make_node("If", ["x"], ["l"], then_branch=graph(), else_branch=graph())), "operator If"),
    "hidden graph": (with_node(helper.make_node("Add", ["x", "x"], ["l"], body=graph())), "operator Add"),
    "domain": (with_node(helper.make_node("Add", ["x", "x"], ["l"], domain="org.evil")), r"operator org\.evil\.Add"),
    "unknown": (with_node(helper.make_node("StringSplit", ["x"], ["l"])), "operator StringSplit"),
    "functions": (functions, "holds functions"),
    "external": (external, "lies in another file"),
    "constant": (constant_elsewhere, "lies in another file"),
    "nan": (nan, "holds NaN"),
    "ir": (lambda model: IR, "not an ONNX file|holds no network"),
    "garbage": (lambda model: b"garbage" * 99, "not an ONNX file|holds no network"),
    "empty": (lambda model: b"", "holds no network"),
}


@pytest.mark.parametrize("case", HARM)
def test_what_our_export_does_not_write_is_refused(changed, case):
    how, told = HARM[case]
    with pytest.raises(InputError, match=rf"model\.onnx: .*({told})") as refused:
        load_runtime(changed(how), runtime="openvino", precision="f32")
    assert "\n" not in str(refused.value)


def test_what_our_export_writes_passes(exported):
    for _, folder in exported.values():
        check_graph(folder / "model.onnx")


def test_no_operator_is_allowed_that_holds_a_graph_or_text():
    for name in OPERATORS:
        schema = onnx.defs.get_schema(name)
        kinds = {attribute.type for attribute in schema.attributes.values()}
        assert not kinds & {onnx.defs.OpSchema.AttrType.GRAPH, onnx.defs.OpSchema.AttrType.GRAPHS}, name
