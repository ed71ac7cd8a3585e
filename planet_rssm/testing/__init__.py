"""What other libraries run on their own models and planners: a line for each broken contract.

    from planet_rssm.testing import check_dynamics, check_planner

    def test_my_model():
        check_dynamics(MyDynamics(), state=torch.zeros(3, 8), action_size=2)

Both return nothing, or raise an AssertionError with a line for each thing that is broken. What your
code raises itself comes through as it is.
"""

from planet_rssm.testing.dynamics import check_dynamics
from planet_rssm.testing.planners import check_planner

__all__ = ["check_dynamics", "check_planner"]
