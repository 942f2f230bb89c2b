"""Bounds in doubles hold exactly: against rational arithmetic, with no tolerance, where rounding is at its worst."""

from __future__ import annotations

from decimal import Decimal, getcontext
from fractions import Fraction

import numpy as np
import onnx
import pytest
from node_models import model_of, one

from toolkit.proof.bounds import (
    ADAPTIVE,
    Fact,
    Model,
    NumberSystem,
    RangeLines,
    Rows,
    backward,
    best_multipliers,
    fresh_bounds,
    lines_of,
)
from toolkit.proof.network import Activation, load_network

DOUBLE = onnx.TensorProto.DOUBLE


def weights(rng, *shape, kind):
    """Numbers of very different sizes, and such that cancel."""
    found = rng.normal(size=shape)
    if kind == "extreme":
        found *= 10.0 ** rng.choice([-300, -150, -20, 0, 8, 60], size=shape)
    elif kind == "cancelling":
        half = found.size // 2
        flat = found.ravel()
        flat[half : 2 * half] = -np.nextafter(flat[:half], np.inf)
        found = flat.reshape(shape) * 10.0 ** rng.integers(0, 12)
    elif kind == "tiny":
        found *= 5e-324 * rng.integers(1, 2**40, size=shape)
    return found


def network(rng, kind, path):
    """Affine maps with every piecewise linear operator between them."""
    constants = {"a": weights(rng, 3, 4, kind=kind), "b": weights(rng, 4, kind=kind),
                 "c": weights(rng, 4, 4, kind=kind), "d": weights(rng, 4, kind=kind),
                 "e": weights(rng, 4, 2, kind=kind), "k": weights(rng, 2, 1, 2, kind=kind),
                 "s": np.array([1, 1, 8])}  # fmt: skip
    nodes = [
        ("Gemm", ["x", "a", "b"], ["z"], {}), ("Relu", ["z"], ["r"], {}), ("Gemm", ["r", "c", "d"], ["z1"], {}),
        (str(rng.choice(["Abs", "LeakyRelu", "Relu"])), ["z1"], ["r1"], {}), ("Add", ["r1", "z"], ["t"], {}),
        ("Unsqueeze", ["t", "u"], ["t1"], {}), ("Conv", ["t1", "k"], ["q"], {"pads": [1, 0]}),
        ("Reshape", ["q", "s"], ["q1"], {}),
        ("MaxPool", ["q1"], ["m"], {"kernel_shape": [3], "pads": [1, 0], "strides": [2]}),
        ("Reshape", ["m", "v"], ["m1"], {}), ("Clip", ["m1", "low", "high"], ["n"], {}),
        ("Gemm", ["n", "e"], ["y"], {}),
    ]  # fmt: skip
    constants |= {"u": np.array([0]), "v": np.array([1, 4]), "low": np.float64(-0.5), "high": np.float64(1e8)}
    model = model_of(nodes, (1, 3), constants, dtype=DOUBLE)
    path.write_bytes(model.SerializeToString())
    return load_network(path)


