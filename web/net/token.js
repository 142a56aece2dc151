// The API token that somebody pasted.
//
// It is kept in sessionStorage, not in localStorage: it is gone with the tab, no other tab has it, and it is never on
// the disk of a shared computer longer than that. It goes to this server alone, in a header, never into an address.

const KEY = "kernelci-token";

export const token = {
  get() {
    return sessionStorage.getItem(KEY);
  },
  /** @param {string} text */
  set(text) {
    sessionStorage.setItem(KEY, text);
  },
  forget() {
    sessionStorage.removeItem(KEY);
  },
};
