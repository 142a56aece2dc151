// Inviting a person, as an administrator.

import { ask } from "../net/rest.js";
import { token } from "../net/token.js";
import { el } from "../view/dom.js";
import { failure, note } from "../view/notes.js";
import { TokenBox, enable } from "../view/token.js";

const form = /** @type {HTMLFormElement} */ (document.getElementById("invite"));
/** @typedef {Record<"username" | "email" | "groups" | "is_superuser" | "resend_if_exists", HTMLInputElement>} Fields */
const fields = /** @type {HTMLFormControlsCollection & Fields} */ (form.elements);
const answer = /** @type {HTMLElement} */ (document.getElementById("answer"));
const base = /** @type {HTMLElement} */ (document.getElementById("base"));

const box = new TokenBox(/** @type {HTMLElement} */ (document.getElementById("token")), (user) => {
  enable(form, Boolean(user?.is_superuser));
  base.textContent = "…";
  answer.replaceChildren(...(user && !user.is_superuser ? [failure(new Error("Only superusers may invite."))] : []));
  if (user?.is_superuser) readBase();
});

async function readBase() {
  try {
    const { accept_invite_url: url, public_base_url: from } = await ask("GET", "/latest/user/invite/url", { token: token.get() });
    base.textContent = url ?? from;
  } catch (/** @type {any} */ error) {
    base.textContent = error.message;
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = {
    username: fields.username.value.trim(),
    email: fields.email.value.trim(),
    groups: fields.groups.value.split(",").map((name) => name.trim()).filter(Boolean),
    is_superuser: fields.is_superuser.checked,
    resend_if_exists: fields.resend_if_exists.checked,
    send_email: true,
    return_token: true,
  };
  enable(form, false);
  answer.replaceChildren(note("Inviting…"));
  try {
    const made = await ask("POST", "/latest/user/invite", { token: token.get(), body });
    const how = made.email_sent ? "An e-mail is on its way." : "No e-mail was sent: hand the link over yourself.";
    answer.replaceChildren(
      el("p", { class: "note good", text: `${body.username} is invited. ${how}` }),
      el("pre", { class: "json", tabindex: "0", text: JSON.stringify(made, null, 2) }),
    );
  } catch (/** @type {any} */ error) {
    answer.replaceChildren(failure(error));
    if (error.status === 401) return box.refused(error);
  }
  enable(form, true);
});

box.start();