@pytest.mark.parametrize("kind", ["plain", "extreme", "cancelling", "tiny"])
@pytest.mark.parametrize("varying", [3, 1])
@pytest.mark.parametrize("seed", range(4))
def test_ranges_and_functionals(tmp_path, kind, seed, varying):
    """All values at corners and points of a box, computed in rationals, are where the bounds say; also where most
    inputs vary by a unit in the last place or not at all, and are put into constants."""
    rng = np.random.default_rng(seed)
    net = network(rng, kind, tmp_path / "n.onnx")
    fast, exact = Model.of(net), Model.of(net, exact=True)
    centre, radius = rng.normal(size=(1, 3)), abs(rng.normal(size=(1, 3))) * rng.choice([1e-16, 1e-3, 1.0])
    low, high = centre - radius, centre + radius
    if varying == 1:
        centre = weights(rng, 1, 2, kind=kind)
        low[:, 1:], high[:, 1:] = centre, np.where(rng.random(2) < 0.5, centre, np.nextafter(centre, np.inf))
        fast = fast.in_box(low, high)
        assert fast.network.sizes[-1] == 1 or radius[0, 0] < 1e-6 or kind == "tiny"
    bounds = fresh_bounds(fast, low, high, [])
    places = sorted(value for value in bounds.lower if 0 < value < len(net.sizes))
    functionals = {value: rng.normal(size=(2, net.sizes[value])) for value in places}
    rows = {value: Rows(np.zeros(2, int), {value: a}, np.zeros(2)) for value, a in functionals.items()}
    found = {value: backward(bounds, row) for value, row in rows.items()}
    assert kind == "extreme" or all(np.isfinite(bound.least).all() for bound in found.values())
    for number in range(8):
        x = np.where(rng.random((1, 3)) < 0.5, low, high) if number < 5 else np.clip(rng.uniform(low, high), low, high)
        point = np.vectorize(Fraction, otypes=[object])(x)
        truth = fresh_bounds(exact, point, point, [])
        for value in places:
            values = truth.lower[value][0]
            assert (values == truth.upper[value][0]).all()
            for v, l, u in zip(values, bounds.lower[value][0], bounds.upper[value][0], strict=True):
                assert l <= v <= u
            for row, weight in enumerate(functionals[value]):
                total = sum(Fraction(w) * v for w, v in zip(weight.tolist(), values, strict=True))
                bound = found[value]
                assert not bound.least[row] > total
                if np.isfinite(bound.constant[row]) and np.isfinite(bound.coefficients[row]).all():
                    plane = sum(
                        Fraction(c) * p for c, p in zip(bound.coefficients[row].tolist(), point[0], strict=True)
                    )
                    assert plane + Fraction(bound.constant[row]) <= total


