"""What the default estimators of a measurement, and those beside them, need of the simulator."""

STATES = ("mixed", "mixed_all", "true_dynamics_score")  # its states
CUTS = ("observation", "transition", "control", "state_reward", "action_reward")
CONTROLS = (  # its derivatives
    "true_dynamics",
    "true_dynamics_all",
    "true_dynamics_ivw",
    "true_dynamics_ddcg",
    "true_dynamics_total",
    *(f"true_dynamics_cut_{edge}" for edge in CUTS),
)
