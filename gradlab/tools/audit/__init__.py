"""An audit of a user's own actor loss: where its gradient comes from, and where it is lost.

    ∂L/∂θ = Σ over paths from θ to L

One evaluation of the loss is enough for most of it. Calls of actor, model and critic are seen from
outside (`calls`); gates in the graph let a backward pass follow some paths alone (`gradients`);
tags follow every value that depends on θ, also where no gradient does (`tags`). A value that
depends on θ, moves the loss and has no gradient is a lost path.
"""
