// Says that something came which the page cannot read.

import { unread } from "../model/shape.js";
import { el, setText } from "./dom.js";
import { onFrame } from "./frame.js";

/** From now on the page says how many things it has passed over. */
export function tellUnread() {
  const line = el("p", { class: "unread", role: "status", hidden: true });
  document.body.append(line);
  const draw = () => {
    const things = unread.count === 1 ? "One thing" : `${unread.count} things`;
    setText(line, `${things} that came from the server could not be read, and ${unread.count === 1 ? "is" : "are"} not shown.`);
    line.hidden = false;
  };
  unread.onChange = () => onFrame(draw, 500);
}
