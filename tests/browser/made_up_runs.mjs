// Runs with names as they are in production, written over the API.

let serial = 0;
const treeid = () => `browser-test-${Date.now()}-${serial++}`;

/** Writes a checkout; `revision` overrides parts of its kernel revision, `fields` of the node. */
export function checkout(server, revision = {}, fields = {}) {
  const commit = (serial * 0x9e3779b1 + 0x1234567).toString(16).padStart(10, "0").repeat(4);
  const kernel_revision = {
    tree: "mainline", branch: "master", url: "https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git",
    describe: `v6.18-rc3-${100 + serial}-g${commit.slice(0, 12)}`, commit, ...revision,
  };
  const node = { kind: "checkout", name: "checkout", path: ["checkout"], treeid: treeid(), data: { kernel_revision }, ...fields };
  return server.rpc("node.create", { node });
}

/** Writes a node below `parent`. */
export function child(server, parent, kind, name, fields = {}) {
  const { treeid, data } = parent;
  const node = {
    kind, name, path: [...parent.path, name], parent: parent.id, treeid,
    data: { kernel_revision: data.kernel_revision, ...fields.data },
  };
  return server.rpc("node.create", { node: { ...node, ...fields, data: node.data } });
}

/** Ends a job together with its tests, as labs do: one write, one event. `results` has the result of each test. */
export function submitTests(server, job, result, results) {
  const { id, revision, ...node } = { ...job, state: "done", result };
  const child_nodes = results.map((outcome, i) => {
    const name = `${job.name.split("-")[0]}_case_${i}`;
    const test = { kind: "test", name, path: [...job.path, name], state: "done", result: outcome, data: {} };
    return { node: test, child_nodes: [] };
  });
  return server.rpc("node.submit", { id, tree: { node, child_nodes } });
}

/** A dozen runs, for something to look at. */
export async function busyDay(server) {
  const trees = [
    ["next", "master"], ["stable", "linux-6.12.y"], ["android", "android16-6.12"], ["media", "fixes"],
    ["net-next", "main"], ["broonie-sound", "for-next"], ["cip", "linux-6.1.y-cip"], ["stable-rc", "linux-6.6.y"],
    ["arm64", "for-kernelci"], ["chrome-platform", "for-kernelci"], ["soc", "for-next"], ["mainline", "master"],
  ];
  const builds = ["arm64", "x86", "riscv", "arm64-chromebook", "i386", "arm-multi_v7_defconfig"];
  const jobs = ["baseline-arm64", "kselftest-cpufreq", "ltp-syscalls", "fluster-debian-v4l2", "rt-tests-cyclictest"];
  const outcomes = ["pass", "pass", "pass", "fail", "pass", "skip", "pass", "pass", "incomplete", "pass", "pass"];
  let turn = 0;
  const outcome = () => outcomes[turn++ % outcomes.length];
  for (const [i, [tree, branch]] of trees.entries()) {
    const created = new Date(Date.now() - (trees.length - i) ** 2 * 240_000).toISOString().replace("Z", "");
    const root = await checkout(server, { tree, branch }, { state: "available", created });
    for (const [n, arch] of builds.slice(0, 2 + (i % 5)).entries()) {
      const done = (i + n) % 4 > 0;
      const state = done ? { state: "done", result: outcome() } : {};
      const build = await child(server, root, "kbuild", `kbuild-gcc-14-${arch}`, { ...state, data: { arch } });
      for (const name of done ? jobs.slice(0, 1 + ((i + n) % 5)) : []) {
        const job = await child(server, build, "job", `${name}-${arch}`, { data: { runtime: "lava-collabora" } });
        if ((turn + n) % 3) await submitTests(server, job, outcome(), Array.from({ length: 3 + (turn % 9) }, outcome));
      }
    }
  }
}