@pytest.mark.parametrize("seed", range(6))
def test_contexts_together_are_as_alone(tmp_path, seed):
    """Boxes with half-spaces, and functionals that take turns or are of one of them alone."""
    rng = np.random.default_rng(seed)
    model = Model.of(network(rng, "plain", tmp_path / "n.onnx"))
    low = rng.normal(size=(4, 3))
    high, normal = low + abs(rng.normal(size=(4, 3))), rng.normal(size=(4, 3))
    level = -(normal * rng.uniform(low, high)).sum(1)
    together = fresh_bounds(model, low, high, [], space=(normal, level))
    output = rng.normal(size=(6, model.network.sizes[model.network.output]))
    for number in range(4):
        one = slice(number, number + 1)
        alone = fresh_bounds(model, low[one], high[one], [], space=(normal[one], level[one]))
        for value, ends in alone.lower.items():
            assert np.allclose(together.lower[value][number], ends[0], rtol=1e-12, atol=1e-12)
        found = [
            backward(bounds, Rows(owner, {model.network.output: output}, np.zeros(6))).least[number]
            for bounds, owner in (
                (alone, np.zeros(6, int)),
                (together, np.full(6, number)),
                (together, np.arange(6) % 4),
            )
        ]
        assert np.allclose(found, found[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["plain", "extreme", "cancelling", "tiny"])
@pytest.mark.parametrize("seed", range(6))
def test_ranges_in_half_spaces(tmp_path, kind, seed):
    """Points of a box that are in a half-space, often on its border, have values where the bounds say."""
    rng = np.random.default_rng(seed)
    net = network(rng, kind, tmp_path / "n.onnx")
    fast, exact = Model.of(net), Model.of(net, exact=True)
    low, radius = rng.normal(size=(1, 3)), abs(rng.normal(size=(1, 3))) * rng.choice([1e-3, 1.0])
    high, normal = low + radius, weights(rng, 1, 3, kind=kind)
    level = -(normal * rng.uniform(low, high)).sum(1)
    bounds = fresh_bounds(fast, low, high, [], space=(normal, level))
    apart = fresh_bounds(fast, low, high, [])
    places = sorted(value for value in bounds.lower if value)
    assert all((bounds.upper[v] - bounds.lower[v] <= apart.upper[v] - apart.lower[v]).all() for v in places[:1])
    functionals = {value: rng.normal(size=(2, net.sizes[value])) for value in places}
    found = {
        value: backward(bounds, Rows(np.zeros(2, int), {value: a}, np.zeros(2))) for value, a in functionals.items()
    }
    inside = 0
    for number in range(40):
        x = rng.uniform(low, high) if number % 2 else np.where(rng.random((1, 3)) < 0.5, low, high)
        point = [Fraction(end) for end in np.clip(x, low, high)[0].tolist()]
        free = int(rng.integers(3))
        if number % 4 and normal[0, free]:  # onto the border
            others = sum(Fraction(normal[0, k]) * point[k] for k in range(3) if k != free)
            point[free] = -(Fraction(level[0]) + others) / Fraction(normal[0, free])
        total = sum(Fraction(g) * p for g, p in zip(normal[0].tolist(), point, strict=True)) + Fraction(level[0])
        ends = zip(low[0].tolist(), point, high[0].tolist(), strict=True)
        if total > 0 or not all(Fraction(l) <= p <= Fraction(u) for l, p, u in ends):
            continue
        inside += 1
        truth = fresh_bounds(exact, np.array([point], object), np.array([point], object), [])
        for value in places:
            values = truth.lower[value][0]
            for v, l, u in zip(values, bounds.lower[value][0], bounds.upper[value][0], strict=True):
                assert l <= v <= u
            for row, weight in enumerate(functionals[value]):
                exactly = sum(Fraction(w) * v for w, v in zip(weight.tolist(), values, strict=True))
                assert not found[value].least[row] > exactly
    assert inside > 3 and not bounds.crossed.any()


@pytest.mark.parametrize("seed", range(10))
def test_half_spaces_that_cancel(tmp_path, seed):
    """Of a half-space ``1e-10 x + (what cancels) <= 0`` ten billion are added, with their rounding."""
    rng = np.random.default_rng(seed)
    path = tmp_path / "n.onnx"
    path.write_bytes(model_of([("Relu", ["x"], ["y"], {})], (1, 4), {}, dtype=DOUBLE).SerializeToString())
    net = load_network(path)
    others, border = rng.normal(size=3), rng.uniform(-0.9, 0.9)
    low, high = np.array([[-1.0, *others]]), np.array([[1.0, *others]])
    normal = np.array([[1e-10, *rng.normal(size=3)]])
    level = -(normal[:, 1:] @ others + 1e-10 * border)
    bounds = fresh_bounds(Model.of(net), low, high, [], space=(normal, level))
    found = backward(bounds, Rows(np.zeros(1, int), {0: np.array([[-1.0, 0, 0, 0]])}, np.zeros(1)))
    rest = sum(Fraction(g) * Fraction(x) for g, x in zip(normal[0, 1:].tolist(), others.tolist(), strict=True))
    most = -(rest + Fraction(level[0])) / Fraction(1e-10)
    assert most <= -Fraction(found.least[0]) < most + Fraction(1, 10**3)


@pytest.mark.parametrize("seed", range(10))
def test_constants_of_inputs_that_hardly_vary(tmp_path, seed):
    """What they give cancels the bias, so that its rounding, and their last place, are most of what is left."""
    rng = np.random.default_rng(seed)
    a, c, few = rng.normal(size=(5, 4)), rng.normal(size=(4, 1)), rng.normal(size=4)
    a[0] *= 1e-16
    b = -(few @ a[1:])
    nodes = [("Gemm", ["x", "a", "b"], ["z"], {}), ("Relu", ["z"], ["r"], {}), ("Gemm", ["r", "c"], ["y"], {})]
    model = model_of(nodes, (1, 5), {"a": a, "b": b, "c": c}, dtype=DOUBLE)
    (tmp_path / "n.onnx").write_bytes(model.SerializeToString())
    net = load_network(tmp_path / "n.onnx")
    low, high = np.array([[-1.0, *few]]), np.array([[1.0, *np.nextafter(few, np.inf)]])
    fast, exact = Model.of(net).in_box(low, high), Model.of(net, exact=True)
    assert fast.network.sizes[-1] == 1
    bounds = fresh_bounds(fast, low, high, [])
    pushed = backward(
        bounds, Rows(np.zeros(8, int), {net.names["z"]: np.concatenate([np.eye(4), -np.eye(4)])}, np.zeros(8))
    )
    for number in range(32):
        x = np.where((number >> np.arange(5)) & 1, high, low)
        point = np.vectorize(Fraction, otypes=[object])(x)
        truth = fresh_bounds(exact, point, point, [])
        for value in (net.names["z"], net.output):
            assert (bounds.lower[value] <= truth.lower[value]).all() and (
                truth.upper[value] <= bounds.upper[value]
            ).all()
        z = truth.lower[net.names["z"]][0]
        assert (pushed.least <= np.concatenate([z, -z])).all()


def lines_between(step: Activation, lower: np.ndarray, upper: np.ndarray, alpha: np.ndarray) -> RangeLines:
    """Lines of an activation in ranges."""
    return lines_of(step, (lower, upper, np.maximum(abs(lower), abs(upper))), alpha, NumberSystem())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["bend", "clip"])
