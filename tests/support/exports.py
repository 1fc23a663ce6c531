"""Releases of tiny networks at a tenth of the time, for tests that write many."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnxscript import ir

from resegnet import Config, ReSegNet
from resegnet.releases.quantise import write_onnx
from support.synthetic import draw_fundus


class TraceOnce:
    """`torch.onnx.export` that traces each architecture once.

    Tracing takes two thirds of the time of a tiny training run, and does not look at the weights. A further network of
    the same architecture gets the same graph with its own weights; the exporter's optimisation then runs as usual. The
    result differs from that of `torch.onnx.export` in the names of the nodes only (`test_engine.py` compares them).
    """

    def __init__(self) -> None:
        self._export = torch.onnx.export
        self._graphs: dict[tuple[Config, torch.Size], bytes] = {}

    def __call__(
        self, module: torch.nn.Module, args: tuple[torch.Tensor, ...], **options: Any
    ) -> torch.onnx.ONNXProgram:
        """Export a network with the options that `resegnet.releases.quantise` gives, anything else as it is."""
        config = getattr(getattr(module, "model", None), "config", None)
        if not isinstance(config, Config):
            return self._export(module, args, **options)
        key = (dataclasses.replace(config, threshold=0.5), args[0].shape)
        if key not in self._graphs:
            self._graphs[key] = self._export(module, args, **options, optimize=False).model_proto.SerializeToString()
        model = ir.serde.deserialize_model(onnx.load_from_string(self._graphs[key]))
        program = torch.onnx.ONNXProgram(model, None)
        weights = dict(module.named_parameters()) | dict(module.named_buffers())
        program.apply_weights({name: weights[name].detach() for name in model.graph.initializers if name in weights})
        program.optimize()
        return program


trace_once = TraceOnce()


class _Traced(Exception):
    pass


def trace_now(config: Config) -> None:
    """Trace that architecture, so that forks of this process need not; starts no thread."""

    def stop(*_: Any, **__: Any) -> None:
        raise _Traced

    with quick_releases(), pytest.MonkeyPatch.context() as patch, suppress(_Traced):
        patch.setattr("resegnet.releases.quantise.quant_pre_process", stop)
        write_onnx(ReSegNet(config), [], Path("unused.onnx"))


@contextmanager
def quick_releases() -> Iterator[None]:
    """Let `write_release` trace each architecture once in this process, and compute its self-test photograph once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.onnx.export", trace_once)
        patch.setattr("resegnet.releases.release.draw_fundus", draw_fundus)
        yield
