"""Graphs of transforms are valid for the onnx package, with their weights outside."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from jahp_pl.runtime import transform_graphs
from jahp_pl.runtime.weights import read_export
from tests.support.codec_models import JOINT, Variant
from tests.support.runtime_codecs import VARIABLE, pair


@pytest.mark.parametrize("variant", [JOINT, Variant("scale_hyperprior"), VARIABLE], ids=str)
def test_graphs_are_what_the_onnx_package_reads(variant: Variant | str, folder: Path) -> None:
    pair(variant, folder)
    state = read_export(folder / str(variant)).state
    for graph in (
        transform_graphs.analysis(state),
        transform_graphs.synthesis(state),
        transform_graphs.hyper_analysis(state, magnitudes=False),
    ):
        model = onnx.load_model_from_string(graph.to_bytes())
        names = {one.name for one in model.graph.initializer if one.data_location == onnx.TensorProto.EXTERNAL}
        assert names == set(graph.weights)
        for one in model.graph.initializer:  # checked with its numbers in it
            if one.name in names:
                del one.external_data[:]
                one.data_location = onnx.TensorProto.DEFAULT
                assert tuple(one.dims) == graph.weights[one.name].shape
                one.raw_data = graph.weights[one.name].tobytes()
        onnx.checker.check_model(model, full_check=True)