def test_lines_hold_exactly(name, seed):
    """Lines with any slope, at the ends, the bends and between, in ranges of all sizes."""
    rng = np.random.default_rng(seed)
    l = rng.normal(size=(1, 300)) * 10.0 ** rng.integers(-300, 200, (1, 300))
    u = np.maximum(l, l + abs(rng.normal(size=(1, 300))) * 10.0 ** rng.integers(-300, 200, (1, 300)))
    alpha = rng.integers(0, 256, (1, 300)).astype(np.uint8)
    for parameters in (
        ((0.0,), (0.3,), (-1.0,), (2.5,)) if name == "bend" else ((-1.0, 1.0), (0.0, np.inf), (-np.inf, 1e-9))
    ):
        lines = lines_between(Activation(1, 0, name, parameters), l, u, alpha)
        for number in range(300):
            low, high = Fraction(l[0, number]), Fraction(u[0, number])
            for z in (low, high, min(max(Fraction(0), low), high), (low + high) / 2,
                      *(min(max(Fraction(p), low), high) for p in parameters if np.isfinite(p))):  # fmt: skip
                if name == "bend":
                    f = z if z >= 0 else Fraction(parameters[0]) * z
                else:
                    f = min(max(z, parameters[0]), parameters[1])
                slopes = [part[0, number] for part in list(vars(lines).values())[:4]]
                if np.isfinite(slopes).all():
                    s, o, t, p = map(Fraction, slopes)
                    assert s * z + o <= f <= t * z + p


def tanh(z: Fraction) -> Decimal:
    getcontext().prec = 60
    power = (2 * Decimal(z.numerator) / Decimal(z.denominator)).exp()
    return (power - 1) / (power + 1)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_lines_of_tanh(sigmoid):
    """Against sixty digits, in narrow and wide ranges, with all slopes."""
    rng = np.random.default_rng(0)
    l = rng.normal(size=(1, 400)) * 10.0 ** rng.integers(-12, 2, (1, 400))
    u = l + abs(rng.normal(size=(1, 400))) * 10.0 ** rng.integers(-12, 2, (1, 400))
    alpha = np.where(rng.random((1, 400)) < 0.5, 255, rng.integers(0, 255, (1, 400))).astype(np.uint8)
    step = Activation(1, 0, "tanh", (0.5, 0.5, 0.5) if sigmoid else (1.0, 1.0, 0.0))
    lines, loose = lines_between(step, l, u, alpha), 0
    for number in range(400):
        s, o, t, p = (Fraction(part[0, number]) for part in list(vars(lines).values())[:4])
        gaps = []
        for part in np.linspace(0, 1, 9):
            z = Fraction(l[0, number]) + Fraction(part) * (Fraction(u[0, number]) - Fraction(l[0, number]))
            f = Fraction(tanh(z / 2) / 2 + Decimal("0.5")) if sigmoid else Fraction(tanh(z))
            assert s * z + o <= f <= t * z + p
            gaps.append(min(f - s * z - o, t * z + p - f))
        loose += min(gaps) > 1e-3
    assert loose < 40


TANHS = {"Tanh": (1.0, 1.0, 0.0), "Sigmoid": (0.5, 0.5, 0.5)}


def smooth(name: str, z: float) -> Fraction:
    """A sigmoid or tanh to more digits than a double has."""
    value = tanh(Fraction(z) / (2 if name == "Sigmoid" else 1))
    return Fraction(value / 2 + Decimal("0.5")) if name == "Sigmoid" else Fraction(value)


