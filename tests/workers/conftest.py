"""The same tests on every kind of worker; those on Ray run with `make ray`."""

import pytest

from gradlab.workers.local import LocalPool


@pytest.fixture(scope="module", params=["local", pytest.param("cluster", marks=pytest.mark.ray)])
def pool(request):
    if request.param == "local":
        with LocalPool() as local:
            yield local
        return
    pytest.importorskip("ray")
    from gradlab.workers.cluster import ClusterPool

    with ClusterPool("local", workers=8) as cluster:
        yield cluster
