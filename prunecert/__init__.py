"""Prune neural networks for certified robustness, and verify them: the programming interface of prunecert.

>>> import prunecert
>>> result = prunecert.verify("net.onnx", "property.vnnlib", timeout=60)
>>> result.verdict
<Verdict.UNSAT: 'unsat'>

`verify` decides one question about a network, `certify` tells its certified accuracy on rows of data, `bench` runs a
recipe or a benchmark folder, and `prune` prunes a network of yours and says what that did to its certified accuracy;
the commands of the same names do the same. The rest are the records that go in and come out, the errors, and `export`,
which makes a network's file of a torch module.

What is stable: the names in ``__all__``, their arguments and fields, and the words of `Verdict` follow semantic
versioning. From 1.0.0 on, nothing of that is removed or changes its meaning without a new major version; before, not
without a new minor one. A new field or keyword argument, with a default, may come at any time. The texts of
messages and reasons, the seconds an answer takes, and which queries come out as ``unknown`` or ``timeout`` are no part
of it. Neither is the package ``toolkit``, which does the work: anything in it may change at any time.

Importing this package imports neither torch nor onnxruntime; what needs them does so when it is called.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from prunecert._certify import certify
from prunecert._models import export
from prunecert._runs import Run, bench, prune
from prunecert._verify import Robustness, verify
from toolkit import __version__
from toolkit.errors import InputError, MachineError, ToolkitError, UnsupportedError
from toolkit.result import Result, Statistics, Verdict
from toolkit.settings import Settings

if TYPE_CHECKING:
    from toolkit.bench.run_options import Options
    from toolkit.commands.certify import Verification
    from toolkit.commands.prune import Check, NetworkInput, Pruning, Tuning
    from toolkit.commands.row_options import Reading
    from toolkit.experiments.certification import Certified, CertifiedRow
    from toolkit.formats.vnncomp.instances import ResultRow
    from toolkit.formats.vnncomp.witness import Witness
else:
    _LATER = {
        "Certified": "toolkit.experiments.certification",
        "CertifiedRow": "toolkit.experiments.certification",
        "Check": "toolkit.commands.prune",
        "NetworkInput": "toolkit.commands.prune",
        "Options": "toolkit.bench.run_options",
        "Pruning": "toolkit.commands.prune",
        "Reading": "toolkit.commands.row_options",
        "ResultRow": "toolkit.formats.vnncomp.instances",
        "Tuning": "toolkit.commands.prune",
        "Verification": "toolkit.commands.certify",
        "Witness": "toolkit.formats.vnncomp.witness",
    }

    def __getattr__(name: str) -> object:
        """Import a record on its first use: its module needs libraries that take a while."""
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_LATER[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "Certified",
    "CertifiedRow",
    "Check",
    "InputError",
    "MachineError",
    "NetworkInput",
    "Options",
    "Pruning",
    "Reading",
    "Result",
    "ResultRow",
    "Robustness",
    "Run",
    "Settings",
    "Statistics",
    "ToolkitError",
    "Tuning",
    "UnsupportedError",
    "Verdict",
    "Verification",
    "Witness",
    "__version__",
    "bench",
    "certify",
    "export",
    "prune",
    "verify",
]