@pytest.mark.parametrize("name", TANHS)
def test_images_of_tanh(tmp_path, name):
    """Of ranges of very different widths, near zero and far in the tails."""
    rng = np.random.default_rng(3)
    centre = rng.choice([-1.0, 1.0], (1, 200)) * 10.0 ** rng.uniform(-9, 2.8, (1, 200))
    radius = rng.choice([1e-15, 1e-9, 1e-6, 1e-3, 0.1, 1.0, 10.0, 1e3], (1, 200)) / 2
    model = model_of([(name, ["x"], ["y"], {})], (1, 200), dtype=DOUBLE)
    (tmp_path / "n.onnx").write_bytes(model.SerializeToString())
    network = load_network(tmp_path / "n.onnx")
    bounds = fresh_bounds(Model.of(network), centre - radius, centre + radius, [])
    for number in range(200):
        assert Fraction(bounds.lower[network.output][0, number]) <= smooth(name, (centre - radius)[0, number])
        assert Fraction(bounds.upper[network.output][0, number]) >= smooth(name, (centre + radius)[0, number])


@pytest.mark.parametrize("name", TANHS)
def test_lines_of_tanh_touch(name):
    """They are not just the image's ends: a tangent's or a chord's distance from the function is of second order."""
    lower = np.array([[-3.0, -1.0, -0.01, 0.5, 2.0]])
    for width in (1e-1, 1e-2, 1e-3):
        upper = lower + width
        lines = lines_between(Activation(1, 0, "tanh", TANHS[name]), lower, upper, np.array([[ADAPTIVE]]))
        slope, offset = lines.upper_slope - lines.lower_slope, lines.upper_offset - lines.lower_offset
        assert (np.maximum(slope * lower, slope * upper) + offset <= width**2 + 1e-11).all()


@pytest.mark.parametrize("name", ["Relu", *TANHS])
@pytest.mark.parametrize("reach", [800.0, 1e6, 1e308])
def test_far_out_lines_are_true_or_no_numbers(name, reach):
    lower, upper = np.array([[-reach, -reach, 0.5 * reach, 0.0]]), np.array([[-0.5 * reach, reach, reach, reach]])
    step = Activation(1, 0, "tanh", TANHS[name]) if name in TANHS else Activation(1, 0, "bend", (0.0,))
    lines = lines_between(step, lower, upper, np.array([[ADAPTIVE]]))
    for z in (lower, upper):
        scale, height, shift = TANHS.get(name, (1.0, 1.0, 0.0))
        value = np.maximum(z, 0) if name == "Relu" else shift + height * np.tanh(scale * z)
        with np.errstate(all="ignore"):
            assert not (lines.lower_slope * z + lines.lower_offset > value).any()
            assert not (lines.upper_slope * z + lines.upper_offset < value).any()


QUOTIENTS = {
    "mean": (one("ReduceMean", (1, 3), axes=[1]), lambda x: [sum(x) / 3]),
    "div": (one("Div", (1, 3), (np.array([3.0, 7.0, 11.0], np.float32),)), lambda x: [x[0] / 3, x[1] / 7, x[2] / 11]),
    "pool": (one("AveragePool", (1, 1, 3), kernel_shape=[3]), lambda x: [sum(x) / 3]),
}


@pytest.mark.parametrize("name", QUOTIENTS)
def test_quotients(tmp_path, name):
    """What is rounded in a constant is in the range."""
    model, truth = QUOTIENTS[name]
    (tmp_path / "n.onnx").write_bytes(model.SerializeToString())
    network = load_network(tmp_path / "n.onnx")
    for x in np.random.default_rng(1).normal(size=(200, 1, 3)):
        bounds = fresh_bounds(Model.of(network), x, x, [])
        found = backward(
            bounds, Rows(np.zeros(1, int), {network.output: np.ones((1, network.sizes[network.output]))}, np.zeros(1))
        )
        values = truth([Fraction(v) for v in x[0].tolist()])
        assert found.least[0] <= sum(values)
        for v, l, u in zip(values, bounds.lower[network.output][0], bounds.upper[network.output][0], strict=True):
            assert l <= v <= u


