// The Durable Streams server for Node, as its package gives it, on a free port of loopback; prints the port.
//   node durable_streams.mjs PACKAGES [FOLDER]      PACKAGES holds node_modules; with FOLDER it is backed by files there
import { createRequire } from "node:module"
import { join } from "node:path"
import { pathToFileURL } from "node:url"

const [packages, folder] = process.argv.slice(2)
const entry = createRequire(join(packages, "package.json")).resolve("@durable-streams/server")
const { DurableStreamTestServer } = await import(pathToFileURL(entry.replace(/index\.cjs$/, "index.js")).href)

const server = new DurableStreamTestServer({ host: "127.0.0.1", port: 0, dataDir: folder })
const url = new URL(await server.start())
console.log(JSON.stringify({ port: Number(url.port) }))
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => {
    setTimeout(() => process.exit(0), 1000).unref()
    server.stop().finally(() => process.exit(0))
  })
}
