/* Who uses this page: the token to show, if the server asks for one, and the name under which one is present.
 *
 * The token stays in this tab's session storage and is sent to nobody but the server of the page.
 */

import { ask } from "./dialogs.js";
import { choice, ofTab } from "./kept.js";

const ID = /^[A-Za-z0-9._~:-]{1,128}$/;

function random(bytes) {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What the token says of its holder; nothing is believed of it, the server judges. */
function claims(token) {
  try {
    const [, body] = token.split(".");
    const bytes = Uint8Array.from(atob(body.replace(/-/g, "+").replace(/_/g, "/")), (char) => char.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes)) ?? {};
  } catch {
    return {};
  }
}

export class Identity {
  #token = ofTab("token");
  #asking = null;
  #declined = false; // asked and not given: not asked again before somebody wants to
  #given;

  /** @param {() => void} given a token was, whoever asked for it */
  constructor(given) {
    this.#given = given;
    this.device = ofTab("device") ?? ofTab("device", `tab-${random(4)}`);
    this.guest = choice("guest") ?? choice("guest", `guest-${random(4)}`);
  }

  /** For `Client`: the token now, asked for where the server wants one that is better than that. */
  token = ({ refused }) => {
    if (!refused || this.#declined) return this.#token;
    return this.change("The server asks for a token", this.#token ? "The one that was given is not good, or not any more." : undefined);
  };

  /** Ask for token and name. The token then, or null. */
  change(title = "Token and name", text = undefined) {
    const told = text ?? "A server without keys needs no token. It stays in this tab and goes to this server only.";
    const fields = [
      { name: "token", label: "Token", type: "password", value: this.#token ?? "", hint: "penstock token NAME --jwt-key FILE --session '…'" },
      { name: "name", label: "Your name", value: this.name, hint: "Others in a conversation see it." },
    ];
    this.#asking ??= ask({ title, text: told, confirm: "Use it", fields }).then((said) => {
      this.#asking = null;
      this.#declined = said === null;
      if (said === null) return this.#token;
      this.#token = ofTab("token", said.token.trim() || null);
      if (said.name.trim() !== this.name) choice("name", said.name.trim().slice(0, 60) || null);
      this.#given();
      return this.#token;
    });
    return this.#asking;
  }

  get #claims() {
    return this.#token ? claims(this.#token) : {};
  }

  get actor() {
    const { sub } = this.#claims;
    return typeof sub === "string" && ID.test(sub) ? sub : this.guest;
  }

  get name() {
    return choice("name") ?? (this.actor === this.guest ? `Guest ${this.guest.slice(-4)}` : this.actor);
  }

  /** An id for a new conversation: of those that the token is good for, and so that by id the newest is listed first. */
  newSessionId() {
    const id = `c${(1e14 - Date.now()).toString(36)}-${random(4)}`;
    const { sessions } = this.#claims;
    const patterns = Array.isArray(sessions) ? sessions.filter((each) => typeof each === "string") : [];
    const open = patterns.find((each) => /^[^*?[]*\*$/.test(each));
    return (open ?? "").slice(0, -1) + id;
  }
}
