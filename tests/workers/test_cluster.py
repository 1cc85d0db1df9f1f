"""Clusters that cannot be used, and several nodes (`gradlab.workers.cluster`); see `make ray`."""

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

import gradlab
from gradlab.errors import Failure, InputError
from gradlab.workers import WorkerDied, cluster

COUNTER = "tests.workers.held:Counter"

SMALL = {"object_store_memory": cluster.LEAST, "include_dashboard": False}


@pytest.fixture(scope="module")
def two_nodes():
    """Two nodes on this machine, with a processor each."""
    pytest.importorskip("ray")
    cluster.imported()
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **SMALL})
    nodes.second = nodes.add_node(num_cpus=1, **SMALL)
    yield nodes
    nodes.shutdown()


def test_a_missing_ray_is_one_line_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"ray is not installed: pip install .*'\.\[ray\]'"):
        cluster.ClusterPool("local")


@pytest.mark.ray
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", 'expected "local" or HOST:PORT'),
        ("127.0.0.1:99999", 'expected "local" or HOST:PORT'),
        ("127.0.0.1:1", r"nothing answers at ray=127\.0\.0\.1:1 within"),
        ("no-such-host.invalid:6379", "nothing answers at ray=no-such-host"),
    ],
)
def test_an_address_where_nothing_answers_is_refused(address, message):
    pytest.importorskip("ray")
    begun = time.monotonic()
    with pytest.raises(InputError, match=message):
        cluster.ClusterPool(address)
    assert time.monotonic() - begun < 60


@pytest.mark.ray
def test_another_program_at_the_address_is_no_cluster():
    pytest.importorskip("ray")
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(InputError, match="does not answer as a Ray cluster"):
        cluster.ClusterPool(f"127.0.0.1:{server.server_port}")
    server.shutdown()


@pytest.mark.parametrize("answer", ["dead", "none"])
def test_a_node_that_is_lost_ends_all_waiting(monkeypatch, answer):
    """Ray in miniature: calls that never end, on a node that is dead or silent."""

    def nodes():
        if answer == "none":
            raise TimeoutError
        return [{"NodeID": "here", "Alive": False}, {"NodeID": "there", "Alive": True}]

    monkeypatch.setattr(cluster, "LOOK", 0.01)
    monkeypatch.setattr(cluster, "SILENT", 0.2)
    monkeypatch.setattr(cluster, "compare_versions", lambda ray: None)
    context = SimpleNamespace(get_node_id=lambda: "here")
    monkeypatch.setattr(
        cluster, "imported",
        lambda: SimpleNamespace(
            is_initialized=lambda: True, cluster_resources=dict, nodes=nodes,
            get_runtime_context=lambda: context, wait=lambda listed, **_: ([], listed),
        ),
    )  # fmt: skip
    with cluster.ClusterPool("local") as pool:
        actor = SimpleNamespace(place=SimpleNamespace(remote=lambda: None))
        worker = cluster.ClusterWorker(pool._ray, actor)
        pool._workers.append(worker)
        call = cluster.ClusterCall(pool._ray, worker, "sleep", "reference")
        with pytest.raises(Failure, match="the node of Ray that this program is on has died"):
            for _ in range(500):
                pool.wait([call], 0.01)
                time.sleep(0.01)
        assert not worker.alive
        worker.interrupt()  # of what is lost asks nobody


@pytest.mark.ray
def test_another_version_on_a_node_is_named(two_nodes, monkeypatch):
    here = {"torch": "1.0"}
    monkeypatch.setattr(cluster, "version", lambda name="": here.get(name, gradlab.__version__))
    with pytest.raises(InputError, match=r"torch is .* on .* and 1\.0 here: install one version"):
        cluster.ClusterPool(two_nodes.address)


@pytest.mark.ray
def test_two_nodes_share_the_workers_and_one_outlives_the_other(two_nodes):
    with cluster.ClusterPool(two_nodes.address) as pool:
        assert pool.cores == 2
        workers = [pool.start(COUNTER, k) for k in range(2)]
        assert [worker.call("add", 1).result() for worker in workers] == [1, 2]
        nodes = [pool._ray.get(worker._place)[0] for worker in workers]
        assert len(set(nodes)) == 2
        lost = workers[nodes.index(two_nodes.second.node_id)]
        (kept,) = (worker for worker in workers if worker is not lost)
        call = lost.call("sleep", 600.0)
        two_nodes.remove_node(two_nodes.second, allow_graceful=False)
        assert pool.wait([call], 120.0) == [call]
        with pytest.raises(WorkerDied):
            call.result()
        assert kept.alive and kept.call("add", 1).result() >= 2
