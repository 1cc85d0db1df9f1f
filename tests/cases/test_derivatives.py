"""Faults of derivatives that were met elsewhere: named where they are, and not where they are not.

A rod whose backward pass by hand leaves out the term v·v of its constraint.

Right: `rod(whole=False)` is named in ∂s′/∂s, at the columns of the velocities alone, and in no
∂s′/∂a; `rod(whole=True)` passes.

A ball that bounces within a step, with and without the time of its impact.

Right: every step's derivatives are its own, but without the time of impact (`cushion(plain)`) those
of the return have the wrong sign: a start's velocity changes when the ball bounces, which no
derivative of a step sees. A certificate sends to `gradlab measure`, which finds the jump.

With it, and without friction (`cushion(free)`), the ball runs far off: the return bends within an
update, and gradient and return are of one problem.

Checkpointed substeps that read a clock, which has moved on when they are computed again.

Right: reverse mode of `plate(by_argument=False)` is wrong, and named by differences; its forward
mode, which recomputes nothing, equals the differences and is not blamed. `plate(by_argument=True)`
passes.

A model that was fitted to the action before the one that moved the state.

Right: its ∂s′/∂a is wrong and has the largest error of all blocks; fitted to the action itself the
same model's error is a small share of that.

Friction whose backward pass by hand has ones for the identity, or lacks a term.

Right: `slide("ones")` and `slide("chain")` are named in ∂s′/∂s; `slide("whole")` passes.

A planner layer whose last step, the one that is attached, is one of its solver.

Right: a damped Newton step is a half of the derivative (`newton(0.5)` is named, `newton(1.0)`
passes); a whole Gauss-Newton step is another derivative where residuals stay (`gauss_newton` is
named); by the implicit function theorem with the whole Hessian it is right (`implicit` passes). No
warning of torch's own reaches the user.

Derivatives by hand of a clipped command that reads its limit from another actuator's slot.

Right: `cart(slot=1)` is named in ∂s′/∂s, and with it in ∂r/∂s, where the fan's command is cut off;
`cart(slot=2)` passes.
"""

import warnings

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import gradlab
from gradlab.systems import Certificate, Linearization, Transition
from tests.certification.steps import wrong

DT = 0.05
HIGH = torch.tensor([2.0, 2.0, 0.3]).double()
DAMPING, GAIN, COUPLING, FAN, LOSS = 0.5, 1.5, 0.4, 3.0, 1.2


class Cart:
    state_dim, action_dim, noise_dim, differentiable = 2, 3, 0, False

    def __init__(self, slot):
        self.slot = slot

    def step(self, state, action, noise=None):
        x, v = state.unbind(1)
        drive, tilt, fan = action.clamp(-HIGH, HIGH).unbind(1)
        force = GAIN * drive + COUPLING * tilt * x + fan * (FAN - LOSS * v)
        v = v + DT * (force - DAMPING * v)
        x = x + DT * v
        return Transition(torch.stack([x, v], 1), -(x**2) - 0.1 * v**2, torch.ones(len(x)).bool())

    def linearize(self, state, action, noise=None):
        x, v = state.unbind(1)
        tilt = action[:, 1].clamp(-HIGH[1], HIGH[1])
        free = (action.abs() < HIGH).to(state)
        fan = action[:, 2].clamp(-HIGH[self.slot], HIGH[self.slot])
        by_state = torch.stack([DT * COUPLING * tilt, 1 - DT * (LOSS * fan + DAMPING)], 1)
        gains = torch.stack([GAIN + 0 * x, COUPLING * x, FAN - LOSS * v], 1)
        by_action = DT * free * gains
        A = torch.stack([torch.tensor([1.0, 0.0]).to(state) + DT * by_state, by_state], 1)
        B = torch.stack([DT * by_action, by_action], 1)
        slope = self.step(state, action).state * torch.tensor([-2.0, -0.2]).to(state)
        r_s, r_a = ((slope[:, None] @ J)[:, 0] for J in (A, B))
        return Linearization(A, B, r_s, r_a, Certificate.exact(state))

    def sample_noise(self, n, generator, dtype=torch.float64):
        return torch.zeros(n, 0, dtype=dtype)


