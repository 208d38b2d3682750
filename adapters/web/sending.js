/* What a pane sends: starts, inputs, stops. It is asked for until it is known what became of it, also where the pane shows
 * another conversation by then: what is sent goes where it was written.
 */

import { brought } from "./attachments.js";
import { newId } from "./penstock.js";
import { firstWords } from "./titles.js";

const LATE = 8000; // milliseconds; longer than an attempt may take
const SOON = 400; // a file that is sent in less needs no word

/** What was under way before a start could go out was left. */
const LEFT = new DOMException("it was stopped before it was sent", "AbortError");

/** A conversation to send to. A missing one is made with what is sent first, and files go ahead of their message. */
class Target {
  #leaving = new AbortController();
  #ahead = 0; // of what goes ahead of a start

  constructor(session, missing) {
    this.session = session;
    this.missing = missing;
    this.brings = false; // files are on their way
  }

  /** @param {string} title */
  async make(title) {
    if (!this.missing) return;
    await this.#goAhead((signal) => this.session.create(title ? { metadata: { title } } : {}, { signal }));
    this.missing = false;
  }

  /** The body of a start, once its files were sent; `tell` is called with the name of each. */
  async bring(made, tell) {
    this.brings = Boolean(made.attached?.length);
    try {
      return await this.#goAhead((signal) => brought(this.session, made, { signal, tell }));
    } finally {
      this.brings = false;
    }
  }

  async #goAhead(work) {
    this.#ahead += 1;
    try {
      return await work(this.#leaving.signal);
    } finally {
      this.#ahead -= 1;
    }
  }

  /** What goes ahead of a start is broken off, and fails with `LEFT`. Whether anything was. */
  leave() {
    if (!this.#ahead) return false;
    this.#leaving.abort(LEFT);
    this.#leaving = new AbortController();
    return true;
  }
}

export class Sending {
  #key;
  #notice;
  #composer;
  #made;
  #sent = 0;
  #steered = new Map(); // texts, by input id

  /** @param {() => void} made the conversation that is shown was */
  constructor(key, notice, composer, made) {
    this.#key = key;
    this.#notice = notice;
    this.#composer = composer;
    this.#made = made;
    this.to = null;
  }

  /** Another session is shown, which is there, or is to be made. */
  begin(session, missing) {
    this.to = new Target(session, missing);
    this.#steered.clear();
  }

  /** A text of the composer's, and what is attached to it. Whether it went. */
  async say(text, { policy, ...rest }, to, attached) {
    const { generation } = to.session.getSnapshot();
    if (policy === "steer" && generation && !attached.length) return this.#steer(generation.generation_id, text, to);
    const later = generation ? "queue" : undefined; // what is attached does not go into an answer that runs
    const body = { text, attached, ...rest, policy: policy === "steer" ? later : policy };
    return Boolean(await this.start("Not sent", body, { to, title: firstWords(text) }));
  }

  async #steer(generationId, text, to) {
    const id = newId();
    this.#steered.set(id, text);
    const input = { kind: "steer", text, input_id: id };
    const sent = await this.#settle("Not sent", to, () => to.session.input(generationId, input));
    if (!sent) this.#steered.delete(id);
    return Boolean(sent);
  }

  /** What was sent into an answer, and that did not use it; undefined for what we did not send. */
  returned({ type, data }) {
    if (!type.startsWith("input.") || type === "input.accepted") return undefined;
    const text = this.#steered.get(data.input_id);
    this.#steered.delete(data.input_id);
    return type === "input.returned" ? text : undefined;
  }

  /** Start an answer; what the composer chose goes with it. */
  start(otherwise, body, { to = this.to, title = "" } = {}) {
    this.#sent += 1;
    const id = newId(); // and the key: however often it is sent, it is one start
    const { producer, input } = this.#composer.choices;
    const made = { generation_id: id, job_id: `${this.#key}-${this.#sent}`, producer, input, ...body };
    for (const name of Object.keys(made)) if (made[name] === undefined) delete made[name];
    const send = async () => to.session.start(await this.#bring(to, made));
    const command = async () => {
      await this.#make(to, title);
      return send().catch(async (problem) => {
        if (problem.code !== "SESSION_NOT_FOUND" || to.session.getSnapshot().cursor !== null) throw problem;
        to.missing = true; // it was sent before that was known
        await this.#make(to, title);
        return send();
      });
    };
    return this.#settle(otherwise, to, command, () => to.session.stop({ generation_id: id }));
  }

  async #bring(to, made) {
    let soon;
    const tell = (name) => {
      clearTimeout(soon);
      soon = setTimeout(() => this.#notice.say(`Sending ${name}…`, { kind: "brings" }), SOON);
    };
    try {
      return await to.bring(made, tell);
    } finally {
      clearTimeout(soon);
      this.#notice.clear("brings");
    }
  }

  async #make(to, title) {
    const { missing } = to;
    await to.make(title);
    if (missing && to === this.to) this.#made();
  }

  /**
   * As `carryOut`, what may be repeated: until it is known what became of it, for nothing is told as not sent that may have
   * been. Stopped when it may have gone, `stop` finds out whether it had.
   */
  async #settle(otherwise, to, command, stop) {
    const told = "No answer yet. It is asked for again until there is one, and nothing is sent twice.";
    const late = setTimeout(() => to.brings || this.#notice.say(told, { kind: "unanswered" }), LATE);
    try {
      for (let next = command; ; ) {
        try {
          const answer = await next();
          this.#notice.clear("error");
          if (answer.state !== "pending") return answer;
          return this.#unsent();
        } catch (problem) {
          if (problem === LEFT) return this.#unsent();
          const left = problem.name === "AbortError";
          if (left && next === command && stop) next = stop;
          else if (!problem.uncertain || !problem.retryable) return this.failed(otherwise, problem);
        }
      }
    } finally {
      clearTimeout(late);
      this.#notice.clear("unanswered");
    }
  }

  #unsent() {
    this.#notice.say("Stopped before it was sent.");
    return false;
  }

  async stop() {
    const { generation } = this.to.session.getSnapshot();
    const { sendingTo } = this.#composer;
    if (!generation && !sendingTo) return;
    this.#composer.hold();
    const left = sendingTo?.leave();
    if (sendingTo?.missing || (left && !generation)) return; // nothing has reached the server
    // without a name it also reaches a start of ours that is not answered yet
    const named = sendingTo && !left ? {} : { generation_id: generation.generation_id };
    const { session } = sendingTo ?? this.to;
    const stopped = await this.carryOut("Not stopped", () => session.stop(named));
    if (stopped?.state === "stopping") this.#notice.say("Stopped; the producer is still cleaning up and can write no more.");
  }

  /** Carry out a command; a refusal is told. What the server answered, true where it answers with nothing. */
  async carryOut(otherwise, command) {
    try {
      const answer = await command(this.to.session);
      this.#notice.clear("error");
      return answer ?? true;
    } catch (problem) {
      return this.failed(otherwise, problem);
    }
  }

  failed(otherwise, problem) {
    const told = problem.uncertain ? `${otherwise}, perhaps` : otherwise;
    this.#notice.say(`${told}: ${problem.message}`, { kind: "error" });
    return false;
  }
}
