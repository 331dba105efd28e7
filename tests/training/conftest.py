import pytest

from mim.config import TrainingConfig
from mim.training import make_fabric


@pytest.fixture(scope="session")
def fabric():
    return make_fabric(TrainingConfig(accelerator="cpu"))