def cart(slot):
    def starts(n, generator):
        return torch.randn(n, 2, generator=generator, dtype=torch.float64)

    return gradlab.Task(
        "cart", Cart(slot), None, starts, discount=0.97, horizon=10, action_limit=(2.0, 2.0, 2.0)
    )


START = torch.Generator().manual_seed(0)
INPUTS = torch.randn(64, 2, generator=START, dtype=torch.float64)


def _two(y, x):
    """Two residuals in two unknowns, which a solution makes 0."""
    (a, b), (p, q) = y.unbind(-1), x.unbind(-1)
    return torch.stack([a + 0.3 * torch.sin(b) - p, b + 0.2 * a * a - q], -1)


def _three(y, x):
    """One more, so that some stay."""
    (a, b), (p, q) = y.unbind(-1), x.unbind(-1)
    return torch.cat([_two(y, x), (0.5 * (a - b) - 0.1 * p * q)[..., None]], -1)


def _jacobian(residual, y, x):
    with torch.enable_grad():
        z = y.detach().requires_grad_()
        rows = residual(z, x.detach()).unbind(-1)
        J = [torch.autograd.grad(r.sum(), z, retain_graph=True)[0] for r in rows]
    return torch.stack(J, 1)


def _step(residual, y, x, size):
    """A step of least squares from y, attached to x by its residuals alone."""
    J, r = _jacobian(residual, y, x), residual(y.detach(), x)
    return y.detach() - size * torch.linalg.solve(J.mT @ J, J.mT @ r[..., None])[..., 0]


def _solved(residual, x):
    y = torch.zeros_like(x).detach()
    for _ in range(25):
        y = _step(residual, y, x.detach(), 1.0)
    return y


def newton(last):
    return lambda x: _step(_two, _solved(_two, x), x, last)


def gauss_newton(x):
    return _step(_three, _solved(_three, x), x, 1.0)


def implicit(x):
    with torch.enable_grad():
        z = _solved(_three, x).requires_grad_()
        (g,) = torch.autograd.grad(_three(z, x).square().sum(), z, create_graph=True)
        rows = [torch.autograd.grad(row.sum(), z, retain_graph=True)[0] for row in g.unbind(-1)]
    H, g = torch.stack(rows, 1).detach(), g - g.detach()  # 0, with the slope of x alone
    return z.detach() - torch.linalg.solve(H, g[..., None])[..., 0]


FRICTION_DT, MOST, SLIP = 0.02, 0.6, 0.3
NORMAL = torch.tensor([0.0, 0.6, 0.8]).double()
ALONG = torch.outer(NORMAL, NORMAL)


class Friction(torch.autograd.Function):
    """−m(|v_t|) v_t / |v_t|, m = MOST tanh(· / SLIP), of the tangential velocity."""

    @staticmethod
    def forward(ctx, v, kind):
        tangential = v - v @ ALONG
        speed = tangential.norm(dim=1, keepdim=True) + 1e-9
        ctx.kind = kind
        ctx.save_for_backward(tangential, speed)
        return -MOST * torch.tanh(speed / SLIP) * tangential / speed

    @staticmethod
    def backward(ctx, gradient):
        tangential, speed = ctx.saved_tensors
        one = torch.ones(3, 3) if ctx.kind == "ones" else torch.eye(3)
        d = tangential / speed
        along = (gradient * d).sum(1, keepdim=True) * d
        out = -MOST * torch.tanh(speed / SLIP) / speed * (gradient - along)
        if ctx.kind != "chain":
            out = out - MOST / SLIP * (1 - torch.tanh(speed / SLIP) ** 2) * along
        return out @ (one.to(out) - ALONG), None


