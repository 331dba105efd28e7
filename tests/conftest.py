import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run side by side, one worker a core


settings.register_profile("busy", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("busy")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real X-rays; a test that asks for them is skipped where they are absent."""
    root = Path(os.environ.get("MIM_SHARED_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")).resolve()
    if not (root / "README.md").is_file():
        pytest.skip(f"real X-rays are not at {root} (set MIM_SHARED_DATA)")
    return root
