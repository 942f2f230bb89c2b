"""How a network is trained, as written in a recipe; needs no torch.

Defaults are those of Li et al., "Can pruning improve certified robustness of neural networks?" (TMLR 2023).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from toolkit.options import RecipeRecord, shorthand

Fraction = Annotated[float, Field(ge=0, le=1)]


class Standard(RecipeRecord):
    """Cross-entropy on clean images."""

    name: Literal["standard"] = "standard"


class FgsmGradAlign(RecipeRecord):
    """One-step attack with gradient alignment (Andriushchenko & Flammarion, NeurIPS 2020)."""

    name: Literal["fgsm_gradalign"] = "fgsm_gradalign"
    alpha: PositiveFloat = 1.25
    """Step of the attack in multiples of epsilon, before clipping to the box."""
    weight: NonNegativeFloat = 0.2


class Pgd(RecipeRecord):
    """Adversarial training with projected gradient descent (Madry et al., ICLR 2018)."""

    name: Literal["pgd"] = "pgd"
    steps: PositiveInt = 7
    step_size: PositiveFloat = 0.25
    """Step in multiples of epsilon."""


class Ibp(RecipeRecord):
    """Interval bound propagation (Gowal et al., ICCV 2019)."""

    name: Literal["ibp"] = "ibp"


class CrownIbp(RecipeRecord):
    """CROWN-IBP with loss fusion (Zhang et al., ICLR 2020; Xu et al., NeurIPS 2020)."""

    name: Literal["crown_ibp"] = "crown_ibp"


class Sabr(RecipeRecord):
    """Interval bounds of a small box around an adversarial point (Mueller et al., ICLR 2023)."""

    name: Literal["sabr"] = "sabr"
    ratio: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Radius of the small box in multiples of epsilon."""
    steps: PositiveInt = 8
    step_size: PositiveFloat = 0.25
    relu_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """What is left of the upper end of unstable neurons at each ReLU; the authors take 0.8 for CIFAR-10 at 2/255."""


class ExpressiveLoss(RecipeRecord):
    """Options of losses between an adversarial and the IBP loss (De Palma et al., ICLR 2024)."""

    mix: Fraction = 0.01
    """How near the loss is to the IBP loss: 0 is adversarial, 1 is IBP."""
    attack_range: PositiveFloat = 1.0
    """Radius of the attack in multiples of epsilon."""
    steps: PositiveInt = 8
    step_size: PositiveFloat = 0.25


class MtlIbp(ExpressiveLoss):
    """Convex combination of both losses: ``(1 - mix) L_adversarial + mix L_IBP``."""

    name: Literal["mtl_ibp"] = "mtl_ibp"


class CcIbp(ExpressiveLoss):
    """The loss of a convex combination of both logit differences, adversarial and IBP."""

    name: Literal["cc_ibp"] = "cc_ibp"


class ExpIbp(ExpressiveLoss):
    """Convex combination of the logarithms of both losses of a batch: ``L_adversarial^(1 - mix) L_IBP^mix``."""

    name: Literal["exp_ibp"] = "exp_ibp"


LossOptions = Annotated[
    Standard | FgsmGradAlign | Pgd | Ibp | CrownIbp | Sabr | MtlIbp | CcIbp | ExpIbp,
    Field(discriminator="name"),
    shorthand("name"),
]

Bounds = Literal["maximum", "scheduled"]
"""Which interval bounds a regulariser reads: at the largest epsilon with running batch statistics (the paper's
adversarial trainer), or at the scheduled epsilon with those of the clean batch (its certified trainer)."""


class Stability(RecipeRecord):
    """Stability of ReLUs, with pre-activation bounds l and u.

    ``rs`` is ``-tanh(1 + l u)`` (Xiao et al., ICLR 2019); ``nrs`` is ``-tanh(1 + l u / gamma^2)`` with the scale gamma
    of the batch normalisation before the ReLU (NRSLoss; Li et al., Eq. 5).
    """

    name: Literal["rs", "nrs"]
    weight: NonNegativeFloat = 0.01
    """0.01 for adversarial training; the released code of the paper uses 0.001 for certified training."""
    detach: Literal["denominator", "gamma"] = "denominator"
    """Where the gradient to gamma stops: in the divisor only (the released code), or everywhere (the paper's text)."""
    reduction: Literal["neurons", "channels"] = "neurons"
    """Mean over all neurons, or over channels of their means (small late layers then weigh more)."""
    without_batch_norm: Literal["rs", "skip"] = "rs"
    """What a ReLU without batch normalisation before it contributes."""
    bounds: Bounds = "maximum"


class Volume(RecipeRecord):
    """Area of the triangle relaxations, ``relu(-l) relu(u)``: mean over neurons."""

    name: Literal["volume"] = "volume"
    weight: NonNegativeFloat = 0.01
    bounds: Bounds = "maximum"