def slide(kind):
    pull = torch.tensor([0.0, 0.4, -0.3]).double()

    def step(state, action):
        p, v = state[:, :3], state[:, 3:]
        push = torch.nn.functional.pad(2 * torch.tanh(action), (0, 1))
        v = v + FRICTION_DT * (pull.to(v) + push + 3 * Friction.apply(v, kind))
        p = p + FRICTION_DT * v
        return torch.cat([p, v], 1), -(p[:, :2] ** 2).sum(1) - 0.01 * (action**2).sum(1)

    def starts(n, generator):
        scale = torch.tensor([1.0, 1, 1, 0.5, 0.5, 0.5]).double()
        return scale * torch.randn(n, 6, generator=generator, dtype=torch.float64)

    system = gradlab.systems.from_function(step, 6, 2)
    return gradlab.Task("slide", system, None, starts, discount=0.98, horizon=20)


SPRING_DT, FEATURES = 0.1, 200


def step(state, action):
    x, v = state.unbind(1)
    v = v + SPRING_DT * (2 * torch.tanh(action[:, 0]) - 1.5 * torch.sin(x) - 0.3 * v)
    x = x + SPRING_DT * v
    return torch.stack([x, v], 1), -((x - 0.8) ** 2) - 0.05 * v**2 - 0.01 * action[:, 0] ** 2


def starts(n, generator):
    return torch.randn(n, 2, generator=generator, dtype=torch.float64)


def _recorded(generator, episodes=64, length=60):
    s, a = starts(episodes, generator), torch.zeros(episodes, 1).double()
    states, actions = [s], []
    for _ in range(length):
        a = 0.9 * a + 0.45 * torch.randn(episodes, 1, generator=generator, dtype=torch.float64)
        s, _ = step(s, a)
        actions.append(a)
        states.append(s)
    return torch.stack(states), torch.stack(actions)


def spring(late):
    """A task whose model is linear in random features of state and action, by least squares."""
    generator = torch.Generator().manual_seed(0)
    s, a = _recorded(generator)
    weights, offsets = torch.randn(4, FEATURES, generator=generator).double().split([3, 1])

    def features(s, a):
        z = torch.cat([s, a], 1)
        return torch.cat([torch.tanh(0.5 * (z @ weights + offsets)), z], 1)

    given = features(s[1:-1].flatten(0, 1), (a[:-1] if late else a[1:]).flatten(0, 1))
    change = (s[2:] - s[1:-1]).flatten(0, 1)
    ridge = 1e-3 * torch.eye(given.shape[1]).double()
    fitted = torch.linalg.solve(given.T @ given + ridge, given.T @ change)

    def model(state, action):
        return state + features(state, action) @ fitted, step(state, action)[1]

    systems = (gradlab.systems.from_function(each, 2, 1) for each in (step, model))
    return gradlab.Task("spring", *systems, starts, discount=0.97, horizon=12, exploration=(1.0,))


class World:
    def __init__(self, by_argument):
        self.clock, self.by_argument = 0.0, by_argument

    def substep(self, x, a, at=None):
        lamp = torch.cos(torch.tensor(3.0 * (self.clock if at is None else at), dtype=x.dtype))
        T, q = x.unbind(1)
        q = q + DT * (lamp * torch.tanh(a[:, 0]) * (1 + 0.5 * T) - q)
        return torch.stack([T + DT * (q - 0.2 * T**3), q], 1)

    def step(self, state, action):
        self.clock, x = 0.0, state
        for k in range(8):
            at = (k * DT,) if self.by_argument else ()
            x = checkpoint(self.substep, x, action, *at, use_reentrant=False)
            self.clock += DT
        return x, -((x[:, 0] - 0.5) ** 2) - 0.01 * action[:, 0] ** 2


def plate(by_argument):
    def starts(n, generator):
        return 0.5 * torch.randn(n, 2, generator=generator, dtype=torch.float64)

    system = gradlab.systems.from_function(World(by_argument).step, 2, 1)
    return gradlab.Task("plate", system, None, starts, discount=0.95, horizon=10)


BOUNCE_DT = 0.1


def plain(state, action):
    x, v = state.unbind(1)
    v = 0.9 * v + BOUNCE_DT * torch.tanh(action[:, 0])
    v = torch.where((x + BOUNCE_DT * v < 0) & (v < 0), -v, v)
    x = x + BOUNCE_DT * v
    return torch.stack([x, v], 1), -((x - 1.0) ** 2)


