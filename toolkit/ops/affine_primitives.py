"""The affine operators of traced graphs, one record each: what an operator does with the elements that it takes.

They need no bounding rule: their interval image and their backward step (CROWN) follow from the operator itself. What
else is asked about them (where they are affine, whether they are computed exactly, keep signs, how many terms they add
up) is asked of their form, of which there are fewer.
"""

from __future__ import annotations

from enum import Enum, auto


class AffineForm(Enum):
    """What an operator does with elements."""

    MOVE = auto()
    """Puts each element in one place, or leaves it out."""
    JOIN = auto()
    """Puts the elements of a list of tensors side by side."""
    SPLIT = auto()
    """Has several results, parts of its operand."""
    REARRANGE = auto()
    """Moves elements by a rule of its own, such as blocks of channels to places of an image."""
    CONVERT = auto()
    """Changes the element type."""
    NEGATE = auto()
    PAD = auto()
    """Moves elements, and puts a number around them."""
    COPY = auto()
    """Repeats all elements equally often."""
    SELECT = auto()
    """Takes the elements at positions along an axis, some of them several times."""
    GATHER = auto()
    """Takes the elements at positions of their own."""
    WINDOWS = auto()
    """Takes overlapping windows apart."""
    REFLECT = auto()
    """Moves elements, and repeats some of them around the others."""
    ADD = auto()
    SUBTRACT = auto()
    FACTOR = auto()
    """Multiplies elements by elements."""
    DIVIDE = auto()
    CHOOSE = auto()
    """Takes each element from one of two operands."""
    TOTAL = auto()
    """Adds up the elements of its operand along some axes."""
    MEAN = auto()
    CUMULATE = auto()
    """Adds up all elements before each one."""
    POOL = auto()
    """Means of windows."""
    POOL_TO_SIZE = auto()
    """Means of windows that the size of the result says."""
    NEAREST = auto()
    """Enlarges an image by repeating elements."""
    BILINEAR = auto()
    """Enlarges an image by means of neighbours."""
    PRODUCT = auto()
    """Multiplies matrices or vectors."""
    BIASED_PRODUCT = auto()
    """Adds its first operand to the product of the others."""
    CONVOLUTION = auto()


_FORMS: dict[AffineForm, str] = {
    AffineForm.MOVE: "view.default _unsafe_view.default reshape.default permute.default t.default transpose.int "
    "squeeze.default squeeze.dim squeeze.dims unsqueeze.default clone.default alias.default detach.default "
    "slice.Tensor select.int flip.default contiguous.default",
    AffineForm.JOIN: "cat.default stack.default",
    AffineForm.SPLIT: "split.Tensor split_with_sizes.default unbind.int chunk.default",
    AffineForm.REARRANGE: "pixel_shuffle.default diagonal.default roll.default",
    AffineForm.CONVERT: "_to_copy.default",
    AffineForm.NEGATE: "neg.default",
    AffineForm.PAD: "constant_pad_nd.default",
    AffineForm.COPY: "expand.default repeat.default",
    AffineForm.SELECT: "index_select.default",
    AffineForm.GATHER: "index.Tensor gather.default",
    AffineForm.WINDOWS: "unfold.default",
    AffineForm.REFLECT: "reflection_pad2d.default replication_pad2d.default",
    AffineForm.ADD: "add.Tensor add.Scalar",
    AffineForm.SUBTRACT: "sub.Tensor sub.Scalar",
    AffineForm.FACTOR: "mul.Tensor mul.Scalar",
    AffineForm.DIVIDE: "div.Tensor div.Scalar",
    AffineForm.CHOOSE: "where.self",
    AffineForm.TOTAL: "sum.default sum.dim_IntList",
    AffineForm.MEAN: "mean.default mean.dim",
    AffineForm.CUMULATE: "cumsum.default",
    AffineForm.POOL: "avg_pool2d.default",
    AffineForm.POOL_TO_SIZE: "_adaptive_avg_pool2d.default",
    AffineForm.NEAREST: "upsample_nearest2d.default upsample_nearest2d.vec",
    AffineForm.BILINEAR: "upsample_bilinear2d.default upsample_bilinear2d.vec",
    AffineForm.PRODUCT: "mm.default bmm.default mv.default dot.default",
    AffineForm.BIASED_PRODUCT: "addmm.default baddbmm.default",
    AffineForm.CONVOLUTION: "convolution.default",
}
AFFINE_FORMS: dict[str, AffineForm] = {f"aten.{name}": form for form, names in _FORMS.items() for name in names.split()}
"""Traced operator, by name with domain and overload -> its form."""
IN_ORDER: frozenset[str] = frozenset(
    f"aten.{name}"
    for name in (
        "view.default", "_unsafe_view.default", "reshape.default", "squeeze.default", "squeeze.dim", "squeeze.dims",
        "unsqueeze.default", "clone.default", "alias.default", "detach.default", "contiguous.default",
    )
)  # fmt: skip
"""Moves that leave the elements of a flat tensor in their order: what they change is the shape."""
WITHOUT_SIGN: dict[str, str] = {
    "aten.sub.Tensor": "aten.add.Tensor",
    "aten.sub.Scalar": "aten.add.Scalar",
    "aten.neg.default": "aten.alias.default",
}
"""Operators whose coefficients are negative, and their counterparts with positive ones."""
_EXACT_FORMS = frozenset(
    {AffineForm.MOVE, AffineForm.JOIN, AffineForm.SPLIT, AffineForm.NEGATE, AffineForm.PAD, AffineForm.COPY,
     AffineForm.SELECT}
)  # fmt: skip
_CREATED = (
    "empty.memory_format zeros.default ones.default full.default zeros_like.default ones_like.default "
    "full_like.default arange.default scalar_tensor.default lift_fresh.default lift_fresh_copy.default fill_.Scalar"
)
"""Operators that make constants."""
_CHOSEN = "abs.default relu.default maximum.default minimum.default"
"""Operators whose results are among their operands, up to the sign."""
EXACT_ON_CONSTANTS: frozenset[str] = frozenset(
    [name for name, form in AFFINE_FORMS.items() if form in _EXACT_FORMS]
    + [f"aten.{name}" for name in f"{_CREATED} {_CHOSEN}".split()]
)
"""Operators whose results of constants are constants without rounding. (Of those that give integers all are.)"""
