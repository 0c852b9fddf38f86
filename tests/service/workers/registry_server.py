"""A service over a registry whose versions are fakes, as a process of its own."""

import sys

from service.workers.serve import serve
from tests.service.fakes import settings
from tests.service.hot_loading.model_fakes import Loader

if __name__ == "__main__":
    registry, model = sys.argv[1:3]
    own = settings(registry=registry, model=model, device="cpu", registry_poll_s=1000.0)
    sys.exit(serve(own, load=Loader()))
