"""``prunecert doctor``: versions, devices and memory of this installation, and whether it decides two tiny queries."""

from __future__ import annotations

import json as json_format
import platform
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import onnx

from toolkit import __version__
from toolkit.bench.stored_run import machine_facts
from toolkit.commands.arguments import Flag
from toolkit.errors import ExitCode, ToolkitError
from toolkit.result import Verdict
from toolkit.settings import Settings
from toolkit.sources import library_version

Device = Literal["cpu", "cuda"]
PACKAGES = ("torch", "onnx", "onnxruntime", "onnx2torch", "numpy", "scipy", "highspy")
"""Libraries that answers depend on."""
NETWORK = """<ir_version: 8, opset_import: ["" : 13]>
main (float[1,2] x) => (float[1,1] y) <float[2,2] a = {1, 1, -1, -1}, float[2,1] b = {1, 1}> {
    h = MatMul(x, a)
    r = Relu(h)
    s = Sub(h, r)
    q = Neg(s)
    t = Add(r, q)
    y = MatMul(t, b)
}"""
SPECIFICATION = """(declare-const X_0 Real) (declare-const X_1 Real) (declare-const Y_0 Real)
(assert (>= X_0 -1)) (assert (<= X_0 1)) (assert (>= X_1 -1)) (assert (<= X_1 1)) (assert (>= Y_0 {least}))
"""
QUESTIONS = {3.9: Verdict.SAT, 4.1: Verdict.UNSAT}
"""The network computes ``2 |x0 - x1|``, whose largest value is 4: whether it reaches a number, and the answer."""
TIMEOUT = 60.0


@dataclass(frozen=True)
class SelfTest:
    """One tiny query: what came out, and what should."""

    device: Device
    expected: Verdict
    verdict: Verdict
    seconds: float
    reason: str

    @property
    def passed(self) -> bool:
        """Whether the answer is the right one."""
        return self.verdict == self.expected


def doctor(*, json: Flag = False) -> ExitCode:
    """Show versions, devices and memory, and verify two tiny networks on each kind of device, in a few seconds.

    The exit code is 0 where all answers are right, and 3 where one is not or a library cannot be used.

    Parameters
    ----------
    json
        Print one JSON object instead.
    """
    versions = {
        "prunecert": __version__,
        "python": platform.python_version(),
        **{name: library_version(name) for name in PACKAGES},
    }
    facts = machine_facts()
    tests = [test for device in devices() for test in self_tests(device)]
    fine = all(test.passed for test in tests)
    if json:
        told = [asdict(test) | {"passed": test.passed} for test in tests]
        print(json_format.dumps({"versions": versions, "machine": facts, "tests": told, "fine": fine}, indent=1))
    else:
        print("\n".join(_lines(versions | facts, tests)))
        print("all is well" if fine else "something is wrong: see the lines that say FAILED")
    return ExitCode.DONE if fine else ExitCode.MACHINE_FAILURE


def _lines(facts: dict[str, str], tests: list[SelfTest]) -> list[str]:
    width = max(map(len, facts))
    told = [
        f"{'ok' if test.passed else 'FAILED'}: on {test.device} a query that is {test.expected} is {test.verdict} "
        f"after {test.seconds:.2f} s{f' ({test.reason})' if test.reason else ''}"
        for test in tests
    ]
    return [*(f"{name:<{width}}  {value}" for name, value in facts.items()), *told]


def devices() -> list[Device]:
    """``cpu``, and ``cuda`` where torch sees such a device; the processor alone where torch cannot be imported."""
    try:
        import torch
    except (ImportError, OSError):
        return ["cpu"]
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def self_tests(device: Device) -> list[SelfTest]:
    """The answers to the tiny queries on a device; what is raised on the way is an answer that is not right."""
    from toolkit.verify import verify_files

    found = []
    with tempfile.TemporaryDirectory() as folder:
        net, spec = Path(folder, "net.onnx"), Path(folder, "spec.vnnlib")
        net.write_bytes(onnx.parser.parse_model(NETWORK).SerializeToString())
        for least, expected in QUESTIONS.items():
            spec.write_text(SPECIFICATION.format(least=least), encoding="utf-8")
            try:
                result = verify_files({"": net}, spec, Settings(timeout=TIMEOUT, device=device))
                answer = (result.verdict, result.statistics.seconds, result.reason)
            except (ToolkitError, ImportError, OSError, RuntimeError) as error:
                answer = (Verdict.ERROR, 0.0, f"{type(error).__name__}: {error}")
            found.append(SelfTest(device, expected, *answer))
    return found
