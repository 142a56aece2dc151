// Accepting an invitation: a password for the account that it belongs to.

import { ask } from "../net/rest.js";
import { el } from "../view/dom.js";
import { failure, note } from "../view/notes.js";
import { enable } from "../view/token.js";

const form = /** @type {HTMLFormElement} */ (document.getElementById("accept"));
/** @typedef {Record<"token" | "password" | "again", HTMLInputElement>} Fields */
const fields = /** @type {HTMLFormControlsCollection & Fields} */ (form.elements);
const answer = /** @type {HTMLElement} */ (document.getElementById("answer"));

// The invitation leaves the address as soon as it is read: the history and other pages should not have it.
const invitation = new URLSearchParams(location.search).get("token");
if (invitation) {
  fields.token.value = invitation;
  /** @type {HTMLElement} */ (document.getElementById("token-field")).hidden = true;
  history.replaceState(null, "", location.pathname);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const password = fields.password.value;
  if (password !== fields.again.value) return answer.replaceChildren(failure(new Error("The two passwords differ.")));
  enable(form, false);
  answer.replaceChildren(note("Setting the password…"));
  try {
    const user = await ask("POST", "/latest/user/accept-invite", { body: { token: fields.token.value.trim(), password } });
    form.hidden = true;
    answer.replaceChildren(el("p", { class: "note good" }, "Welcome, ", el("b", { text: user.username }), ". The password is set; log in with it from now on."));
  } catch (/** @type {any} */ error) {
    answer.replaceChildren(failure(error));
    enable(form, true);
  }
});