class Slimming(RecipeRecord):
    """L1 norm of the batch-normalisation scales that a ReLU follows (Liu et al., ICCV 2017)."""

    name: Literal["slimming"] = "slimming"
    weight: NonNegativeFloat = 1e-4
    reduction: Literal["sum", "mean"] = "sum"
    """Liu et al. sum over channels; the released code of Li et al. takes the mean."""


class L1(RecipeRecord):
    """L1 norm of the weights of convolutions and linear layers."""

    name: Literal["l1"] = "l1"
    weight: NonNegativeFloat = 1e-6


class FastIbp(RecipeRecord):
    """Warm-up regularisers of Shi et al. (NeurIPS 2021): tight bounds and balanced ReLU states."""

    name: Literal["fastibp"] = "fastibp"
    weight: NonNegativeFloat = 0.5
    tolerance: PositiveFloat = 0.5


RegulariserOptions = Annotated[
    Stability | Volume | Slimming | L1 | FastIbp, Field(discriminator="name"), shorthand("name")
]


class Ramp(RecipeRecord):
    """Smoothed schedule of epsilon: 0 until epoch ``start`` (counted from 1), full ``length`` epochs later."""

    start: PositiveInt = 1
    length: PositiveInt = 1
    middle: Fraction = 0.4
    """Part of the ramp that grows like a power; it is linear afterwards."""
    exponent: Annotated[float, Field(ge=1)] = 4.0


class BiasShaping(RecipeRecord):
    """Now and then, shift the biases of almost stable units so that they are stable (Xu et al., TACAS 2024)."""

    pace: PositiveInt = 200
    """Steps between two shifts."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.02
    """Part of the unstable units that is shifted, those with the smallest shifts; the authors take 0.01 to 0.05."""


class Averaging(RecipeRecord):
    """Ends with an average of the weights in place of the last ones (SWA; Izmailov et al., UAI 2018)."""

    start: PositiveInt
    """First epoch (counted from 1) whose weights count."""
    every: PositiveInt = 10
    """Steps between two sets of weights that count."""
    decay: Annotated[float | None, Field(gt=0, lt=1)] = None
    """Decay of an exponential moving average (EMA), at each set that counts; None weighs all of them alike."""


Precision = Literal["float32", "bfloat16", "float16"]


class Training(RecipeRecord):
    """One training run, from the initial (or rewound) weights to the last epoch."""

    loss: LossOptions = Pgd()
    epsilon: NonNegativeFloat | None = None
    """Radius in [0, 1] pixels; None takes the radius of the specification."""
    clean_share: Fraction = 0.0
    """Part of the objective that is the cross-entropy of the images as they are; the rest is the loss."""
    epochs: NonNegativeInt = 200
    batch: PositiveInt = 128
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: PositiveFloat = 0.01
    momentum: Fraction = 0.9
    """Momentum of ``sgd``; ``adam`` has its usual moments."""
    weight_decay: NonNegativeFloat = 5e-4
    milestones: tuple[PositiveInt, ...] = ()
    """Epochs (counted from 1) after which the learning rate is multiplied by ``decay``."""
    decay: PositiveFloat = 0.1
    clip: PositiveFloat = 8.0
    """Largest norm of the gradient."""
    ramp: Ramp | None = None
    """None trains at the full epsilon from the first step."""
    keep: Literal["last", "attacked", "certified"] = "last"
    """Weights that training ends with: those of the last epoch, or of the epoch at the full epsilon with which most of
    the images held out withstand a short attack, or are certified by cheap bounds (CROWN-IBP)."""
    averaging: Averaging | None = None
    """None takes the weights as they are after the last step of an epoch."""
    batch_statistics: Literal["running", "population"] = "running"
    """What batch normalisation has after an epoch: averages over the last steps, or means over all training images,
    by another pass. Averaged weights always have the latter."""
    measured_images: NonNegativeInt = 200
    """Images held out of training whose standard and certified accuracy is measured after each epoch."""
    measured_epsilon: NonNegativeFloat | None = None
    """Radius of these measures, and of the choice of an epoch; None takes that of the specification."""
    augment: bool = True
    """Whether images are changed at random, as ``data.augmentation`` says."""
    initialisation: Literal["default", "ibp"] = "default"
    """``ibp``: normal weights of deviation sqrt(2 pi) / fan-in (Shi et al., 2021) except in the last layer."""
    regularisers: tuple[RegulariserOptions, ...] = ()
    precision: Precision = "float32"
    """Mixed precision where it is not float32: the network's passes run in it; weights, losses, bounds and pruning
    scores stay in float32. ``bfloat16`` for most GPUs and CPUs, ``float16`` for GPUs that lack it."""
    shaping: BiasShaping | None = None
    """None shifts no biases."""
    checkpoint_seconds: NonNegativeInt = 20
    """A killed run loses at most about this much work; it does not change the result."""

    @model_validator(mode="after")
    def _check_averaging(self) -> Training:
        if self.averaging is not None and self.averaging.start > self.epochs:
            raise ValueError(f"averaging: starts in epoch {self.averaging.start} of {self.epochs}")
        return self
