"""What a quick run takes of the many cases of a campaign."""

import pytest

# Parameters of what draws few moments or inputs in each run of the tests, and many in a campaign.
FEW_OR_MANY = [
    "few",
    pytest.param("many", marks=[pytest.mark.campaign, pytest.mark.timeout(6 * 3600)]),
]


def quick_some(values, quick):
    """Values of a parametrization, of which only those in `quick` are for the quick run."""
    assert set(quick) <= set(values), f"{quick} are not all in {values}"
    return [
        value if value in quick else pytest.param(value, marks=pytest.mark.campaign)
        for value in values
    ]