def impact(state, action, kept=0.9):
    x, v = state.unbind(1)
    v = kept * v + BOUNCE_DT * torch.tanh(action[:, 0])
    x = x + BOUNCE_DT * v
    side = torch.where((x < 0) & (v < 0), -1.0, 1.0)
    return torch.stack([side * x, side * v], 1), -((side * x - 1.0) ** 2)


def free(state, action):
    return impact(state, action, kept=1.0)


def cushion(step):
    def starts(n, generator):
        x, v = torch.rand(2, n, generator=generator, dtype=torch.float64)
        return torch.stack([0.2 + 0.6 * x, -1.0 - v], 1)

    system = gradlab.systems.from_function(step, 2, 1)
    return gradlab.Task("cushion", system, None, starts, discount=0.99, horizon=12)


def policy():
    torch.manual_seed(0)
    layers = torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)
    return torch.nn.Sequential(*layers).double()


ROD_DT, GRAVITY = 0.02, torch.tensor([0.0, -9.81]).double()


def acceleration(p, v, f, w):
    """That keeps the bob on the rod, λ from J a + w·w = −20 ċ − 100 c."""
    c, rate = 0.5 * ((p * p).sum(1) - 1), (p * v).sum(1)
    lam = -((p * f).sum(1) + (w * w).sum(1) + 20 * rate + 100 * c) / (p * p).sum(1)
    return f + lam[:, None] * p


class Rod(torch.autograd.Function):
    @staticmethod
    def forward(ctx, p, v, f, whole):
        ctx.whole = whole
        ctx.save_for_backward(p, v, f)
        return acceleration(p, v, f, v)

    @staticmethod
    def backward(ctx, gradient):
        with torch.enable_grad():
            p, v, f = (x.detach().requires_grad_() for x in ctx.saved_tensors)
            a = acceleration(p, v, f, v if ctx.whole else v.detach())
            return *torch.autograd.grad(a, (p, v, f), gradient), None


def rod(whole):
    def step(state, action):
        p, v = state[:, :2], state[:, 2:]
        tangent = torch.stack([-p[:, 1], p[:, 0]], 1)
        force = GRAVITY + 5 * torch.tanh(action) * tangent - 0.1 * v
        v = v + ROD_DT * Rod.apply(p, v, force, whole)
        p = p + ROD_DT * v
        reward = p[:, 1] - 0.05 * (v * v).sum(1) - 0.01 * action[:, 0] ** 2
        return torch.cat([p, v], 1), reward

    def starts(n, generator):
        angle = 6.28 * torch.rand(n, generator=generator, dtype=torch.float64)
        speed = torch.randn(n, generator=generator, dtype=torch.float64)
        c, s = angle.cos(), angle.sin()
        return torch.stack([c, s, -speed * s, speed * c], 1)

    system = gradlab.systems.from_function(step, 4, 1)
    return gradlab.Task("rod", system, None, starts, discount=0.98, horizon=20)


@pytest.mark.parametrize(
    ("task", "blocks"),
    [
        (cart(slot=1), {"A", "r_s"}), (cart(slot=2), set()),
        (rod(whole=False), {"A", "r_s"}), (rod(whole=True), set()),
        (slide("ones"), {"A", "r_s"}), (slide("chain"), {"A", "r_s"}), (slide("whole"), set()),
        (plate(by_argument=False), {"A", "B", "r_s", "r_a"}), (plate(by_argument=True), set()),
    ],
    ids=lambda each: each.name if isinstance(each, gradlab.Task) else "",
)  # fmt: skip
def test_a_derivative_is_named_where_it_is_wrong_and_passes_where_it_is_right(task, blocks):
    certificate = gradlab.certify(task, samples=512)
    assert {each.block for each in wrong(certificate)} == blocks, certificate
    assert certificate.shown == (not blocks)


def test_a_term_of_velocities_is_named_at_their_columns():
    entries = gradlab.certify(rod(whole=False), samples=512).table("entries")
    assert set(entries[entries["code"] == "wrong"]["column"]) == {"s2", "s3"}


