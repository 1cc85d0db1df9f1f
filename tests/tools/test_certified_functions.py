"""Differentiable maps that are no simulators, with derivatives that are theirs and that are not."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from gradlab.cli.program import main
from gradlab.errors import InputError
from gradlab.tools.certify.compute import certify_function

Q = torch.tensor([[2.0, 0.3], [0.3, 1.0]], dtype=torch.float64)


def solved(x, steps=200, through=None):
    """argmin_y ½ yᵀ Q y − xᵀ y by descent, differentiated through the last `through` steps."""
    y = torch.zeros_like(x)
    for k in range(steps):
        y = y - 0.4 * (y @ Q - x)
        if through is not None and k == steps - 1 - through:
            y = y.detach()
    return y


def shaded(x):
    """A renderer of one soft edge."""
    pixels = torch.linspace(-1, 1, 5, dtype=torch.float64)
    return torch.sigmoid((pixels - x[:, :1]) * (4 + x[:, 1:] ** 2))


def inputs(n=64):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("function", [solved, shaded])
def test_sound_maps_are_sound(function):
    certificate = certify_function(function, inputs())
    assert certificate.passed, certificate.sentences
    assert set(certificate.table()["block"]) == {"y"}


def test_inputs_at_which_a_map_is_not_finite_are_named_as_inputs():
    certificate = certify_function(lambda x: x[:, :1].sqrt() + x[:, 1:], inputs(200))
    lost = int((inputs(200)[:, 0] < 0).sum())
    assert f"at the {200 - lost} of 200 inputs where it is finite." in certificate.headline
    (text,) = (each.sentence for each in certificate.findings if each.kind == "not finite")
    assert text.startswith(f"The function is not finite at {lost} of 200 inputs (output y0): all ")
    assert "x0 < 0" in text and "action" not in text


class Outside(torch.autograd.Function):
    """Q⁻¹ x by NumPy, as layers of convex solvers are: no batches of cotangents pass through it."""

    @staticmethod
    def forward(ctx, x, share):
        ctx.share = share
        return torch.from_numpy(np.linalg.solve(Q.numpy(), x.detach().numpy().T).T.copy())

    @staticmethod
    def backward(ctx, g):
        return ctx.share * torch.from_numpy(
            np.linalg.solve(Q.numpy().T, g.numpy().T).T.copy()
        ), None


@pytest.mark.parametrize(("share", "sound"), [(1.0, True), (0.99, False)])
def test_a_solver_outside_of_torch_is_certified_and_has_its_page(share, sound, tmp_path):
    certificate = certify_function(lambda x: Outside.apply(x, share), inputs())
    assert certificate.passed == sound, certificate.sentences
    page = certificate.save(tmp_path / "solver.html").read_text()
    assert "∂y/∂x" in page and "∂s" not in page and "inputs examined" in page


def test_a_gradient_through_the_last_step_of_a_solver_is_no_derivative():
    certificate = certify_function(lambda x: solved(x, through=1), inputs(), name="mpc")
    assert not certificate.passed
    wrong = [each for each in certificate.findings if each.severity == "wrong"]
    # ∂y/∂x of one step is .4 I, of the solution Q⁻¹ = [[.52, −.16], [−.16, 1.05]].
    assert wrong and "∂y/∂x" in wrong[0].sentence and "∂s" not in " ".join(certificate.sentences)


BAD: dict[str, tuple[Any, Any, str]] = {
    "few": (shaded, inputs(8), r"N ≥ 16"),
    "one number": (lambda x: x.sum(), inputs(), r"expected \[2, m\]"),
    "detached": (lambda x: x.detach(), inputs(), "is something detached"),
    "no numbers": (shaded, "x", "no numbers"),
    "fails": (lambda x: x @ torch.ones(3, 3), inputs(), "the function failed"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_map_is_refused(case):
    function, x, words = BAD[case]
    with pytest.raises(InputError, match=words):
        certify_function(function, x)


def test_a_file_s_map_is_certified(tmp_path, capsys):
    file = tmp_path / "layer.py"
    file.write_text("import torch\ndef made():\n    return torch.tanh, torch.randn(32, 3)\n")
    assert main(["certify", f"{file}:made", "--function", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] and "--function" in document["facts"]["command"]
    file.write_text("def made():\n    return 3\n")
    assert main(["certify", f"{file}:made", "--function"]) == 2
    assert "(function, inputs)" in capsys.readouterr().err
