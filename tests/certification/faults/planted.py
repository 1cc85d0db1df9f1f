"""The forty."""

from tests.certification.faults.behaviour import BEHAVIOUR
from tests.certification.faults.contacts import CONTACTS
from tests.certification.faults.jacobians import JACOBIANS
from tests.certification.faults.rewards import REWARDS
from tests.certification.faults.steps import STEPS

FAULTS = (*STEPS, *JACOBIANS, *CONTACTS, *REWARDS, *BEHAVIOUR)
