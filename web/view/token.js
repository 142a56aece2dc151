// Who somebody is: a field for an API token, then the name that belongs to it and a way out.

import { ask } from "../net/rest.js";
import { token } from "../net/token.js";
import { el } from "./dom.js";
import { failure, fillIn, note } from "./notes.js";

/**
 * What whoami answers.
 * @typedef {{id: string, username: string, is_superuser?: boolean, groups?: {name: string}[]}} User
 */

/** A place that says who somebody is. */
export class TokenBox {
  #place;
  #onUser;

  /**
   * @param {Element} place
   * @param {(user: User | null) => void} onUser called with the user when there is one, and with null
   */
  constructor(place, onUser) {
    this.#place = place;
    this.#onUser = onUser;
  }

  /** Checks the token that this tab has, if it has one. */
  start() {
    const known = token.get();
    if (known) this.#check(known);
    else this.#askForIt();
  }

  /**
   * The server refused the token: asks for another one.
   * @param {Error} error
   */
  refused(error) {
    token.forget();
    this.#askForIt(error);
  }

  /** @param {string} text */
  #check(text) {
    return fillIn(this.#place, async () => {
      try {
        const user = await ask("GET", "/latest/whoami", { token: text });
        token.set(text);
        this.#onUser(user);
        return [this.#signedIn(user)];
      } catch (/** @type {any} */ error) {
        if (error.status !== 401 && error.status !== 403) throw error;
        token.forget();
        this.#askForIt(new Error(error.status === 401 ? "This token is not valid, or no longer." : "The user of this token is not verified."));
        return null;
      }
    });
  }

  /** @param {User} user */
  #signedIn({ username, is_superuser: superuser, groups }) {
    const facts = [superuser ? "superuser" : "", ...(groups ?? []).map((group) => group.name)].filter(Boolean).join(", ");
    const leave = () => {
      token.forget();
      this.#askForIt();
    };
    return el("p", { class: "signed-in" }, el("span", {}, "Signed in as ", el("b", { text: username }), facts ? ` (${facts})` : ""),
      el("button", { type: "button", text: "Log out", click: leave }));
  }

  /** @param {{message: string}} [error] */
  #askForIt(error) {
    this.#onUser(null);
    const input = el("input", { type: "password", required: true, autocomplete: "off", spellcheck: "false", size: "40" });
    const submit = (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      const text = input.value.trim().replace(/^bearer\s+/i, "");
      // What is not plain text cannot be sent in a header.
      if (/^[\x21-\x7e]+$/.test(text)) this.#check(text);
      else this.#askForIt(new Error("This is no token."));
    };
    this.#place.replaceChildren(
      el("form", { class: "inline", submit }, el("label", {}, "Token ", input), el("button", { class: "primary", text: "Verify" })),
      error ? failure(error) : note("It is checked with this server and kept for this tab only."),
    );
    this.#place.removeAttribute("aria-busy");
  }
}

/**
 * Disables (or enables) everything in a form.
 * @param {HTMLFormElement} form
 * @param {boolean} on
 */
export function enable(form, on) {
  for (const element of form.elements) /** @type {HTMLInputElement} */ (element).disabled = !on;
}
