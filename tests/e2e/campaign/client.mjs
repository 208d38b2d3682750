/* The JavaScript client for the campaign: what it is asked to comes as lines of JSON, and so does what it hears. */

import { createInterface } from "node:readline";

const [client, url] = process.argv.slice(2);
const { Session } = await import(client);
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
const readers = new Map();

const tasks = {
  follow({ number, session }) {
    const one = new Session(session, {
      url,
      snapshot: false,
      silence: 3000,
      onEvent: (event, cursor, verdict) => say({ number, event, cursor, verdict }),
      onControl: (control, data) => say({ number, control, data }),
    });
    readers.set(number, one);
    one.follow().then((end) => say({ number, end }));
  },
  leave({ number }) {
    readers.get(number)?.close();
    readers.delete(number);
  },
  command({ number, session, name, given }) {
    new Session(session, { url })[name](...given).then(
      (answer) => say({ number, answer }),
      (error) => say({ number, refusal: error.code ?? String(error) }),
    );
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const task = JSON.parse(line);
  tasks[task.do](task);
}
process.exit(0); // readers may still wait to connect again
