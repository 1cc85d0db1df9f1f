"""A choice of horizon and weights from what was measured, and how sure it is.

Three criteria: gain, what one small step adds to the return, which decides where the truth is the
gradient of the return (`reports/choice`); the mean squared error, for plain steps, which
decides under other truths; the direction (expected cosine of one batch), for optimisers that drop
the scale, as Adam. Without a truth realised gains are compared. All from a saved profile, without
torch.
"""

from gradlab.choice.choosing import choice_of
from gradlab.choice.values import Best, Choice

__all__ = ["Best", "Choice", "choice_of"]
