"""Where the work is done, simulated: builders, the lab, and lava_callback which writes the lab's results."""
from scheduling import MOST_RETRIES
from world import Worker, utc_now

HOLDOFF = 2  # seconds
TESTS = 10  # in a job
UNSTABLE = ("mainline", "kselftest-arm64")  # the job whose board breaks until its last retry


class Builder(Worker):
    """The job of a kbuild node, which reports for itself."""

    built = 0

    def todo(self):
        return self.world.builds

    def do(self, node_id):
        node = self.api.node(node_id)
        self.world.stopping.wait(0.3)
        node["artifacts"] = {**node["artifacts"], "kernel": f"https://files.example.org/{node_id}/bzImage"}
        node.update(state="available", result="pass", holdoff=str(utc_now(seconds=HOLDOFF)))
        self.api.update(node)
        self.world.emit("build_result", node_id=node_id, job_name=node["name"], result="pass")
        self.built += 1

    def report(self):
        return f"built {self.built} kernels"


class Lab(Worker):
    """Boards that run jobs; of some it never says anything."""

    ran = 0

    def todo(self):
        return self.world.boards

    def do(self, work):
        node_id, answers = work
        self.world.stopping.wait(0.2)
        self.ran += 1
        if answers:
            self.world.callbacks.put(node_id)

    def report(self):
        return f"ran {self.ran} jobs"


class LavaCallback(Worker):
    """Writes results as a hierarchy, with the rights of the lab."""

    user = "lab"
    written = 0

    def todo(self):
        return self.world.callbacks

    def do(self, node_id):
        job = self.api.node(node_id)
        told = {"node_id": node_id, "job_name": job["name"], "device_type": job["data"]["platform"]}
        tree = job["data"]["kernel_revision"]["tree"]
        if (tree, job["name"]) == UNSTABLE and job["retry_counter"] < MOST_RETRIES:
            data = {**job["data"], "error_code": "Infrastructure", "error_msg": "the board does not boot"}
            results = {"node": {"result": "incomplete", "data": data}, "child_nodes": []}
            self.world.emit("runtime_error", error_type="Infrastructure", is_infra_error=True, **told)
        else:
            tests = [{"node": {"name": f"test-{at}", "kind": "test", "result": "fail" if at == 3 else "pass",
                               "artifacts": None}, "child_nodes": []} for at in range(TESTS)]
            suite = {"node": {"name": "suite", "result": "pass", "artifacts": {}}, "child_nodes": tests}
            results = {"node": {"result": "pass"}, "child_nodes": [suite]}
            for test in tests:
                self.world.emit("test_result", test_name=test["node"]["name"], result=test["node"]["result"], **told)
        written = self.api.submit_results(results, job)
        assert len(written) == 1 + len(results["child_nodes"]) * (1 + TESTS), written
        assert written[0]["id"] == node_id and written[0]["state"] == "done", written[0]
        assert all(node["treeid"] == job["treeid"] for node in written), written
        self.world.emit("job_result", result=written[0]["result"], tree=tree, **told)
        self.written += len(written)

    def report(self):
        return f"wrote {self.written} nodes"
