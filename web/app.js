// The dashboard: one connection, one subscription, three views.
//
// net/    the JSON-RPC session and subscriptions that outlive it
// model/  what is known: checkouts, runs and their counts, the last events. No DOM
// view/   what is shown: the list, the stream, the panel. Draws once per frame

import { Follow } from "./model/follow.js";
import { History } from "./model/history.js";
import { session } from "./net/server.js";
import { Subscriptions } from "./net/subscriptions.js";
import { connectionBadge } from "./view/badge.js";
import { CheckoutsView } from "./view/checkouts.js";
import { DetailView } from "./view/detail.js";
import { onRoute } from "./view/route.js";
import { StreamView } from "./view/stream.js";

/** @type {(id: string) => any} Whatever kind of element index.html has there. */
const byId = (id) => document.getElementById(id);

const rpc = session("dashboard");
const subscriptions = new Subscriptions(rpc);
const follow = new Follow(rpc);
const events = new History();

const list = new CheckoutsView({ list: byId("checkouts"), empty: byId("no-checkouts") }, follow);
const detail = new DetailView(
  { panel: byId("detail"), title: byId("detail-title"), body: byId("detail-body"), close: byId("detail-close") },
  rpc,
  follow,
);
const stream = new StreamView(
  {
    list: byId("events"),
    empty: byId("no-events"),
    kind: byId("event-kind"),
    text: byId("event-text"),
    pause: byId("event-pause"),
    rate: byId("event-rate"),
    pulse: byId("event-pulse"),
  },
  events,
);

follow.onTree = (treeid) => {
  list.treeChanged(treeid);
  detail.treeChanged(treeid);
};
follow.onNode = (node) => detail.nodeChanged(node);

subscriptions.add(
  { channel: "node", include: ["node"] },
  {
    replay: 100, // so that the stream is not empty at first
    onEvent(event, node, { seq, past }) {
      events.add(event, node, { seq, past });
      follow.apply(event, node);
      stream.changed();
    },
    onReset(why) {
      if (why.reason !== "start") {
        events.addGap(why);
        stream.changed();
      }
      follow.reload();
    },
  },
);

rpc.onSession = () => subscriptions.resume();
rpc.onNotification = (method, params) => subscriptions.notify(method, params);
rpc.onState = connectionBadge(byId("connection"), rpc);

onRoute((route) => {
  list.select(route?.kind === "checkout" ? route.id : null);
  detail.show(route);
});

// On a narrow screen one of the two columns shows at a time.
/** @type {NodeListOf<HTMLElement>} */
const tabs = document.querySelectorAll("[data-tab]");
for (const tab of tabs) {
  tab.addEventListener("click", () => {
    document.body.dataset.shown = tab.dataset.tab;
    for (const other of tabs) {
      other.setAttribute("aria-pressed", String(other === tab));
    }
  });
}

rpc.start();
