"""One settings record for the verifier; the command line and the documentation are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo

from toolkit.errors import FieldError, did_you_mean

LONGEST_TIMEOUT = 2_000_000
"""Seconds, 23 days: operating systems wait for an event no longer than 2^31 milliseconds."""


def _or_certified(certifiable: bool, before: ValidationInfo) -> bool:
    """Whether there are certificates: where they are asked for, and where they are to be accepted."""
    return certifiable or (before.data or {}).get("certified", False)  # there is none for a value on its own


class Settings(BaseModel):
    """Everything that can be set about one verification; frozen, and passed explicitly."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timeout: Annotated[
        float,
        Field(gt=0, le=LONGEST_TIMEOUT, allow_inf_nan=False, description="time limit of one query, in seconds"),
    ] = 60.0
    passes: Annotated[
        int,
        Field(
            ge=0,
            description="limit of bounding passes, after which the answer is unknown; turns of the search are then "
            "counted in passes, so that every machine comes to the same. 0: time is the only limit",
        ),
    ] = 0
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(description="where bounds are computed")] = "auto"
    seed: Annotated[int, Field(ge=0, description="seed of the attack")] = 0
    strategy: Annotated[
        Literal["auto", "relu", "input"],
        Field(description="what branch and bound splits: ReLU phases or the input box"),
    ] = "auto"
    bounds: Annotated[
        Literal["native", "auto-lirpa"],
        Field(description="what bounds the root: our own bounds, or first the library auto_LiRPA, where installed"),
    ] = "native"
    batch: Annotated[
        int,
        Field(ge=0, le=1 << 20, description="most domains bounded at once; 0: 1024 on a processor, 8192 on a GPU"),
    ] = 0
    processes: Annotated[
        int,
        Field(ge=0, description="processes that share a search on a processor; 0: as torch has threads, at most 16"),
    ] = 0
    attack_restarts: Annotated[
        int, Field(ge=0, description="random starts of the gradient attack; 0 leaves out secants and populations, too")
    ] = 30
    attack_steps: Annotated[int, Field(ge=0, description="steps of the gradient attack")] = 50
    alpha_iterations: Annotated[int, Field(ge=0, description="steps that optimise the slopes alpha at the root")] = 64
    beta_iterations: Annotated[int, Field(ge=0, description="steps of alpha and beta for each batch of domains")] = 4
    branching: Annotated[
        str,
        Field(description="rule that chooses the neurons to be split; an unknown name is answered with all there are"),
    ] = "chord"
    clipped_neurons: Annotated[
        int,
        Field(
            ge=0,
            description="neurons of each domain that are bounded again where it may have violations; with 0, "
            "certificates of searches over boxes have no half-spaces",
        ),
    ] = 32
    real_semantics: Annotated[
        bool,
        Field(
            description="read declared floating-point types as real numbers: proofs are for exact arithmetic, and "
            "counterexamples for onnxruntime's"
        ),
    ] = False
    float_execution: Annotated[
        bool,
        Field(
            description="answer unsat only where it holds for every evaluation of the network in its floating-point "
            "type, in any order of summation, whatever the specification declares; a certificate states that"
        ),
    ] = False
    certified: Annotated[
        bool,
        Field(description="answer unsat only after the checker has accepted its certificate, within the time limit"),
    ] = False
    certifiable: Annotated[
        bool,
        Field(
            validate_default=True,
            description="use only what a certificate can state: the search takes longer, and a run "
            "keeps the certificate of each unsat; certified implies it",
        ),
        AfterValidator(_or_certified),
    ] = False
    max_domains: Annotated[int, Field(ge=1, description="domains after which the answer is unknown")] = 10_000_000

    def times(self, factor: float) -> Settings:
        """The settings with limits of time and passes ``factor`` times as large, up to the longest time limit."""
        longer = min(self.timeout * factor, float(LONGEST_TIMEOUT))
        return self.model_copy(update={"timeout": longer, "passes": round(self.passes * factor)})

    def changed(self, values: Mapping[str, Any]) -> Settings:
        """The settings with other values, by name. Raises FieldError for an unknown name or a value out of range."""
        try:
            return Settings(**(self.model_dump() | dict(values)))
        except ValidationError as error:
            name, problem = first_problem(error)
            raise FieldError(name, problem) from error


def first_problem(error: ValidationError) -> tuple[str, str]:
    """The name of the first field that is wrong, dotted where records hold others, and what is wrong with it."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "extra_forbidden" and error.title == Settings.__name__:
        name, known = str(first["loc"][-1]), list(Settings.model_fields)
        return name, f"no such setting; there are {', '.join(known)}{did_you_mean(name, known)}"
    return ".".join(map(str, first["loc"])), f"{first['msg']}, not {first['input']}"