def test_batch_normalization(tmp_path):
    """Against forty digits."""
    getcontext().prec = 40
    numbers = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)
    numbers[3] = abs(numbers[3])
    model = one("BatchNormalization", (1, 3), tuple(numbers), epsilon=1e-5)
    (tmp_path / "n.onnx").write_bytes(model.SerializeToString())
    network = load_network(tmp_path / "n.onnx")
    scale, shift, mean, variance = ([Decimal(float(x)) for x in row] for row in numbers)
    for x in np.random.default_rng(1).normal(size=(200, 1, 3)):
        bounds = fresh_bounds(Model.of(network), x, x, [])
        for i in range(3):
            deviation = (variance[i] + Decimal(float(np.float32(1e-5)))).sqrt()
            truth = (Decimal(x[0, i]) - mean[i]) / deviation * scale[i] + shift[i]
            assert Decimal(bounds.lower[network.output][0, i]) <= truth <= Decimal(bounds.upper[network.output][0, i])


def test_boxes_are_rounded_outward():
    ends = [
        Fraction(1, 10),
        Fraction(-1, 10),
        Fraction(1, 2),
        Fraction(10) ** 400,
        -(Fraction(10) ** 400),
        Fraction(1, 10**400),
    ]
    low, high = NumberSystem().box(ends, ends)
    for l, end, u in zip(low[0].tolist(), ends, high[0].tolist(), strict=True):
        assert l <= end <= u
    assert low[0, 2] == high[0, 2] == 0.5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nothing_is_proved_with_what_is_no_number(tmp_path, value):
    (tmp_path / "n.onnx").write_bytes(one("Relu", (1, 3)).SerializeToString())
    network = load_network(tmp_path / "n.onnx")
    low, high = np.array([[0.0, value, -1.0]]), np.array([[1.0, value, 1.0]])
    bounds = fresh_bounds(Model.of(network), low, high, [])
    found = backward(bounds, Rows(np.zeros(1, int), {network.output: np.ones((1, 3))}, np.array([5.0])))
    assert not np.isfinite(found.least).any()
    fine = fresh_bounds(Model.of(network), np.zeros((1, 3)), np.ones((1, 3)), [])
    found = backward(fine, Rows(np.zeros(1, int), {network.output: np.array([[value, 1.0, 1.0]])}, np.array([5.0])))
    assert not np.isfinite(found.least).any()
    nothing = Fact(network.names["x"], np.array([0]), np.array([0]), np.array([-np.inf]), np.array([np.inf]))
    assert not fine.narrowed(3, [nothing]).crossed.any()


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("seed", "inputs"), [(0, 1), (1, 3), (2, 20), (3, 48), (4, 100)])
def test_the_best_multiplier_of_a_half_space_is_found_among_any_number_of_inputs(seed, inputs, exact):
    """A least value over a box is best where some coefficient of the sum changes its sign, or at zero."""
    rng = np.random.default_rng(seed)
    b, g = (np.rint(rng.normal(0, 8, (6, inputs))) for _ in range(2))
    lower, upper = -rng.integers(0, 5, (6, inputs)) + 0.0, rng.integers(0, 5, (6, inputs)) + 0.0
    level = np.rint(rng.normal(0, 3 * inputs**0.5, (6, 1)))
    parts = [NumberSystem(exact).numbers(part) for part in (b, g, level, lower, upper)]
    found = np.maximum(best_multipliers(*parts), 0).astype(float)[:, 0]
    improved = 0
    for row in range(6):

        def least(m, row=row):
            c = b[row] + m * g[row]
            return float(np.where(c > 0, c * lower[row], c * upper[row]).sum() + m * level[row, 0])

        with np.errstate(all="ignore"):
            tried = [-x / y for x, y in zip(b[row], g[row], strict=True) if y and -x / y > 0]
        best = max([least(0.0), *map(least, tried)])
        assert max(least(0.0), least(found[row])) == pytest.approx(best, rel=1e-12, abs=1e-12)
        improved += best > least(0.0)
    assert improved or inputs == 1
