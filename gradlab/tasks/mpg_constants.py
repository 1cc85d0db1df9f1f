"""Constants of MPG's two tasks (Table VI): 25 steps, and exploration N(0, 0.1) in units of the
actuator's limit."""

DISCOUNT = 0.98
HORIZON = 25
EXPLORATION = 0.1