@pytest.mark.parametrize(
    ("function", "sound"),
    [(newton(0.5), False), (newton(1.0), True), (gauss_newton, False), (implicit, True)],
)
def test_a_layer_is_judged_by_its_last_step_and_without_a_warning_of_torch_s(function, sound):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = gradlab.systems.from_function(lambda s, a: (function(a), 0 * a[:, 0]), 2, 2)
        certificate = gradlab.certify(layer, torch.zeros(len(INPUTS), 2), INPUTS)
    assert certificate.shown == sound, certificate
    if function is not gauss_newton and not sound:
        assert abs(certificate.table("entries")["ratio"] - 0.5).max() < 1e-6


def test_forward_mode_of_a_step_with_a_moving_clock_is_right_and_not_blamed():
    task, generator = plate(by_argument=False), torch.Generator().manual_seed(0)
    s = task.starts(32, generator)
    a, u = torch.randn(2, 32, 1, generator=generator, dtype=torch.float64)
    _, along = torch.func.jvp(lambda a: task.simulator.step(s, a).state, (a,), (u,))
    h = 1e-5
    up, down = (task.simulator.step(s, a + sign * h * u).state for sign in (1, -1))
    torch.testing.assert_close(along, (up - down) / (2 * h), rtol=1e-6, atol=1e-8)
    said = str([each.said for each in gradlab.certify(task, samples=256).findings])
    assert "jvp" not in said and "orward mode" not in said


@pytest.mark.parametrize("step", [plain, impact, free])
@pytest.mark.parametrize("samples", [512, 2048])
def test_where_rollouts_bounce_a_right_step_sends_to_measure(step, samples):
    certificate = gradlab.certify(cushion(step), samples=samples)
    assert certificate.shown and "measure" in certificate.recommendation.field("next")


def test_without_its_time_of_impact_the_return_has_another_sign_than_its_derivative():
    """What the certificate cannot see, by autograd and by differences over .15 of velocity."""

    def returns(step, s):
        total, a = 0.0, torch.zeros(len(s), 1).double()
        for t in range(12):
            s, r = step(s, a)
            total = total + 0.99**t * r
        return total

    agree = {}
    for step in (plain, impact):
        s = cushion(step).starts(2000, torch.Generator().manual_seed(0)).requires_grad_()
        (slope,) = torch.autograd.grad(returns(step, s).sum(), s)
        move = torch.tensor([0.0, 0.15]).double()
        change = returns(step, s.detach() + move) - returns(step, s.detach() - move)
        agree[step] = float((slope[:, 1] * change > 0).double().mean())
    assert agree[plain] < 0.6 and agree[impact] > 0.95


@pytest.mark.slow
def test_measure_names_the_jump_and_no_other_problem_where_a_ball_flies_off():
    found = {}
    for step in (plain, free):
        found[step] = gradlab.measure(
            cushion(step), policy(), lambda s, a: 0 * s[:, 0], horizon=2, starts=64,
            judges=64, rehearse=False,
        )  # fmt: skip
    broken, smooth = found.values()
    assert broken.truth["status"] == "jumps" and broken.jumps.kind == "harmful"
    reasons = [each.reason for each in smooth.realised.disagreements(smooth.table(), smooth.jumps)]
    assert set(reasons) <= {"step"}


def test_a_model_of_the_action_before_is_wrong_in_the_action_s_block():
    errors = {}
    for late in (True, False):
        task = spring(late)
        torch.manual_seed(0)
        policy = torch.nn.Linear(2, 1).double()
        starts = task.starts(64, torch.Generator().manual_seed(0))
        run = gradlab.compare_jacobians(task.simulator, task.prior, starts, policy, horizon=6)
        rows = run.rows("block", quantity="relative error")
        errors[late] = dict(zip(rows["block"], rows["value"], strict=True))
    assert max(errors[True], key=errors[True].get) == "B"
    assert errors[False]["B"] < 0.5 * errors[True]["B"]
