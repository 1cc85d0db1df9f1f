"""MPG and its baselines: mixtures of J_0 and J_n, and the data-driven gradient alone."""

from __future__ import annotations

from gradlab.statistics.mixing import MpgWeights
from gradlab.training.algorithm import Algorithm
from gradlab.training.parts.context import FixedWeights
from gradlab.training.parts.policy_losses import Term
from gradlab.training.parts.targets import NStep, OneStep, Soft

DATA, MODEL, MODEL_ALL = Term(0), Term(25), Term(25, "all")
_CLIPPED = OneStep(twin=True)

TD3 = Algorithm(
    "td3",
    (DATA,),
    FixedWeights(),
    OneStep(twin=True, smoothing=0.1),
    delay=2,
    paper="Fujimoto et al. 2018, algorithm 1; MPG appendix C-B",
)
SAC = Algorithm(
    "sac",
    (DATA,),
    FixedWeights(),
    Soft(),
    policy="gaussian",
    paper="Haarnoja et al. 2018 (and applications), algorithm 1; MPG appendix C-B",
)

ROWS = (
    Algorithm(
        "mpg-v1",
        (DATA, MODEL),
        MpgWeights(),
        NStep("simulator"),
        reuse=10,
        delay=2,
        paper="MPG algorithm 1, n-step TD of section IV-B",
    ),
    Algorithm(
        "mpg-v2",
        (DATA, MODEL),
        MpgWeights(),
        _CLIPPED,
        reuse=10,
        delay=2,
        paper="MPG algorithm 1, clipped double Q of section IV-B",
    ),
    Algorithm(
        "mpg-general",
        (DATA, Term(5), Term(10), MODEL),
        MpgWeights(),
        _CLIPPED,
        reuse=10,
        delay=2,
        paper="MPG appendix C-A",
    ),
    Algorithm(
        "n-step-dpg",
        (DATA,),
        FixedWeights(),
        NStep("simulator"),
        reuse=10,
        paper="MPG appendix C-B",
    ),
    Algorithm(
        "n-step-adp",
        (MODEL_ALL,),
        FixedWeights(),
        NStep("model"),
        reuse=10,
        paper="MPG appendix C-B",
    ),
    Algorithm(
        "ddpg",
        (DATA,),
        FixedWeights(),
        OneStep(),
        paper="Lillicrap et al. 2016, algorithm 1",
    ),
    TD3,
    SAC,
)
