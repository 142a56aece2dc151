// Where the LAVA labs that run jobs of KernelCI show them.

/** @type {Record<string, string>} */
const HOSTS = {
  "lava-baylibre": "lava.baylibre.com",
  "lava-broonie": "lava.sirena.org.uk",
  "lava-cip": "lava.ciplatform.org",
  "lava-collabora": "lava.collabora.dev",
  "lava-collabora-early-access": "staging.lava.collabora.dev",
  "lava-collabora-staging": "staging.lava.collabora.dev",
  "lava-qualcomm": "lava.infra.foundries.io",
};

/**
 * The address of a node's job in its lab; null if the lab is not known or it has none.
 * @param {{data?: any}} node
 */
export function lavaJob({ data }) {
  const host = Object.hasOwn(HOSTS, data?.runtime ?? "") ? HOSTS[data.runtime] : null;
  const id = data?.job_id;
  if (!host || !["string", "number"].includes(typeof id) || id === "") return null;
  return `https://${host}/scheduler/job/${encodeURIComponent(id)}`;
}
